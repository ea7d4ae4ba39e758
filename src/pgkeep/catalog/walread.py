"""What pg_waldump said, sorted by the segments in which the records begin, in the form of a WAL index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pgkeep.catalog.walfacts import Stretch, bounds_of, microseconds_of, moment_of
from pgkeep.format.section import StoredSection, reopen_section
from pgkeep.format.walends import COMMITTED, PREPARED, Ends, decode_ends, encode_ends, is_indexable, joined
from pgkeep.format.windex import IndexedPoint, IndexedSegment, IndexedTablespace, SegmentEntry
from pgkeep.pg.waldump import RestorePoint, TablespaceCreated, TablespaceDropped, TransactionEnd, WalRecord
from pgkeep.values.lsn import Lsn

_UNKNOWN = bytes(32)


@dataclass(frozen=True, slots=True)
class ReadSegment:
    """A segment that was read: its entry for an index but for the content hash, which the store knows (picklable)."""

    number: int
    entry: SegmentEntry
    indexable: bool
    """False for what an index cannot hold."""
    ends: Ends | None = None
    """The transactions, where the entry cannot hold them."""


@dataclass(slots=True)
class _Columns:
    """The transactions of one segment while they come."""

    lsn: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    xid: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    subxacts: list[int] = field(default_factory=list)
    points: list[RestorePoint] = field(default_factory=list)
    tablespaces: list[TablespaceCreated | TablespaceDropped] = field(default_factory=list)

    def add(self, record: TransactionEnd) -> None:
        self.lsn.append(record.lsn)
        self.end.append(record.end)
        self.xid.append(record.xid)
        self.time.append(microseconds_of(record.time))
        self.flags.append((COMMITTED if record.committed else 0) | (PREPARED if record.prepared else 0))
        self.count.append(len(record.subxacts))
        self.subxacts += record.subxacts

    def ends(self) -> Ends | None:
        if not self.lsn:
            return None
        return Ends(
            np.array(self.lsn, np.uint64), np.array(self.end, np.uint64), np.array(self.xid, np.uint32),
            np.array(self.time, np.int64), np.array(self.flags, np.uint8), np.array(self.count, np.uint32),
            np.array(self.subxacts, np.uint32),
        )  # fmt: skip


class Gathered:
    """Records of the segments `numbers`, each `size` bytes."""

    def __init__(self, numbers: range, size: int) -> None:
        self._numbers = numbers
        self._size = size
        self._columns = {number: _Columns() for number in numbers}

    def take(self, records: Iterable[WalRecord]) -> None:
        """Sort records into the segments in which they begin."""
        for record in records:
            columns = self._columns[record.lsn // self._size]
            if isinstance(record, TransactionEnd):
                columns.add(record)
            elif isinstance(record, RestorePoint):
                columns.points.append(record)
            elif isinstance(record, TablespaceCreated | TablespaceDropped):
                columns.tablespaces.append(record)

    def segments(self, ends: Sequence[Lsn]) -> list[ReadSegment]:
        """What was taken; `ends` is where the last record of each segment ends."""
        pairs = zip(self._numbers, ends, strict=True)
        return [_segment(number, number * self._size, self._columns[number], end) for number, end in pairs]


def _segment(number: int, start: int, columns: _Columns, end: Lsn) -> ReadSegment:
    ends = columns.ends()
    indexable = ends is None or is_indexable(ends)
    points = tuple(_point(point) for point in columns.points)
    indexable = indexable and all(point.time >= 0 for point in points)
    sections = tuple(encode_ends(ends, start)) if ends is not None and indexable else ()
    bounds = bounds_of(ends) if indexable else bounds_of(None)
    row = IndexedSegment(
        content_hash=_UNKNOWN, end=end, transactions=0 if ends is None else len(ends), sections=len(sections),
        earliest=bounds.earliest, latest=bounds.latest, lowest=bounds.lowest, highest=bounds.highest,
    )  # fmt: skip
    entry = SegmentEntry(row, sections, points, tuple(_tablespace(space) for space in columns.tablespaces))
    return ReadSegment(number, entry, indexable, None if indexable else ends)


def _point(point: RestorePoint) -> IndexedPoint:
    name = point.name.encode("utf-8", "surrogateescape")
    return IndexedPoint(lsn=point.lsn, end=point.end, time=microseconds_of(point.time), name=name)


def _tablespace(record: TablespaceCreated | TablespaceDropped) -> IndexedTablespace:
    created = isinstance(record, TablespaceCreated)
    path = record.path.encode("utf-8", "surrogateescape") if isinstance(record, TablespaceCreated) else b""
    return IndexedTablespace(
        lsn=record.lsn, end=record.end, xid=record.xid, oid=record.oid, created=created, path=path
    )  # fmt: skip


def read_point(point: IndexedPoint) -> RestorePoint:
    """The inverse of what an index stores."""
    name = point.name.decode("utf-8", "surrogateescape")
    return RestorePoint(Lsn(point.lsn), Lsn(point.end), name, moment_of(point.time))


def read_tablespace(space: IndexedTablespace) -> TablespaceCreated | TablespaceDropped:
    """The inverse of what an index stores."""
    lsn, end = Lsn(space.lsn), Lsn(space.end)
    if space.created:
        return TablespaceCreated(lsn, end, space.xid, space.oid, space.path.decode("utf-8", "surrogateescape"))
    return TablespaceDropped(lsn, end, space.xid, space.oid)


def stretch_of(read: ReadSegment, size: int) -> Stretch:
    """What was read, for a search; the transactions stay compressed until they are looked at."""
    row, start = read.entry.row, read.number * size
    bounds = bounds_of(read.ends) if read.ends is not None else row
    return Stretch(
        number=read.number,
        start=Lsn(start),
        end=Lsn(row.end),
        transactions=row.transactions,
        earliest=bounds.earliest,
        latest=bounds.latest,
        lowest=bounds.lowest,
        highest=bounds.highest,
        restore_points=tuple(map(read_point, read.entry.points)),
        tablespaces=tuple(map(read_tablespace, read.entry.tablespaces)),
        load=lambda: read.ends if read.ends is not None else _decoded(read.entry.ends, start, size),
    )


def _decoded(sections: Sequence[StoredSection], start: int, size: int) -> Ends | None:
    obj = "what was read of the WAL"
    parts = [decode_ends(reopen_section(section, obj), start, size, obj) for section in sections]
    return joined(parts) if parts else None
