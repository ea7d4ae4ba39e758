"""From the workers' results to the manifest's entries, extent maps and pack table (pure but for the map writer)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from pgkeep.backup.tasks import content_length
from pgkeep.backup.worker import PlacedExtent, RunResult
from pgkeep.format.extents import ExtentMap, encode_extents, merge_adjacent
from pgkeep.format.manifest import BadPages, Entry, EntryType, PackRef, Place, Unit, live_bitmap
from pgkeep.pg import datadir
from pgkeep.pg.page import BLCKSZ
from pgkeep.repo.packwriter import WrittenPack
from pgkeep.values.ids import ObjectId

WriteMap = Callable[[bytes, bytes], tuple[ObjectId, int]]
"""(path, encoded map) -> (pack, first byte in its map space)."""


@dataclass(slots=True)
class CopiedFile:
    """The runs of one file so far."""

    runs: list[RunResult] = field(default_factory=list)
    vanished: bool = False

    def add(self, run: RunResult) -> None:
        self.vanished |= run.vanished
        self.runs.append(run)

    def extents(self) -> list[PlacedExtent]:
        """In the order of the file."""
        return [extent for run in sorted(self.runs, key=lambda run: run.start) for extent in run.extents]

    def bad_blocks(self, stop_lsn: int) -> list[int]:
        """Pages that were wrong before the backup began, and those whose LSN no WAL of the backup can explain."""
        bad = [block for run in self.runs for block in run.bad]
        bad += [page.block for run in self.runs for page in run.pending if page.lsn > stop_lsn]
        return sorted(bad)


def extent_map(extents: list[PlacedExtent]) -> ExtentMap:
    """The columns of a file's extents, neighbours merged."""
    packs = list(dict.fromkeys(extent.pack for extent in extents))
    index = {pack: number for number, pack in enumerate(packs)}
    n = len(extents)
    return merge_adjacent(
        ExtentMap(
            tuple(packs),
            np.fromiter((extent.count for extent in extents), np.uint32, n),
            np.fromiter((index[extent.pack] for extent in extents), np.uint32, n),
            np.fromiter((extent.ordinal for extent in extents), np.int64, n),
        )
    )


class PackTable:
    """Pack ids -> indices of the manifest's pack table.

    The packs of this backup are entirely live but for what vanished; their rows are known only when all are written.
    """

    def __init__(self) -> None:
        self._index: dict[ObjectId, int] = {}

    def index(self, pack: ObjectId) -> int:
        return self._index.setdefault(pack, len(self._index))

    def rows(self, written: Iterable[WrittenPack]) -> list[PackRef]:
        """KeyError if an entry names a pack that nobody wrote."""
        known = {pack.id: pack for pack in written}
        for pack in known:
            self.index(pack)
        return [_row(known[pack]) for pack in self._index]


def _row(pack: WrittenPack) -> PackRef:
    return PackRef(pack.id, pack.footer, pack.frames, live_bitmap(np.ones(pack.frames, np.bool_)))


@dataclass(frozen=True, slots=True)
class EntryMaker:
    """Turns what was found and copied into the manifest's entries."""

    packs: PackTable
    write_map: WriteMap
    map_hash: Callable[[bytes], bytes]

    def entries(self, found: Iterable[datadir.Entry], copied: Mapping[int, CopiedFile]) -> Iterator[Entry]:
        """In the order of `found`, without the files that vanished."""
        for number, entry in enumerate(found):
            if entry.type is not datadir.EntryType.FILE:
                yield Entry(path=os.fsencode(entry.path), type=EntryType(entry.type), mode=entry.mode, size=0)
            elif not copied[number].vanished:
                yield self._file(entry, copied[number].extents())

    def _file(self, found: datadir.Entry, extents: list[PlacedExtent]) -> Entry:
        unit = Unit.PAGES if found.fork is not None else Unit.BYTES
        path = os.fsencode(found.path)
        entry = Entry(path=path, type=EntryType.FILE, mode=found.mode, size=content_length(found), unit=unit)
        if not entry.size:
            return entry
        columns = extent_map(extents)
        covered = columns.total() * (BLCKSZ if unit is Unit.PAGES else 1)
        if covered != entry.size:
            raise AssertionError(f"{found.path!r}: {covered} of {entry.size} bytes were copied")
        numbers = [self.packs.index(pack) for pack in columns.packs]
        if len(columns.count) == 1:
            return replace(entry, place=Place.INLINE, pack=numbers[0], at=int(columns.ordinal[0]))
        data = encode_extents(columns)
        pack, at = self.write_map(path, data)
        return replace(
            entry,
            place=Place.MAP,
            pack=self.packs.index(pack),
            at=at,
            length=len(data),
            hash=self.map_hash(data),
        )


def bad_pages(found: Iterable[datadir.Entry], copied: Mapping[int, CopiedFile], stop_lsn: int) -> list[BadPages]:
    """Files with pages that are damaged on the source."""
    bad: list[BadPages] = []
    for number, entry in enumerate(found):
        file = copied.get(number)
        if file and not file.vanished and (blocks := file.bad_blocks(stop_lsn)):
            bad.append(BadPages(path=os.fsencode(entry.path), blocks=blocks))
    return bad
