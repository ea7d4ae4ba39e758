"""A WAL index object: what the records that begin in a run of segments say, without the WAL (docs/format/objects.md).

1. It is bound to the WAL by content hashes: of every segment of the run, and of those behind it into which its last
   record reaches.  Whoever believes it compares them with the WAL objects' headers first.
2. What every plan needs is small and comes first; the transactions are columns in sections of their own, one or more a
   segment, so that they are fetched only where a target may lie.
3. It may be deleted and made again at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from pgkeep.errors import Damaged
from pgkeep.format.header import Header, WalIdentity
from pgkeep.format.limits import (
    HEADER_LENGTH,
    MAX_INDEX_SEGMENTS,
    MAX_INDEX_TABLES,
    MAX_INDEX_TIME,
)
from pgkeep.format.record import Key32, Natural, Record, Small, decode_record, decode_rows, encode_record, encode_rows
from pgkeep.format.section import (
    Directory,
    Row,
    SectionType,
    StoredSection,
    decode_directory,
    encode_section,
    open_section,
    seal_sections,
)
from pgkeep.format.walends import Ends, decode_ends, joined
from pgkeep.values.wal import is_segment_size


class WalIndexInfo(Record, frozen=True, kw_only=True):
    """INFO of a WAL index."""

    tool: str
    """Program and version that read the WAL."""
    tail: list[Key32]
    """Content hashes of the segments behind the run into which its last record reaches."""


class IndexedSegment(Record, frozen=True, kw_only=True):
    """A row of INDEXED: the records that begin in one segment."""

    content_hash: Key32
    """As in the WAL object's header."""
    end: Natural
    """The first byte after the last record that begins in the segment or goes on through it, or the segment's end."""
    transactions: Small
    sections: Small
    """How many sections ENDS are this segment's."""
    earliest: Natural
    latest: Natural
    """Of the transactions' times, in microseconds since 1970; they do not ascend.  0 without transactions."""
    lowest: Small
    highest: Small
    """Of their xids and subtransactions' xids, as 32-bit numbers.  0 without transactions."""


class IndexedPoint(Record, frozen=True, kw_only=True):
    """A row of POINTS: a restore point."""

    lsn: Natural
    end: Natural
    time: Natural
    name: bytes


class IndexedTablespace(Record, frozen=True, kw_only=True):
    """A row of SPACES: a record that creates or drops a tablespace."""

    lsn: Natural
    end: Natural
    xid: Small
    oid: Small
    created: bool
    path: bytes


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """What goes into an index for one segment."""

    row: IndexedSegment
    ends: tuple[StoredSection, ...]
    points: tuple[IndexedPoint, ...] = ()
    tablespaces: tuple[IndexedTablespace, ...] = ()


def run_identity(
    system_id: int, timeline: int, first: int, segment_size: int, segments: Sequence[IndexedSegment]
) -> WalIdentity:
    """The specific area of the header: which run of segments this is."""
    digest = blake3(b"".join(segment.content_hash for segment in segments)).digest()
    return WalIdentity(system_id, first * segment_size, segment_size, timeline, len(segments) * segment_size, digest)


def encode_index(header: Header, info: WalIndexInfo, entries: Sequence[SegmentEntry]) -> list[bytes]:
    """The parts of the object; `header.specific` is `run_identity`."""
    if not 0 < len(entries) <= MAX_INDEX_SEGMENTS or len(info.tail) > MAX_INDEX_SEGMENTS:
        raise ValueError(f"a run of {len(entries)} segments, the limit is {MAX_INDEX_SEGMENTS}")
    head = header.encode()
    tables: list[tuple[SectionType, Sequence[Record]]] = [
        (SectionType.INDEXED, [entry.row for entry in entries]),
        (SectionType.POINTS, [point for entry in entries for point in entry.points]),
        (SectionType.SPACES, [space for entry in entries for space in entry.tablespaces]),
    ]
    sections = [encode_section(SectionType.INFO, encode_record(info))]
    sections += [encode_section(type_, content) for type_, rows in tables for content in encode_rows(rows)]
    return [head, *seal_sections(head, [*sections, *(section for entry in entries for section in entry.ends)])]


Fetch = Callable[[int, int], bytes | memoryview]
"""(first byte in the object, length) -> those bytes, or fewer where the object ends."""


@dataclass(frozen=True, slots=True)
class WalIndex:
    """An index whose small sections were read and verified; transactions are fetched by `ends`."""

    obj: str
    identity: WalIdentity
    info: WalIndexInfo
    segments: tuple[IndexedSegment, ...]
    points: tuple[IndexedPoint, ...]
    tablespaces: tuple[IndexedTablespace, ...]
    rows: tuple[Row, ...]
    """Of the sections ENDS."""

    @property
    def first(self) -> int:
        """Number of the run's first segment."""
        return self.identity.page_address // self.identity.segment_size

    def ends(self, index: int, fetch: Fetch) -> Ends | None:
        """The transactions of segment `index` of the run; None when it has none.  Damaged."""
        begin = sum(segment.sections for segment in self.segments[:index])
        segment, size = self.segments[index], self.identity.segment_size
        start = self.identity.page_address + index * size
        parts = [
            decode_ends(
                open_section(row, fetch(HEADER_LENGTH + row.offset, row.stored_length), self.obj), start, size, self.obj
            )
            for row in self.rows[begin : begin + segment.sections]
        ]
        if sum(map(len, parts)) != segment.transactions:
            raise Damaged(self.obj, f"does not hold the {segment.transactions} transactions of its segment {index}")
        return joined(parts) if parts else None


def decode_index(header: Header, block: bytes | memoryview, fetch: Fetch, obj: str) -> WalIndex:
    """`header` has been checked; `block` begins behind it and holds the whole directory at least.

    Damaged, format-unsupported.
    """
    identity = WalIdentity.decode(header.specific)
    directory = decode_directory(block, header.encode(), obj)
    large = [
        row.number for row in directory.rows if row.raw_length > MAX_INDEX_TABLES and row.number != SectionType.ENDS
    ]
    if large:
        raise Damaged(obj, f"holds sections {large} over the {MAX_INDEX_TABLES} bytes that they may have")

    def content(type_: SectionType) -> Iterator[bytes]:
        for row in directory.of(type_):
            yield open_section(row, fetch(HEADER_LENGTH + row.offset, row.stored_length), obj)

    directory.one(SectionType.INFO, obj)
    index = WalIndex(
        obj,
        identity,
        decode_record(next(content(SectionType.INFO)), WalIndexInfo, obj),
        tuple(row for part in content(SectionType.INDEXED) for row in decode_rows(part, IndexedSegment, obj)),
        tuple(row for part in content(SectionType.POINTS) for row in decode_rows(part, IndexedPoint, obj)),
        tuple(row for part in content(SectionType.SPACES) for row in decode_rows(part, IndexedTablespace, obj)),
        tuple(directory.of(SectionType.ENDS)),
    )
    _check(index, directory)
    return index


def _check(index: WalIndex, directory: Directory) -> None:
    identity, segments = index.identity, index.segments
    if not is_segment_size(identity.segment_size) or identity.page_address % identity.segment_size:
        raise Damaged(index.obj, "holds an impossible run of segments")
    if not 0 < len(segments) <= MAX_INDEX_SEGMENTS or len(index.info.tail) > MAX_INDEX_SEGMENTS:
        raise Damaged(index.obj, f"holds {len(segments)} segments, the limit is {MAX_INDEX_SEGMENTS}")
    own = run_identity(identity.system_id, identity.timeline, index.first, identity.segment_size, segments)
    if own != identity:
        raise Damaged(index.obj, "holds other segments than its header says")
    if sum(segment.sections for segment in segments) != len(directory.of(SectionType.ENDS)):
        raise Damaged(index.obj, "does not say whose its sections ENDS are")
    for number, segment in enumerate(segments, index.first):
        _check_segment(index, number, segment)
    where = range(identity.page_address, identity.page_address + identity.length)
    places: list[IndexedPoint | IndexedTablespace] = [*index.points, *index.tablespaces]
    for place in places:
        if place.lsn not in where or place.end <= place.lsn:
            raise Damaged(index.obj, f"holds a record at {place.lsn:#x}, outside of its segments")
    if any(point.time > MAX_INDEX_TIME for point in index.points):
        raise Damaged(index.obj, "holds a restore point of an impossible time")


def _check_segment(index: WalIndex, number: int, segment: IndexedSegment) -> None:
    size = index.identity.segment_size
    last = (index.first + len(index.segments) + len(index.info.tail)) * size
    if (
        not number * size < segment.end <= last
        or segment.earliest > segment.latest
        or segment.latest > MAX_INDEX_TIME
        or segment.lowest > segment.highest
        or (segment.transactions == 0) != (segment.sections == 0)
    ):
        raise Damaged(index.obj, f"says impossible things of its segment {number - index.first}")
