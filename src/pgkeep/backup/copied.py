"""Where every file of a backup lies: the reports gathered in columns that take some 30 bytes a file (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.backup.report import DOUBTFUL, PLACED, SETTLED, KeptPart, Reported, Rows, Settled
from pgkeep.format.footer import I64, U32
from pgkeep.format.manifest import PackRef, Place, live_bitmap
from pgkeep.repo.packtables import joined
from pgkeep.repo.packwriter import WrittenPack
from pgkeep.values.ids import ObjectId

_NOTHING: Final[Mapping[ObjectId, bytes]] = MappingProxyType({})


class PackTable:
    """Packs <-> indices of the manifest's pack table.

    The packs of this backup are entirely live but for what vanished; their rows are known only when all are written.
    """

    def __init__(self) -> None:
        self._index: dict[ObjectId, int] = {}
        self._packs: list[ObjectId] = []

    def index(self, pack: ObjectId) -> int:
        known = self._index.get(pack)
        if known is None:
            known = self._index[pack] = len(self._packs)
            self._packs.append(pack)
        return known

    def pack(self, index: int) -> ObjectId:
        return self._packs[index]

    def rows(
        self, written: Iterable[WrittenPack], base: Iterable[PackRef] = (), live: Mapping[ObjectId, bytes] = _NOTHING
    ) -> list[PackRef]:
        """The rows of all packs that entries name, those of the base with the frames that are still `live`.

        KeyError if an entry names a pack that nobody wrote.
        """
        known = {pack.id: replace(pack, live=live[pack.id]) for pack in base if pack.id in live}
        known |= {pack.id: _row(pack) for pack in written}
        for pack in known:
            self.index(pack)
        return [known[pack] for pack in self._packs]


def _row(pack: WrittenPack) -> PackRef:
    return PackRef(pack.id, pack.footer, pack.frames, live_bitmap(np.ones(pack.frames, np.bool_)))


def joined_live(parts: Iterable[Mapping[ObjectId, bytes]]) -> dict[ObjectId, bytes]:
    """By pack the frames that any of the workers' files need."""
    live: dict[ObjectId, bytes] = {}
    for part in parts:
        for pack, bits in part.items():
            known = live.get(pack)
            live[pack] = bits if known is None else joined(known, bits)
    return live


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """Where one file's content lies, in its order; `pack` indexes the pack table."""

    count: U32
    pack: U32
    ordinal: I64

    def part(self, first: int, last: int) -> Stretches:
        return Stretches(self.count[first:last], self.pack[first:last], self.ordinal[first:last])


class Copied:
    """What became of the files; everything is added first, and asked for then."""

    def __init__(self, packs: PackTable) -> None:
        self.packs = packs
        self.vanished: set[int] = set()
        # Bytes, not a list of arrays: a report on one large file would cost several times its row.
        self._added = bytearray()
        self._doubtful = bytearray()
        self._settled = bytearray()
        self._kept: dict[int, KeptPart] = {}
        self._by_file: tuple[npt.NDArray[np.uint32], Rows] | None = None
        self.pages = 0
        """Pages that were stored, not taken over."""
        self._sorted: Stretches | None = None
        self._ends: npt.NDArray[np.intp] = np.zeros(0, np.intp)

    def add(self, reported: Reported) -> None:
        rows = reported.placed.copy()
        index = np.array([self.packs.index(pack) for pack in reported.packs], np.uint32)
        rows["pack"] = index[rows["pack"]]
        self._added += rows.tobytes()
        settled = reported.settled.copy()
        settled["pack"] = index[settled["pack"]]
        self._settled += settled.tobytes()
        self.pages += reported.pages
        for part in reported.kept:
            known = self._kept.get(part.file)
            self._kept[part.file] = replace(part, length=part.length + known.length) if known else part
        self._doubtful += reported.doubtful.tobytes()
        self.vanished.update(reported.vanished)

    def of(self, file: int) -> Stretches:
        """A file that was never reported has none."""
        stretches = self._sorted or self._sort()
        if file >= len(self._ends):
            return stretches.part(0, 0)
        return stretches.part(int(self._ends[file - 1]) if file else 0, int(self._ends[file]))

    def kept(self) -> Iterator[Settled]:
        """Where those files lie in the base that were read in parts, each of which is what it is there."""
        return (part.settled for part in self._kept.values() if part.length == part.whole)

    def settled(self, file: int) -> Settled | None:
        """Where a file lies that was reported as a whole, or of which the base has every part."""
        part = self._kept.get(file)
        if part is not None and part.length == part.whole:
            return part.settled
        files, rows = self._by_file or self._sort_settled()
        at = int(np.searchsorted(files, file))
        if at == len(files) or files[at] != file:
            return None
        row = rows[at]
        digest = row["hash"].tobytes() if row["hashed"] else b""
        return Settled(
            Place(int(row["place"])), self.packs.pack(int(row["pack"])), int(row["at"]), int(row["length"]), digest
        )

    def _sort_settled(self) -> tuple[npt.NDArray[np.uint32], Rows]:
        rows = np.frombuffer(self._settled, SETTLED)
        rows = rows[np.argsort(rows["file"], kind="stable")]
        self._settled = bytearray()
        self._by_file = np.ascontiguousarray(rows["file"]), rows
        return self._by_file

    def _sort(self) -> Stretches:
        """By file and place in the file; the rows as they came are let go, or they would be there twice."""
        rows = np.frombuffer(self._added, PLACED)
        self._added = bytearray()
        order = np.lexsort((rows["start"], rows["file"]))
        self._ends = np.cumsum(np.bincount(rows["file"]))
        self._sorted = Stretches(rows["count"][order], rows["pack"][order], rows["ordinal"][order])
        return self._sorted

    def bad_blocks(self, stop_lsn: int) -> dict[int, list[int]]:
        """By file: pages that were wrong before the backup began, or whose LSN no WAL of the backup can explain."""
        rows = np.frombuffer(self._doubtful, DOUBTFUL)
        bad = rows[(rows["lsn"] == 0) | (rows["lsn"] > stop_lsn)]
        found: defaultdict[int, list[int]] = defaultdict(list)
        for row in np.lexsort((bad["block"], bad["file"])):
            file = int(bad["file"][row])
            if file not in self.vanished:
                found[file].append(int(bad["block"][row]))
        return dict(found)
