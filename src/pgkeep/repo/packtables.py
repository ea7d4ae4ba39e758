"""What a manifest's packs say of their units, read when needed and kept within a limit; which frames are used."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import numpy as np

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.extents import HOLE, ExtentMap
from pgkeep.format.footer import I64, U32, U64
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import PackRef, live_bitmap
from pgkeep.format.tail import FooterPlace
from pgkeep.pg.page import BLCKSZ
from pgkeep.repo.packreader import PackReader, missing_as_damage, read_page_lsns
from pgkeep.repo.repository import Repository
from pgkeep.values.ids import ClusterUuid, ObjectId

MEMORY: Final = 64 << 20
"""Bytes of tables that are kept."""
_READER_COST: Final = 1 << 16
_MARKS: Final = 1 << 16
"""Runs that are gathered before their frames are looked up."""
_FEW: Final = 64
"""Extents that are gathered with those of other files: to look up each file's own costs more than it."""
V = TypeVar("V")


class PackTables:
    """Frame and page tables of a manifest's packs; faults are those of the store, and Damaged."""

    def __init__(
        self, repository: Repository, cluster: ClusterUuid, packs: Sequence[tuple[ObjectId, FooterPlace]],
        memory: int = MEMORY,
    ) -> None:  # fmt: skip
        self._repository = repository
        self._cluster = cluster
        self._places = dict(packs)
        self.known = frozenset(self._places)
        """The packs that the manifest names."""
        self._memory = memory
        self._held: OrderedDict[tuple[str, ObjectId], tuple[object, int]] = OrderedDict()
        self._size = 0

    def reader(self, pack: ObjectId) -> PackReader:
        """The pack with its frame table."""
        return self._kept("reader", pack, self._open, lambda reader: _READER_COST + 64 * len(reader.frames))

    def lsns(self, pack: ObjectId) -> U64:
        """pd_lsn of every page of the pack, by ordinal."""
        return self._kept("lsns", pack, self._read_lsns, lambda column: column.nbytes)

    def hashes(self, pack: ObjectId) -> U64:
        """The keyed hash of every page of the pack, by ordinal; Damaged when the pack has none."""
        return self._kept("hashes", pack, self._read_hashes, lambda column: column.nbytes)

    def units(self, pack: ObjectId, kind: FrameKind) -> int:
        """Units of `kind` in the pack."""
        reader = self.reader(pack)
        ends = reader.frames.unit_ends(kind, reader.page_size)
        return int(ends[-1]) if len(ends) else 0

    def page_hashes(self, data: memoryview) -> bytes:
        """What `hashes` would say of these pages."""
        return self._repository.keys.pages(data, BLCKSZ)

    def _kept(self, what: str, pack: ObjectId, read: Callable[[ObjectId], V], cost: Callable[[V], int]) -> V:
        key = (what, pack)
        known = self._held.get(key)
        if known is not None:
            self._held.move_to_end(key)
            return known[0]  # type: ignore[return-value]  # what is held under a key is what its reader gave
        value = read(pack)
        self._held[key] = value, cost(value)
        self._size += cost(value)
        while self._size > self._memory and len(self._held) > 1:
            self._size -= self._held.popitem(last=False)[1][1]
        return value

    def _place(self, pack: ObjectId) -> FooterPlace:
        try:
            return self._places[pack]
        except KeyError:
            raise Damaged(f"pack {pack}", "is named by an extent map and is not in the manifest's pack table") from None

    def _open(self, pack: ObjectId, *, hashes: bool = False) -> PackReader:
        try:
            return PackReader.open(self._repository, self._cluster, pack, self._place(pack), hashes=hashes)
        except Fault as fault:
            raise missing_as_damage(fault, names.pack(self._cluster, pack)) from fault

    def _read_lsns(self, pack: ObjectId) -> U64:
        try:
            return read_page_lsns(self._repository, self._cluster, pack, self._place(pack))
        except Fault as fault:
            raise missing_as_damage(fault, names.pack(self._cluster, pack)) from fault

    def _read_hashes(self, pack: ObjectId) -> U64:
        reader = self._open(pack, hashes=True)
        if reader.footer.hashes is None:
            raise Damaged(reader.key, "has no hashes of its pages")
        return reader.footer.hashes

    def column(self, packs: Sequence[ObjectId], pack: U32, ordinal: I64, read: Callable[[ObjectId], U64]) -> U64:
        """What `read` (`lsns` or `hashes`) says of the page `ordinal[i]` of pack number `pack[i]`; 0 for holes.

        uint64 (n,).  Damaged when a pack does not have the page.
        """
        found = np.zeros(len(pack), np.uint64)
        one = len(pack) and bool((pack == pack[0]).all())  # the most frequent case by far
        for number in [int(pack[0])] if one else np.unique(pack).tolist():
            if number != HOLE:
                mine = slice(None) if one else np.flatnonzero(pack == number)
                table, rows = read(packs[number]), ordinal[mine]
                if int(rows.max()) >= len(table):
                    raise Damaged(f"pack {packs[number]}", f"has no page {int(rows.max())}")
                found[mine] = table[rows]
        return found


class LiveFrames:
    """Which frames of a manifest's packs are needed, gathered file by file."""

    def __init__(self, tables: PackTables) -> None:
        self._tables = tables
        self._live: dict[ObjectId, bytes] = {}
        """Bitmaps: as columns of numbers, those of fifty thousand packs would take eight times as much."""
        self._pending: defaultdict[tuple[ObjectId, FrameKind], list[tuple[int, int]]] = defaultdict(list)
        self._waiting = 0

    def mark(self, pack: ObjectId, kind: FrameKind, ordinal: int, count: int) -> None:
        """`count` units of `kind` from `ordinal`; of a pack that the tables do not know nothing is noted."""
        if pack not in self._tables.known:
            return
        self._pending[pack, kind].append((ordinal, count))
        self._waiting += 1
        if self._waiting >= _MARKS:
            self._settle()

    def mark_extents(self, extents: ExtentMap, kind: FrameKind) -> None:
        if len(extents.count) <= _FEW:
            for count, pack, ordinal in zip(
                extents.count.tolist(), extents.pack.tolist(), extents.ordinal.tolist(), strict=True
            ):
                if pack != HOLE:
                    self.mark(extents.packs[pack], kind, ordinal, count)
            return
        for number, pack in enumerate(extents.packs):
            mine = extents.pack == number
            if pack in self._tables.known and mine.any():
                self._add(pack, kind, extents.ordinal[mine], extents.count[mine].astype(np.int64))

    def _settle(self) -> None:
        for (pack, kind), runs in self._pending.items():
            rows = np.array(runs, np.int64)
            self._add(pack, kind, rows[:, 0], rows[:, 1])
        self._pending.clear()
        self._waiting = 0

    def _add(self, pack: ObjectId, kind: FrameKind, ordinal: I64, count: I64) -> None:
        reader = self._tables.reader(pack)
        frames = reader.frames
        ends = frames.unit_ends(kind, reader.page_size)
        first = np.searchsorted(ends, ordinal, side="right")
        last = np.searchsorted(ends, ordinal + count - 1, side="right")
        if len(last) and int(last.max()) >= len(frames):
            raise Damaged(reader.key, f"does not hold the {kind.name} that a backup places there")
        steps = np.bincount(first, minlength=len(frames) + 1) - np.bincount(last + 1, minlength=len(frames) + 1)
        # Between the first and the last frame of a run there may be frames of other kinds.
        covered = (np.cumsum(steps[: len(frames)]) > 0) & (frames.kind == kind)
        bits = live_bitmap(covered)
        known = self._live.get(pack)
        self._live[pack] = bits if known is None else joined(known, bits)

    def unmarked(self, packs: Iterable[PackRef]) -> dict[ObjectId, int]:
        """How many needed frames the packs' own bitmaps do not name, where there are any."""
        self._settle()
        missing: dict[ObjectId, int] = {}
        for pack in packs:
            needed = int.from_bytes(self._live.get(pack.id, b""), "little")
            if count := (needed & ~int.from_bytes(pack.live, "little")).bit_count():
                missing[pack.id] = count
        return missing

    def bitmaps(self) -> dict[ObjectId, bytes]:
        """By pack, as a manifest has them."""
        self._settle()
        return self._live


def joined(one: bytes, other: bytes) -> bytes:
    """The frames that either bitmap of a pack names."""
    return (np.frombuffer(one, np.uint8) | np.frombuffer(other, np.uint8)).tobytes()
