"""From what was found and copied to the manifest's entries and extent maps (pure but for the map writer)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from pgkeep.backup.copied import Copied, PackTable, Stretches
from pgkeep.backup.tasks import content_length
from pgkeep.format.extents import ExtentMap, encode_extents, merge_adjacent
from pgkeep.format.manifest import BadPages, Entry, EntryType, Place, Unit
from pgkeep.pg import entry as datadir
from pgkeep.pg.page import BLCKSZ
from pgkeep.values.ids import ObjectId

WriteMap = Callable[[bytes, bytes], tuple[ObjectId, int]]
"""(path, encoded map) -> (pack, first byte in its map space)."""


def extent_map(stretches: Stretches, packs: PackTable) -> ExtentMap:
    """The columns of a file's extents, neighbours merged."""
    used, pack = np.unique(stretches.pack, return_inverse=True)
    ids = tuple(packs.pack(int(index)) for index in used)
    return merge_adjacent(ExtentMap(ids, stretches.count, pack.astype(np.uint32), stretches.ordinal))


@dataclass(frozen=True, slots=True)
class EntryMaker:
    """Turns what was found and copied into the manifest's entries."""

    copied: Copied
    write_map: WriteMap
    map_hash: Callable[[bytes], bytes]

    def entries(self, found: Iterable[datadir.Entry]) -> Iterator[Entry]:
        """In the order of `found`, without the files that vanished."""
        for number, entry in enumerate(found):
            if entry.type is not datadir.EntryType.FILE:
                yield Entry(path=os.fsencode(entry.path), type=EntryType(entry.type), mode=entry.mode, size=0)
            elif number not in self.copied.vanished:
                yield self._file(number, found=entry)

    def _file(self, number: int, found: datadir.Entry) -> Entry:
        unit = Unit.PAGES if found.fork is not None else Unit.BYTES
        path = os.fsencode(found.path)
        entry = Entry(path=path, type=EntryType.FILE, mode=found.mode, size=content_length(found), unit=unit)
        settled = self.copied.settled(number)
        if settled is not None:
            pack = self.copied.packs.index(settled.pack)
            return replace(
                entry, place=settled.place, pack=pack, at=settled.at, length=settled.length, hash=settled.hash
            )
        stretches = self.copied.of(number)
        covered = int(stretches.count.sum(dtype=np.int64)) * (BLCKSZ if unit is Unit.PAGES else 1)
        if covered != entry.size:
            raise AssertionError(f"{found.path!r}: {covered} of {entry.size} bytes were copied")
        if not entry.size:
            return entry
        if len(stretches.count) > 1:
            return self._mapped(entry, extent_map(stretches, self.copied.packs))
        return replace(entry, place=Place.INLINE, pack=int(stretches.pack[0]), at=int(stretches.ordinal[0]))

    def _mapped(self, entry: Entry, columns: ExtentMap) -> Entry:
        packs = self.copied.packs
        if len(columns.count) == 1:
            number = packs.index(columns.packs[0])
            return replace(entry, place=Place.INLINE, pack=number, at=int(columns.ordinal[0]))
        data = encode_extents(columns)
        pack, at = self.write_map(entry.path, data)
        return replace(
            entry, place=Place.MAP, pack=packs.index(pack), at=at, length=len(data), hash=self.map_hash(data)
        )


def bad_pages(found: Iterable[datadir.Entry], copied: Copied, stop_lsn: int) -> list[BadPages]:
    """Files with pages that are damaged on the source."""
    bad = copied.bad_blocks(stop_lsn)
    if not bad:
        return []
    return [
        BadPages(path=os.fsencode(entry.path), blocks=bad[number])
        for number, entry in enumerate(found)
        if number in bad
    ]
