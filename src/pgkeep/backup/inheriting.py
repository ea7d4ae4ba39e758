"""Taking pages over from a base: which pages of a file are still what the base holds (docs/format/inheritance.md).

Rules of this file, each of which is one of that page:

1. A page is taken over only on evidence of its own: equal hash; or an LSN below the base's start that equals the stored
   one; or no WAL summary names it, and its file's sample agrees.
2. An LSN that no honest history explains is not a changed page: it says that the base is not this cluster's past.  Then
   nothing of it may be believed ('base-doubtful'), and the job falls back to hashes.
3. Pages that the base lists as damaged, or that lie in packs to be avoided, are stored again, whatever they look like.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pgkeep.backup.report import Settled
from pgkeep.backup.tasks import CUT_AT, BaseFile, FileRun, How
from pgkeep.backup.units import Units
from pgkeep.errors import Damaged, Fault
from pgkeep.format.extents import HOLE, ExtentMap, encode_extents, merge_adjacent, part_of
from pgkeep.format.footer import I64, U64
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import Place
from pgkeep.format.tail import FooterPlace
from pgkeep.pg.page import BLCKSZ, dated_pages, page_lsns
from pgkeep.repo.packreader import read_extents
from pgkeep.repo.packtables import LiveFrames, PackTables
from pgkeep.repo.packwriter import PackWriter
from pgkeep.repo.repository import Repository
from pgkeep.values.ids import ClusterUuid, ObjectId
from pgkeep.values.lsn import Lsn

SAMPLE: Final = 0.01
"""Share of the pages that WAL summaries call unchanged whose LSN is compared all the same."""
CLUSTER: Final = CUT_AT
"""Neighbouring pages that are sampled together: 128 KiB, which a disk reads as fast as one page."""
_GROUP: Final = 256
"""Scattered pages that are read and stored together: 2 MiB."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """What workers know of the base (picklable)."""

    packs: tuple[tuple[ObjectId, FooterPlace], ...]
    avoid: frozenset[ObjectId]
    """Packs from which nothing is taken over: condemned, damaged, or too many to restore from."""
    start_lsn: Lsn
    """Of the base: pages below it are on disk as the base has them."""
    this_start_lsn: Lsn
    seed: int
    """Of the sample."""


class Inheritance:
    """One worker's view of the base; faults are those of the store, Damaged, and base-doubtful."""

    def __init__(self, repository: Repository, cluster: ClusterUuid, settings: BaseSettings) -> None:
        self._keys = repository.keys
        self._settings = settings
        self._tables = PackTables(repository, cluster, settings.packs)
        self.live = LiveFrames(self._tables)
        self._chance = np.random.default_rng(settings.seed)
        self._last: tuple[int, ExtentMap] | None = None
        """File and map of a part: the next task is often one of the same file."""

    def file(self, run: FileRun, base: BaseFile) -> InheritedFile:
        """A relation's file, or a part of it, before any of its pages is looked at."""
        extents = self._whole(run, base)
        if run.is_part:
            extents = part_of(extents, run.start // BLCKSZ, run.length // BLCKSZ)
        return InheritedFile(self._tables, self._settings, self._chance, run, base, extents)

    def _whole(self, run: FileRun, base: BaseFile) -> ExtentMap:
        if self._last is not None and self._last[0] == run.file:
            return self._last[1]
        extents = self._extents(base)
        if extents.total() != base.units:
            raise Damaged(
                f"pack {base.settled.pack}", f"maps {extents.total()} pages for {run.path!r}, not {base.units}"
            )
        self._last = (run.file, extents) if run.is_part else None
        return extents

    def _extents(self, base: BaseFile) -> ExtentMap:
        where = base.settled
        if where.place is Place.MAP:
            try:
                reader = self._tables.reader(where.pack)
                return read_extents(reader, where.at, where.length, where.hash, self._keys)
            except Damaged:
                if where.pack not in self._settings.avoid:
                    raise
                nowhere = np.array([base.units], np.uint32), np.array([HOLE], np.uint32), np.zeros(1, np.int64)
                return ExtentMap((), *nowhere)
        one = np.array([base.units], np.uint32), np.zeros(1, np.uint32), np.array([where.at], np.int64)
        return ExtentMap((where.pack,), *one)

    def takes_over(self, run: FileRun, digest: bytes) -> Settled | None:
        """Where the base has a file of bytes with this hash; None when it is to be stored."""
        base = run.base
        if base is None or base.settled.hash != digest or base.settled.pack in self._settings.avoid:
            return None
        self.live.mark(base.settled.pack, FrameKind.BYTES, base.settled.at, base.units)
        return base.settled

    def keeps(self, file: InheritedFile) -> bool:
        """What this run saw of the file is what it is in the base, and its map need not be written anew."""
        base = file.base.settled
        return file.is_unchanged and (base.place is Place.INLINE or base.pack not in self._settings.avoid)

    def extents(self, file: InheritedFile) -> ExtentMap:
        """Where the run lies now."""
        extents = merge_adjacent(file.units.extents())
        self.live.mark_extents(extents, FrameKind.PAGES)
        return extents

    def settle(self, run: FileRun, file: InheritedFile, writer: PackWriter) -> Settled:
        """Where the whole file lies now; a new map is written where it is needed."""
        base = file.base.settled
        if self.keeps(file):
            self.live.mark_extents(file.extents, FrameKind.PAGES)
            if base.place is Place.MAP:
                self.live.mark(base.pack, FrameKind.MAPS, base.at, base.length)
            return base
        extents = self.extents(file)
        if len(extents.count) == 1:
            return Settled(Place.INLINE, extents.packs[int(extents.pack[0])], int(extents.ordinal[0]))
        data = encode_extents(extents)
        pack, at = writer.add_bytes(run.path, 0, memoryview(data), FrameKind.MAPS)
        return Settled(Place.MAP, pack, at, len(data), self._keys.extent_map(data))


class InheritedFile:
    """A file of pages, or a part of one: `units` says where each lies, first in the base, then as they are stored anew.

    Blocks that come in and go out are numbers within the file; the columns begin with the run's first.
    """

    def __init__(
        self, tables: PackTables, settings: BaseSettings, chance: np.random.Generator, run: FileRun, base: BaseFile,
        extents: ExtentMap,
    ) -> None:  # fmt: skip
        self.base = base
        self.extents = extents
        self._tables = tables
        self._settings = settings
        self._chance = chance
        self._run = run
        self._first = run.start // BLCKSZ
        self._pages = run.length // BLCKSZ
        self.units = Units.of(extents)
        self.units.resize(self._pages)
        self._kept = min(max(base.units - self._first, 0), self._pages)
        self._forced = self._must_be_stored()
        self._stored: U64 | None = None
        self._changed = 0

    def _must_be_stored(self) -> Mask:
        forced: Mask = self.units.lies_in(self._settings.avoid)
        forced |= self.units.pack == HOLE  # a hole is taken over only as zeros: storing zeros costs nothing
        forced[self._kept :] = True
        if self.base.bad:
            forced[self._rows(np.array(self.base.bad, np.int64))] = True
        return forced

    def _rows(self, blocks: npt.NDArray[np.integer[Any]]) -> I64:
        """Of these blocks those of this run, as rows of the columns."""
        rows = blocks.astype(np.int64) - self._first
        return rows[(rows >= 0) & (rows < self._pages)]

    @property
    def is_unchanged(self) -> bool:
        """The run is what it is in the base, and the file as long as it; asked when all pages have been looked at."""
        return not self._changed and self._run.whole // BLCKSZ == self.base.units

    def place(self, blocks: I64, pack: ObjectId, ordinal: int) -> None:
        """These pages were stored there."""
        self._changed += len(blocks)
        self.units.place(blocks - self._first, pack, ordinal)

    # ---- reading everything

    def differing(self, first: int, data: memoryview) -> I64:
        """Which of the pages `data`, the first of which is block `first`, must be stored: indices into `data`."""
        part = slice(first - self._first, first - self._first + len(data) // BLCKSZ)
        forced = self._forced[part]
        if self.base.how is How.HASH:
            same = np.frombuffer(self._tables.page_hashes(data), "<u8") == self._known(self._tables.hashes)[part]
            # A page that the base's own WAL was to repair, and that nobody wrote since, is damaged: it is judged anew.
            same &= page_lsns(data) < np.uint64(self._settings.start_lsn)
            return np.flatnonzero(forced | ~same)
        lsns, dated = dated_pages(data)
        old = dated & (lsns < np.uint64(self._settings.start_lsn)) & ~forced
        known = self._known(self._tables.lsns)[part]
        self._refuse(old & (lsns != known), np.arange(first, first + len(lsns)), lsns, known)
        return np.flatnonzero(~old)

    def _known(self, read: Callable[[ObjectId], U64]) -> U64:
        """What the base's tables say of every page that it has; 0 for the others."""
        if self._stored is None:
            self._stored = np.zeros(self._pages, np.uint64)
            rows = np.flatnonzero(~self._forced)  # a pack that is to be avoided may be one that cannot be read
            self._stored[rows] = self._column(rows, read)
        return self._stored

    def _column(self, rows: I64, read: Callable[[ObjectId], U64]) -> U64:
        units = self.units
        return self._tables.column(units.packs, units.pack[rows], units.ordinal[rows], read)

    def _refuse(self, wrong: Mask, blocks: I64, lsns: U64, known: U64) -> None:
        """Raise for the first page whose LSN is wrong."""
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        raise Fault(
            "base-doubtful",
            f"page {int(blocks[row])} of {os.fsdecode(self._run.path)} has LSN {Lsn(int(lsns[row]))}, which the base"
            f" does not explain: it holds that page with LSN {Lsn(int(known[row]))}",
        )

    # ---- reading what WAL summaries name

    def named(self, descriptor: int) -> Iterator[I64]:
        """The blocks that must be read and stored, ascending, some at a time; a sample of the others is compared."""
        changed = self._forced.copy()
        assert self.base.changed is not None
        if len(self.base.changed):
            changed[self._rows(self.base.changed)] = True
        changed[max(self.base.limit - self._first, 0) :] = True
        for part in self._sample():
            rows = np.arange(part.start, part.stop)
            changed[self._compare(descriptor, rows[~changed[rows]], part)] = True
        blocks = np.flatnonzero(changed) + self._first
        for at in range(0, len(blocks), _GROUP):
            yield blocks[at : at + _GROUP]

    def _sample(self) -> Iterator[range]:
        """The rows whose unnamed pages are compared, some at a time: all, or clusters of about one in a hundred."""
        step = CLUSTER if self.base.is_sampled else _GROUP
        first = np.arange(0, self._pages, step)
        if self.base.is_sampled:
            first = first[self._chance.random(len(first)) < SAMPLE]
        return (range(row, min(row + step, self._pages)) for row in first.tolist())

    def _compare(self, descriptor: int, rows: I64, part: range) -> I64:
        """Of these rows of a part those that must be stored after all, because their header says nothing."""
        if not len(rows):
            return rows
        size = len(part) * BLCKSZ
        data = os.pread(descriptor, size, (self._first + part.start) * BLCKSZ).ljust(size, b"\0")
        all_lsns, all_dated = dated_pages(data)
        lsns, dated = all_lsns[rows - part.start], all_dated[rows - part.start]
        start, this = np.uint64(self._settings.start_lsn), np.uint64(self._settings.this_start_lsn)
        known = self._column(rows, self._tables.lsns)
        # A page that WAL behind this backup's start has changed is that WAL's business; one that WAL before it has
        # changed should have been named.
        self._refuse(dated & (lsns <= this) & ((lsns > start) | (lsns != known)), rows + self._first, lsns, known)
        return rows[~dated]
