"""What the manifests of backups and dumps have in common: they are roots (docs/format/manifest.md, dumps.md).

A root names the packs that it needs, in the same sections: whoever sweeps or lists needs to know no more of it.
Sections are read one by one; rows are streams.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Self, TypeVar

from pgkeep.errors import Damaged, Fault
from pgkeep.format.limits import (
    HEADER_LENGTH,
    MAX_FRAMES,
    MAX_PACK_TABLES,
    MAX_PACKS,
    MAX_TABLE_ROWS,
    MAX_TABLES,
    PACKS_PER_CHUNK,
)
from pgkeep.format.manifest import PackRef
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
)
from pgkeep.format.tail import FooterPlace
from pgkeep.values.ids import ObjectId

PACK_ROW: Final = struct.Struct("<16sQQ32sIIIII")
_COUNT: Final = struct.Struct("<I")
_TABLES: Final = frozenset({
    SectionType.SEEN, SectionType.BAD_PAGES, SectionType.TABLESPACES, SectionType.DATABASES, SectionType.COLLATIONS,
    SectionType.ATTACHMENTS,
})  # fmt: skip
"""Tables that a reader holds in memory."""
R = TypeVar("R", bound=Record)


def check_sizes(directory: Directory, obj: str) -> None:
    """Damaged when the tables of a manifest would not fit into a reader's memory."""
    tables = sum(row.raw_length for row in directory.rows if row.number in _TABLES)
    packs = sum(row.raw_length for row in directory.rows if row.number in (SectionType.PACKS, SectionType.LIVE))
    if tables > MAX_TABLES or packs > MAX_PACK_TABLES:
        raise Damaged(
            obj, f"holds tables of {tables} and {packs} bytes, the limits are {MAX_TABLES}, {MAX_PACK_TABLES}"
        )


def row_sections(
    type_: SectionType, rows: Iterable[Record], size: int, *, critical: bool = True
) -> Iterator[StoredSection]:
    """The sections of a table, `size` rows each; Damaged for a row that no reader would accept."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        for content in encode_rows(chunk):
            decode_rows(content, type(chunk[0]), type_.name)
            yield encode_section(type_, content, critical=critical)


def record_section(type_: SectionType, record: Record) -> StoredSection:
    """Damaged for a record that no reader would accept."""
    content = encode_record(record)
    decode_record(content, type(record), type_.name)
    return encode_section(type_, content)


def pack_sections(packs: Sequence[PackRef]) -> Iterator[StoredSection]:
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
    return PACK_ROW.pack(
        pack.id, f.object_length, f.offset, f.digest, f.length, f.lsns_end, f.frames_end, pack.frames,
        GONE if pack.gone else 0,
    )  # fmt: skip


Fetch = Callable[[int, int], bytes | memoryview]
"""(first byte in the object, length) -> those bytes, or fewer where the object ends."""


@dataclass(frozen=True, slots=True)
class RootReader:
    """A root whose sections are fetched as they are needed; every method raises Damaged and format-unsupported."""

    obj: str
    directory: Directory
    fetch: Fetch

    @classmethod
    def open(cls, header: bytes, block: bytes | memoryview, fetch: Fetch, obj: str) -> Self:
        """`header` has been checked; `block` begins behind it and holds the whole directory at least."""
        directory = decode_directory(block, header, obj)
        check_sizes(directory, obj)
        return cls(obj, directory, fetch)

    def _content(self, row: Row) -> bytes:
        return open_section(row, self.fetch(HEADER_LENGTH + row.offset, row.stored_length), self.obj)

    def one(self, type_: SectionType) -> bytes:
        """The content of a section that must be there."""
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

    def table(self, type_: SectionType, row: type[R]) -> list[R]:
        """All rows of a table that is held in memory."""
        table = list(islice(self.rows(type_, row), MAX_TABLE_ROWS + 1))
        if len(table) > MAX_TABLE_ROWS:
            raise Damaged(self.obj, f"holds more than {MAX_TABLE_ROWS} rows of {type_.name}")
        return table

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

    def all_packs(self) -> list[PackRef]:
        """The whole pack table."""
        packs = list(islice(self.packs(), MAX_PACKS + 1))
        if len(packs) > MAX_PACKS:
            raise Damaged(self.obj, f"uses more than {MAX_PACKS} packs")
        return packs


@dataclass(frozen=True, slots=True)
class Stream(Generic[R]):
    """Rows that are read anew by each iteration."""

    reader: RootReader
    table: SectionType
    row: type[R]

    def __iter__(self) -> Iterator[R]:
        return self.reader.rows(self.table, self.row)


def decode_packs(content: bytes, live: bytes, obj: str) -> Iterator[PackRef]:
    """The rows of a section PACKS and their bitmaps; Damaged, format-unsupported."""
    n = _COUNT.unpack_from(content)[0] if len(content) >= _COUNT.size else -1
    if n < 0 or len(content) != _COUNT.size + n * PACK_ROW.size:
        raise Damaged(obj, f"pack table of {len(content)} bytes cannot hold its {n} rows")
    at = 0
    for row in PACK_ROW.iter_unpack(memoryview(content)[_COUNT.size :]):
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
