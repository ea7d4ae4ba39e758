"""What is known of archived WAL without reading it: from the repository's indexes, and from what was just read.

1. An index is believed for a segment only when the WAL object's header shows the content hash that the index was made
   from, and so do the segments into which its last record reaches.  Everything else is read anew.
2. What was read is kept in the repository, a run of segments an object, as soon as a run is complete: a plan that is
   interrupted has not read in vain, and memory stays bounded.
3. Nothing here ends a plan: an index that cannot be read or written is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from msgspec.structs import replace

from pgkeep import __version__
from pgkeep.catalog.walfacts import Stretch
from pgkeep.catalog.walread import ReadSegment, read_point, read_tablespace, stretch_of
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned, silent
from pgkeep.format.header import ObjectType
from pgkeep.format.limits import MAX_INDEX_SEGMENTS
from pgkeep.format.walends import Ends
from pgkeep.format.windex import SegmentEntry, WalIndexInfo
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.windex import StoredIndex, drop_index, list_indexes, open_index, put_index
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment

RUN_SEGMENTS: Final = 64
"""Segments of one index at most: a thousand segments are sixteen objects."""
RUN_BYTES: Final = 1 << 30
"""WAL of one index at most, unless a single segment is larger."""
_READERS: Final = 32
"""Headers that are fetched at once: on an object store each takes tens of milliseconds."""
_TRIED: Final = 4
_SLOW: Final = 0.002
"""Seconds for a header; above it they are fetched side by side."""
_UNWRITTEN: Final = frozenset({"store-read-only", "store-denied", "store-full", "store-unreachable", "object-exists"})
_UNREADABLE: Final = frozenset({"format-damaged", "format-unsupported", "object-missing"})


class IndexDamaged(Exception):
    """An index whose summary was believed has transactions that cannot be read; never leaves this room."""

    def __init__(self, stored: StoredIndex, fault: Fault) -> None:
        super().__init__(fault.message)
        self.stored = stored
        self.fault = fault


class KnownWal:
    """The stretches of one lineage that need not be read; `look` first, then `get`."""

    def __init__(self, archive: WalArchive, history: History, clock: Clock, announce: Announce = silent) -> None:
        self._archive = archive
        self._history = history
        self._clock = clock
        self._announce = announce
        self._size = archive.segment_size
        self._run = max(min(RUN_SEGMENTS, RUN_BYTES // self._size), 1)
        self._stretches: dict[int, Stretch] = {}
        self._unkept: dict[int, ReadSegment] = {}
        self._hashes: dict[int, bytes | None] = {}
        self._opened: set[str] = set()
        self._bad: list[str] = []
        self._can_write = True

    def get(self, number: int) -> Stretch | None:
        """What is known of a segment of the lineage."""
        return self._stretches.get(number)

    def look(self, first: int, last: int) -> None:
        """Find what the repository's indexes say of the segments first..last.  The store's faults."""
        opened = list(self._open(first, last))
        covered = {number for stored in opened for number in _numbers(stored, with_tail=True)}
        self._fetch_hashes(covered)
        for stored in opened:
            self._believe(stored)

    def exists(self, number: int) -> bool:
        """Whether the archive holds segment `number` of the lineage."""
        return self._hash(number) is not None

    def add(self, segments: Iterable[ReadSegment]) -> None:
        """Segments that were just read; complete runs are kept in the repository at once."""
        for segment in segments:
            self._stretches[segment.number] = stretch_of(segment, self._size)
            self._unkept[segment.number] = segment
        self._keep(only_complete=True)

    def keep(self) -> None:
        """Keep in the repository what is not there yet.  A store that refuses is a warning."""
        self._keep(only_complete=False)

    def _open(self, first: int, last: int) -> Iterator[StoredIndex]:
        for timeline in self._history.timelines():
            for begin, key in list_indexes(self._archive, timeline):
                if begin > last or begin + MAX_INDEX_SEGMENTS <= first or key in self._opened:
                    continue
                self._opened.add(key)
                try:
                    yield open_index(self._archive, key)
                except Fault as fault:
                    if fault.code not in _UNREADABLE:
                        raise
                    self._distrust(key, fault.message)

    def _believe(self, stored: StoredIndex) -> None:
        """An index that is wrong about one segment is believed about none."""
        index, size = stored.index, self._size
        hashes = [*(row.content_hash for row in index.segments), *index.info.tail]
        mine = [n for n in _numbers(stored) if self._history.segment_timeline(n, size) == index.identity.timeline]
        if any(self._hash(n) not in (hashes[n - index.first], None) for n in mine):
            self._distrust(stored.key, f"{stored.key}: was made from other WAL than the archive holds now")
            return
        for number in mine:
            end = index.segments[number - index.first].end
            needed = range(number, max(number, (end - 1) // size) + 1)
            if all(self._hash(n) == hashes[n - index.first] for n in needed):
                self._stretches.setdefault(number, _stored_stretch(stored, number))

    def _distrust(self, key: str, why: str) -> None:
        self._bad.append(key)
        self._announce(
            Warned("wal-index", f"{why}; it is not believed", "the WAL is read again, and the index made anew")
        )

    def doubt(self, damage: IndexDamaged) -> None:
        """Forget everything that an index said whose transactions turned out to be unreadable."""
        for number in _numbers(damage.stored, with_tail=False):
            self._stretches.pop(number, None)
        self._distrust(damage.stored.key, damage.fault.message)

    def _hash(self, number: int) -> bytes | None:
        if number not in self._hashes:
            name = Segment(self._history.segment_timeline(number, self._size), number).name(self._size)
            try:
                identity = self._archive.head(self._archive.key(name), ObjectType.WAL_SEGMENT)
            except Fault as fault:
                if fault.code not in _UNREADABLE:
                    raise
                identity = None  # whoever reads the WAL says what is wrong with it
            self._hashes[number] = None if identity is None else identity.content_hash
        return self._hashes[number]

    def _fetch_hashes(self, numbers: set[int]) -> None:
        """All at once where each takes long; threads cost more than they save on a local disk."""
        missing = sorted(numbers - self._hashes.keys())
        began = self._clock.monotonic()
        for number in missing[:_TRIED]:
            self._hash(number)
        rest = missing[_TRIED:]
        if rest and (self._clock.monotonic() - began) / _TRIED > _SLOW:
            with ThreadPoolExecutor(_READERS) as pool:
                list(pool.map(self._hash, rest))

    def _keep(self, *, only_complete: bool) -> None:
        if not self._can_write:
            return
        for run in list(self._runs()):
            whole = len(run) == self._run
            if whole or not only_complete:
                self._keep_run(run)

    def _runs(self) -> Iterator[list[ReadSegment]]:
        """Adjoining segments of one timeline and one aligned block that can be kept."""
        run: list[ReadSegment] = []
        for number in sorted(self._unkept):
            segment = self._unkept[number]
            if run and not self._adjoins(run[-1].number, number):
                yield run
                run = []
            if self._can_keep(segment):
                run.append(segment)
            elif run:
                yield run
                run = []
        if run:
            yield run

    def _adjoins(self, number: int, following: int) -> bool:
        of = self._history.segment_timeline
        return (
            following == number + 1
            and number // self._run == following // self._run
            and of(number, self._size) == of(following, self._size)
        )

    def _can_keep(self, segment: ReadSegment) -> bool:
        """Its hash and those of all it depends on are known: not so for partials, and for the archive's open end."""
        end = segment.entry.row.end
        if not segment.indexable or end < (segment.number + 1) * self._size:
            return False
        return all(self.exists(number) for number in range(segment.number, (end - 1) // self._size + 1))

    def _keep_run(self, run: list[ReadSegment]) -> None:
        first = Segment(self._history.segment_timeline(run[0].number, self._size), run[0].number)
        last = run[-1]
        behind = range(last.number + 1, (last.entry.row.end - 1) // self._size + 1)
        tail = [known for number in behind if (known := self._hash(number)) is not None]
        info = WalIndexInfo(tool=f"pgkeep {__version__}", tail=tail)
        try:
            while self._bad:
                drop_index(self._archive, self._bad.pop())
            stored = put_index(self._archive, first, info, list(map(self._entry, run)), self._clock)
        except Fault as fault:
            if fault.code not in _UNWRITTEN:
                raise
            self._can_write = False
            text = f"what was read of the WAL could not be kept: {fault.message}"
            self._announce(Warned("wal-index-unwritten", text, "the next plan reads it again"))
            return
        for segment in run:
            del self._unkept[segment.number]
            if stored.index.first <= segment.number < stored.index.first + len(stored.index.segments):
                self._stretches[segment.number] = _stored_stretch(stored, segment.number)

    def _entry(self, segment: ReadSegment) -> SegmentEntry:
        content_hash = self._hash(segment.number)
        assert content_hash is not None
        entry = segment.entry
        return SegmentEntry(replace(entry.row, content_hash=content_hash), entry.ends, entry.points, entry.tablespaces)


def _numbers(stored: StoredIndex, *, with_tail: bool = False) -> range:
    length = len(stored.index.segments) + (len(stored.index.info.tail) if with_tail else 0)
    return range(stored.index.first, stored.index.first + length)


def _stored_stretch(stored: StoredIndex, number: int) -> Stretch:
    index, size = stored.index, stored.archive.segment_size
    row = index.segments[number - index.first]
    start = number * size
    inside = range(start, start + size)

    def load() -> Ends | None:
        try:
            return stored.ends(number)
        except Fault as fault:
            if fault.code not in _UNREADABLE:
                raise
            raise IndexDamaged(stored, fault) from None

    return Stretch(
        number=number,
        start=Lsn(start),
        end=Lsn(row.end),
        transactions=row.transactions,
        earliest=row.earliest,
        latest=row.latest,
        lowest=row.lowest,
        highest=row.highest,
        restore_points=tuple(read_point(point) for point in index.points if point.lsn in inside),
        tablespaces=tuple(read_tablespace(space) for space in index.tablespaces if space.lsn in inside),
        load=load,
    )
