"""Sections: everything in an object that is not a header, frame or tail (docs/format/sections.md).

A block of sections is a directory (one row a section: type, lengths, hash) followed by the contents in the same order.
The directory has a digest of its own, which binds the object's header, so any section can be fetched by a range
read and verified without the others.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from blake3 import blake3

from pgkeep.errors import Damaged, Fault
from pgkeep.format.codec import compress, decompress
from pgkeep.format.header import SIGNATURE_AT, SIGNATURE_LENGTH
from pgkeep.format.limits import (
    DIRECTORY_HEAD_LENGTH,
    DIRECTORY_ROW_LENGTH,
    HEADER_LENGTH,
    MAX_MANIFEST,
    MAX_SECTION,
    MAX_SECTIONS,
)

CRITICAL: Final = 0x8000
_MAGIC: Final = b"PGKSECT\n"
_HEAD: Final = struct.Struct("<8sIIQQ32s32s")
_ROW: Final = struct.Struct("<HBBIQQQ32s")
_DIGEST_LENGTH: Final = 32
assert _HEAD.size == DIRECTORY_HEAD_LENGTH
assert _ROW.size == DIRECTORY_ROW_LENGTH


class SectionType(IntEnum):
    """Permanent numbers.  The critical bit is part of how a section is written, not of its number."""

    INFO = 1
    SEEN = 2
    PACKS = 3
    LIVE = 4
    SERVER = 16
    BACKUP_LABEL = 17
    TABLESPACE_MAP = 18
    WAL_RANGES = 19
    PATHS = 20
    BAD_PAGES = 21
    RELATIONS = 22
    COLLATIONS = 23
    ATTACHMENTS = 24
    TABLESPACES = 25
    DATABASES = 26
    DUMPED = 28
    MEMBERS = 29
    FRAMES = 32
    PAGE_LSNS = 33
    PAGE_HASHES = 34
    ORIGINS = 35
    CLEAR_KEYS = 48
    MOVED = 64
    CARRIERS = 65
    CONDEMNED_PACKS = 66
    INDEXED = 73
    POINTS = 74
    SPACES = 75
    ENDS = 76


REPEATABLE: Final = frozenset({
    SectionType.SEEN, SectionType.PACKS, SectionType.LIVE, SectionType.PATHS, SectionType.BAD_PAGES,
    SectionType.RELATIONS, SectionType.COLLATIONS, SectionType.ATTACHMENTS, SectionType.TABLESPACES,
    SectionType.DATABASES, SectionType.MEMBERS, SectionType.POINTS, SectionType.SPACES, SectionType.ENDS,
})  # fmt: skip
"""Tables that continue in the next section of their type; any other type occurs once."""


@dataclass(frozen=True, slots=True)
class Section:
    """A decoded section: its type and its plain content."""

    type: SectionType
    content: bytes


@dataclass(frozen=True, slots=True)
class StoredSection:
    """A section as it lies in the store: its row in the directory, and its stored bytes."""

    row: bytes
    stored: bytes

    def __len__(self) -> int:
        return len(self.row) + len(self.stored)


def encode_section(
    type_: SectionType, content: bytes, *, critical: bool = True, level: int = 3, packed: bool = True
) -> StoredSection:
    """Compress (unless `packed` is False: hashes do not) and describe one section."""
    if len(content) > MAX_SECTION:
        raise ValueError(f"section {type_.name} has {len(content)} bytes, the limit is {MAX_SECTION}")
    codec, stored = compress(content, level) if packed else (0, content)
    number = type_ | CRITICAL if critical else type_
    row = _ROW.pack(number, codec, 0, 0, len(stored), len(content), 0, blake3(stored).digest())
    return StoredSection(row, stored)


def seal_sections(object_header: bytes, sections: Sequence[StoredSection]) -> list[bytes]:
    """The bytes of a block: the directory, then the contents."""
    rows = b"".join(section.row for section in sections)
    length = DIRECTORY_HEAD_LENGTH + len(rows) + sum(len(section.stored) for section in sections)
    if len(sections) > MAX_SECTIONS or length > MAX_MANIFEST:
        raise ValueError(f"{len(sections)} sections of {length} bytes, the limits are {MAX_SECTIONS}, {MAX_MANIFEST}")
    fixed = _HEAD.pack(_MAGIC, len(sections), 0, length, 0, _header_hash(object_header), bytes(32))[:-_DIGEST_LENGTH]
    return [fixed + _digest(fixed, rows) + rows, *(section.stored for section in sections)]


def _header_hash(header: bytes) -> bytes:
    # The signature signs this block's digest, and the header's checksum covers the signature.
    after = SIGNATURE_AT + SIGNATURE_LENGTH
    return blake3(header[:SIGNATURE_AT] + bytes(SIGNATURE_LENGTH) + header[after : HEADER_LENGTH - 32]).digest()


def _digest(fixed: bytes, rows: bytes) -> bytes:
    return blake3(fixed + rows).digest()


@dataclass(frozen=True, slots=True)
class Row:
    """A section in a directory.  `offset` is its first byte counted from the block's beginning."""

    number: int
    critical: bool
    codec: int
    protection: int
    offset: int
    stored_length: int
    raw_length: int
    hash: bytes

    @property
    def end(self) -> int:
        return self.offset + self.stored_length


@dataclass(frozen=True, slots=True)
class Directory:
    """The verified directory of a block of `length` bytes; `digest` names the block's whole content."""

    rows: tuple[Row, ...]
    length: int
    digest: bytes

    def of(self, type_: SectionType) -> list[Row]:
        """The rows of one type, in order."""
        return [row for row in self.rows if row.number == type_]

    def one(self, type_: SectionType, obj: str) -> Row:
        """The row of a section that must be there; Damaged."""
        found = self.of(type_)
        if not found:
            raise Damaged(obj, f"lacks its {type_.name} section")
        return found[0]


def directory_length(block: bytes | memoryview, obj: str) -> int:
    """Bytes of the directory at the start of `block`, of which DIRECTORY_HEAD_LENGTH bytes suffice."""
    return DIRECTORY_HEAD_LENGTH + DIRECTORY_ROW_LENGTH * _head(block, obj)[0]


def _head(block: bytes | memoryview, obj: str) -> tuple[int, int, bytes, bytes]:
    if len(block) < DIRECTORY_HEAD_LENGTH:
        raise Damaged(obj, f"cut off in the directory of its sections ({len(block)} bytes are left)")
    magic, count, reserved, length, reserved2, header_hash, digest = _HEAD.unpack_from(block)
    if magic != _MAGIC or count > MAX_SECTIONS or length > MAX_MANIFEST or reserved or reserved2:
        raise Damaged(obj, "the directory of its sections is damaged")
    return count, length, header_hash, digest


def decode_directory(block: bytes | memoryview, object_header: bytes | None, obj: str) -> Directory:
    """Read and verify the directory at the start of `block`; what follows it is not looked at.

    Without `object_header` the caller must know the right digest from elsewhere.  Damaged; format-unsupported for an
    unknown critical section.
    """
    count, length, header_hash, digest = _head(block, obj)
    end = DIRECTORY_HEAD_LENGTH + count * DIRECTORY_ROW_LENGTH
    if len(block) < end:
        raise Damaged(obj, f"cut off in the directory of its {count} sections")
    rows = bytes(block[DIRECTORY_HEAD_LENGTH:end])
    if _digest(bytes(block[: DIRECTORY_HEAD_LENGTH - _DIGEST_LENGTH]), rows) != digest:
        raise Damaged(obj, "the directory of its sections is damaged (its hash is wrong)")
    if object_header is not None and _header_hash(object_header) != header_hash:
        raise Damaged(obj, "its sections belong to another header")
    directory = Directory(tuple(_rows(rows, end, obj)), length, digest)
    _check_rows(directory, end, obj)
    return directory


def _rows(rows: bytes, offset: int, obj: str) -> Iterator[Row]:
    for number, codec, protection, reserved, stored, raw, reserved2, digest in _ROW.iter_unpack(rows):
        row = Row(number & ~CRITICAL, bool(number & CRITICAL), codec, protection, offset, stored, raw, digest)
        if stored > MAX_SECTION or raw > MAX_SECTION or reserved or reserved2:
            raise Damaged(obj, f"its section {row.number} has impossible lengths")
        yield row
        offset += stored


def _check_rows(directory: Directory, end: int, obj: str) -> None:
    if directory.length != (directory.rows[-1].end if directory.rows else end):
        raise Damaged(obj, f"its sections do not add up to the {directory.length} bytes of its directory")
    for number, times in Counter(row.number for row in directory.rows).items():
        if times > 1 and number in _KNOWN and number not in REPEATABLE:
            raise Damaged(obj, f"holds {times} sections {SectionType(number).name}, expected one")
    for row in directory.rows:
        if row.critical and row.number not in _KNOWN:
            raise Fault(
                "format-unsupported",
                f"{obj}: holds a section of type {row.number} that must be understood to read it",
                hint="use a newer pgkeep",
                object=obj,
            )


_KNOWN: Final = frozenset(int(type_) for type_ in SectionType)


def reopen_section(section: StoredSection, obj: str) -> bytes:
    """The plain content of a section that has not been sealed into an object yet; Damaged."""
    (row,) = _rows(section.row, 0, obj)
    return open_section(row, section.stored, obj)


def check_section(row: Row, stored: bytes | memoryview, obj: str) -> str:
    """The section's name for messages, when its stored bytes are what the directory says; Damaged."""
    name = f"{obj} (section {SectionType(row.number).name if row.number in _KNOWN else row.number})"
    if len(stored) != row.stored_length:
        raise Damaged(name, f"cut off after {len(stored)} of {row.stored_length} bytes")
    if blake3(stored).digest() != row.hash:
        raise Damaged(name, "damaged (its hash is wrong)")
    return name


def open_section(row: Row, stored: bytes | memoryview, obj: str) -> bytes:
    """The plain content of a section from its stored bytes, verified; Damaged, format-unsupported."""
    name = check_section(row, stored, obj)
    if row.protection:
        raise Fault("format-unsupported", f"{name}: sealed, which this pgkeep cannot open", object=obj)
    return decompress(row.codec, stored, row.raw_length, name)


def read_sections(
    body: bytes | memoryview, object_header: bytes, obj: str, wanted: Iterable[SectionType] | None = None
) -> Iterator[Section]:
    """Every known section of a whole block, in order, verified; `wanted` spares the others' decompression."""
    keep = _KNOWN if wanted is None else frozenset(int(type_) for type_ in wanted)
    view = memoryview(body)
    directory = decode_directory(view, object_header, obj)
    if len(view) != directory.length:
        raise Damaged(obj, f"holds {len(view)} bytes of sections, expected {directory.length}")
    for row in directory.rows:
        stored = view[row.offset : row.end]
        if row.number in keep and row.number in _KNOWN:
            yield Section(SectionType(row.number), open_section(row, stored, obj))
        else:
            check_section(row, stored, obj)
