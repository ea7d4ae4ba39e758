"""Root manifests as bytes (docs/format/manifest.md).

Encoding takes paths and relations as streams and decoding gives them as streams, a section at a time, so that a
million files need no million objects.  A reader fetches single sections, so `list` reads no paths.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from pgkeep.errors import Damaged, Fault
from pgkeep.format.header import Header
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import (
    HEADER_LENGTH,
    MAX_FRAMES,
    MAX_PACK_TABLES,
    MAX_PACKS,
    MAX_TABLE_ROWS,
    MAX_TABLES,
    MAX_WAL_SEGMENTS,
    PACKS_PER_CHUNK,
    PATHS_PER_CHUNK,
)
from pgkeep.format.limits import ROWS_PER_CHUNK as ROWS
from pgkeep.format.manifest import (
    Attachment,
    BadPages,
    Collation,
    Database,
    Entry,
    EntryType,
    Inner,
    ManifestInfo,
    Outer,
    PackRef,
    Place,
    Relation,
    SeenManifest,
    ServerInfo,
    Tablespace,
    Unit,
    WalNeeds,
)
from pgkeep.format.packtable import GONE, KNOWN_FLAGS, Rows, pack_rows
from pgkeep.format.record import Record, decode_record, decode_rows, encode_record, encode_rows
from pgkeep.format.section import (
    Directory,
    Row,
    SectionType,
    StoredSection,
    check_section,
    decode_directory,
    encode_section,
    open_section,
    seal_sections,
)
from pgkeep.format.tail import FooterPlace
from pgkeep.values.ids import BackupId, ClusterUuid, ObjectId
from pgkeep.values.wal import is_segment_size

_PACK_ROW: Final = struct.Struct("<16sQQ32sIIIII")
_COUNT: Final = struct.Struct("<I")
_BLOCK_SIZES: Final = frozenset(1024 << shift for shift in range(6))
_TABLES: Final = frozenset({
    SectionType.SEEN, SectionType.BAD_PAGES, SectionType.TABLESPACES, SectionType.DATABASES, SectionType.COLLATIONS,
    SectionType.ATTACHMENTS,
})  # fmt: skip
"""Tables that a reader holds in memory."""
R = TypeVar("R", bound=Record)


def encode_manifest(header: Header, outer: Outer, inner: Inner, entries: Iterable[Entry]) -> list[bytes]:
    """The parts of the manifest object.  `entries` ascend by path.

    ValueError or Damaged for what no reader would accept.
    """
    head = header.encode()
    sections = [
        _record_section(SectionType.INFO, outer.info),
        *_row_sections(SectionType.SEEN, outer.seen, ROWS, critical=False),
        *_pack_sections(outer.packs),
        *_inner_sections(inner, _sound(entries, len(outer.packs), inner.server.block_size)),
    ]
    parts = [head, *seal_sections(head, sections)]
    # A manifest that its readers refuse must fail here.
    _check_sizes(decode_directory(parts[1], head, header.object.hex()), header.object.hex())
    return parts


def _check_sizes(directory: Directory, obj: str) -> None:
    """Damaged when the tables of a manifest would not fit into a reader's memory."""
    tables = sum(row.raw_length for row in directory.rows if row.number in _TABLES)
    packs = sum(row.raw_length for row in directory.rows if row.number in (SectionType.PACKS, SectionType.LIVE))
    if tables > MAX_TABLES or packs > MAX_PACK_TABLES:
        raise Damaged(
            obj, f"holds tables of {tables} and {packs} bytes, the limits are {MAX_TABLES}, {MAX_PACK_TABLES}"
        )


def _sound(entries: Iterable[Entry], packs: int, block_size: int) -> Iterator[Entry]:
    # A backup that cannot be read is worse than one that fails.
    previous = b""
    for entry in entries:
        if problem := entry_problem(entry, previous, packs, block_size):
            raise ValueError(problem)
        previous = entry.path
        yield entry


def _row_sections(
    type_: SectionType, rows: Iterable[Record], size: int, *, critical: bool = True
) -> Iterator[StoredSection]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        for content in encode_rows(chunk):
            decode_rows(content, type(chunk[0]), type_.name)
            yield encode_section(type_, content, critical=critical)


def _record_section(type_: SectionType, record: Record) -> StoredSection:
    content = encode_record(record)
    decode_record(content, type(record), type_.name)
    return encode_section(type_, content)


def _pack_sections(packs: Sequence[PackRef]) -> Iterator[StoredSection]:
    """PACKS and LIVE, in turns."""
    for at in range(0, len(packs), PACKS_PER_CHUNK):
        chunk = packs[at : at + PACKS_PER_CHUNK]
        yield encode_section(SectionType.PACKS, encode_packs(chunk))
        yield encode_section(SectionType.LIVE, b"".join(pack.live for pack in chunk))


def encode_packs(packs: Sequence[PackRef]) -> bytes:
    """The content of a section PACKS."""
    return _COUNT.pack(len(packs)) + b"".join(_encode_pack(pack) for pack in packs)


def _encode_pack(pack: PackRef) -> bytes:
    f = pack.footer
    return _PACK_ROW.pack(
        pack.id, f.object_length, f.offset, f.digest, f.length, f.lsns_end, f.frames_end, pack.frames,
        GONE if pack.gone else 0,
    )  # fmt: skip


def _inner_sections(inner: Inner, entries: Iterable[Entry]) -> Iterator[StoredSection]:
    S = SectionType  # noqa: N806
    yield _record_section(S.SERVER, inner.server)
    yield encode_section(S.BACKUP_LABEL, inner.backup_label)
    yield encode_section(S.TABLESPACE_MAP, inner.tablespace_map)
    yield _record_section(S.WAL_RANGES, inner.wal)
    yield from _row_sections(S.BAD_PAGES, inner.bad_pages, ROWS)
    yield from _row_sections(S.TABLESPACES, inner.tablespaces, ROWS)
    yield from _row_sections(S.DATABASES, inner.databases, ROWS)
    yield from _row_sections(S.COLLATIONS, inner.collations, ROWS, critical=False)
    yield from _row_sections(S.ATTACHMENTS, inner.attachments, ROWS, critical=False)
    yield from _row_sections(S.RELATIONS, inner.relations, ROWS, critical=False)
    yield from _row_sections(S.PATHS, entries, PATHS_PER_CHUNK)


Fetch = Callable[[int, int], bytes | memoryview]
"""(first byte in the object, length) -> those bytes, or fewer where the object ends."""


@dataclass(frozen=True, slots=True)
class ManifestReader:
    """A manifest whose sections are fetched as they are needed; every method raises Damaged and format-unsupported."""

    obj: str
    directory: Directory
    fetch: Fetch

    @classmethod
    def open(cls, header: bytes, block: bytes | memoryview, fetch: Fetch, obj: str) -> ManifestReader:
        """`header` has been checked; `block` begins behind it and holds the whole directory at least."""
        directory = decode_directory(block, header, obj)
        _check_sizes(directory, obj)
        return cls(obj, directory, fetch)

    def _content(self, row: Row) -> bytes:
        return open_section(row, self.fetch(HEADER_LENGTH + row.offset, row.stored_length), self.obj)

    def _one(self, type_: SectionType) -> bytes:
        return self._content(self.directory.one(type_, self.obj))

    def check_sections(self) -> None:
        """Every section's hash, also of those that nobody asks for; and nothing may follow the last one."""
        for row in self.directory.rows:
            check_section(row, self.fetch(HEADER_LENGTH + row.offset, row.stored_length), self.obj)
        if len(self.fetch(HEADER_LENGTH + self.directory.length, 1)):
            raise Damaged(self.obj, "goes on behind its last section")

    def rows(self, type_: SectionType, row: type[R]) -> Iterator[R]:
        """The records of a table, in order."""
        for place in self.directory.of(type_):
            yield from decode_rows(self._content(place), row, self.obj)

    def _table(self, type_: SectionType, row: type[R]) -> list[R]:
        table = list(islice(self.rows(type_, row), MAX_TABLE_ROWS + 1))
        if len(table) > MAX_TABLE_ROWS:
            raise Damaged(self.obj, f"holds more than {MAX_TABLE_ROWS} rows of {type_.name}")
        return table

    def info(self) -> ManifestInfo:
        info = decode_record(self._one(SectionType.INFO), ManifestInfo, self.obj)
        try:
            BackupId(info.backup)
            ClusterUuid(info.cluster)
        except ValueError as error:
            raise Damaged(self.obj, f"holds an impossible INFO ({error})") from None
        if not is_segment_size(info.wal_segment_size) or info.start_lsn > info.stop_lsn:
            raise Damaged(self.obj, "holds an impossible INFO (WAL segment size or LSNs)")
        return info

    def packs(self) -> Iterator[PackRef]:
        tables, live = self.directory.of(SectionType.PACKS), self.directory.of(SectionType.LIVE)
        if len(tables) != len(live):
            raise Damaged(self.obj, f"holds {len(tables)} pack tables and {len(live)} bitmaps of live frames")
        for table, bitmap in zip(tables, live, strict=True):
            yield from decode_packs(self._content(table), self._content(bitmap), self.obj)

    def pack_columns(self) -> Iterator[tuple[Rows, bytes]]:
        """As `packs`, a section at a time, as columns (`packtable.PACK_ROW`) and their bitmaps, back to back."""
        tables, live = self.directory.of(SectionType.PACKS), self.directory.of(SectionType.LIVE)
        if len(tables) != len(live):
            raise Damaged(self.obj, f"holds {len(tables)} pack tables and {len(live)} bitmaps of live frames")
        for table, bitmap in zip(tables, live, strict=True):
            bits = self._content(bitmap)
            yield pack_rows(self._content(table), bits, self.obj), bits

    def outer(self) -> Outer:
        packs = list(islice(self.packs(), MAX_PACKS + 1))
        if len(packs) > MAX_PACKS:
            raise Damaged(self.obj, f"uses more than {MAX_PACKS} packs")
        return Outer(self.info(), self._table(SectionType.SEEN, SeenManifest), packs)

    def inner(self) -> Inner:
        """The inner part but for the paths; its relations are read when they are iterated."""
        S = SectionType  # noqa: N806
        return Inner(
            server=self._server(),
            backup_label=self._one(S.BACKUP_LABEL),
            tablespace_map=self._one(S.TABLESPACE_MAP),
            wal=self._wal(),
            bad_pages=self._table(S.BAD_PAGES, BadPages),
            relations=_Stream(self, S.RELATIONS, Relation),
            collations=self._table(S.COLLATIONS, Collation),
            attachments=self._table(S.ATTACHMENTS, Attachment),
            tablespaces=self._table(S.TABLESPACES, Tablespace),
            databases=self._table(S.DATABASES, Database),
        )

    def _server(self) -> ServerInfo:
        server = decode_record(self._one(SectionType.SERVER), ServerInfo, self.obj)
        if server.block_size not in _BLOCK_SIZES or not server.relation_segment_blocks:
            raise Damaged(self.obj, f"holds an impossible block size {server.block_size} or segment size")
        return server

    def _wal(self) -> WalNeeds:
        needs = decode_record(self._one(SectionType.WAL_RANGES), WalNeeds, self.obj)
        for wanted in needs.ranges:
            if not 0 <= wanted.last - wanted.first < MAX_WAL_SEGMENTS:
                raise Damaged(self.obj, f"needs impossible WAL segments {wanted.first} to {wanted.last}")
        return needs

    def entries(self) -> Iterator[Entry]:
        """Every entry, ascending; Damaged for a path that leaves the target, disorder or an impossible place."""
        count = sum(1 for _ in self.packs())
        block_size = self._server().block_size
        previous = b""
        for entry in self.rows(SectionType.PATHS, Entry):
            if problem := entry_problem(entry, previous, count, block_size):
                raise Damaged(self.obj, problem)
            previous = entry.path
            yield entry


@dataclass(frozen=True, slots=True)
class _Stream(Generic[R]):
    """Rows that are read anew by each iteration."""

    reader: ManifestReader
    table: SectionType
    row: type[R]

    def __iter__(self) -> Iterator[R]:
        return self.reader.rows(self.table, self.row)


def whole_manifest(data: bytes, obj: str) -> ManifestReader:
    """A reader of a manifest in memory, whose header has been checked."""
    view = memoryview(data)
    return ManifestReader.open(data[:HEADER_LENGTH], view[HEADER_LENGTH:], lambda at, n: view[at : at + n], obj)


def decode_packs(content: bytes, live: bytes, obj: str) -> Iterator[PackRef]:
    """The rows of a section PACKS and their bitmaps; Damaged, format-unsupported."""
    n = _COUNT.unpack_from(content)[0] if len(content) >= _COUNT.size else -1
    if n < 0 or len(content) != _COUNT.size + n * _PACK_ROW.size:
        raise Damaged(obj, f"pack table of {len(content)} bytes cannot hold its {n} rows")
    at = 0
    for row in _PACK_ROW.iter_unpack(memoryview(content)[_COUNT.size :]):
        pack_id, total, offset, digest, length, lsns_end, frames_end, frames, flags = row
        if flags & ~KNOWN_FLAGS:
            raise Fault("format-unsupported", f"{obj}: pack with unknown flags", hint="use a newer pgkeep", object=obj)
        place = FooterPlace(total, offset, length, lsns_end, frames_end, digest)
        end = at + (frames + 7) // 8
        if frames > MAX_FRAMES or not place.is_possible() or end > len(live):
            raise Damaged(obj, f"the row of pack {pack_id.hex()} in its pack table is impossible")
        yield PackRef(ObjectId(pack_id), place, frames, live[at:end], bool(flags & GONE))
        at = end
    if at != len(live):
        raise Damaged(obj, "bitmap of live frames does not fit the pack table")


def entry_problem(entry: Entry, previous: bytes, packs: int, block_size: int) -> str:
    """What makes an entry impossible ('' if nothing does); `previous` is the path before it."""
    shown = entry.path.decode("utf-8", "backslashreplace")
    parts = entry.path.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts or b"\0" in entry.path:
        return f"holds the path {shown!r}, which would leave the target directory"
    if entry.path <= previous:
        return f"holds the path {shown!r} out of order"
    if entry.place is not Place.NONE and not 0 <= entry.pack < packs:
        return f"places {shown!r} in a pack that is not in its table"
    if entry.place is Place.MAP and (len(entry.hash) != HASH_LENGTH or not entry.length):
        return f"names no extent map for {shown!r}"
    if (entry.place is Place.NONE) != (entry.size == 0 or entry.type is not EntryType.FILE):
        return f"does not say where the content of {shown!r} lies"
    if entry.unit is Unit.PAGES and entry.size % block_size:
        return f"holds {shown!r} of {entry.size} bytes, which is no whole number of pages"
    return ""
