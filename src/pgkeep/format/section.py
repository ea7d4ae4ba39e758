"""Sections: the type-length-value form of everything that is not a frame (docs/format/sections.md)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from blake3 import blake3

from pgkeep.errors import Damaged, Fault
from pgkeep.format.codec import compress, decompress
from pgkeep.format.keyed import stored_hash
from pgkeep.format.limits import HEADER_LENGTH, MAX_SECTION, MAX_SECTIONS, SECTION_HEADER_LENGTH

CRITICAL: Final = 0x8000
_LAYOUT: Final = struct.Struct("<HBBIQQQ16s")
assert _LAYOUT.size == SECTION_HEADER_LENGTH


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
    FRAMES = 32
    PAGE_LSNS = 33
    PAGE_HASHES = 34
    CLEAR_KEYS = 48
    CONTENT = 49
    END = 0x7FFF


@dataclass(frozen=True, slots=True)
class Section:
    """A decoded section: its type and its plain content."""

    type: SectionType
    content: bytes


@dataclass(frozen=True, slots=True)
class StoredSection:
    """A section as it lies in the store; `critical` says that a reader who does not know it must refuse."""

    header: bytes
    stored: bytes

    def __len__(self) -> int:
        return len(self.header) + len(self.stored)


def encode_section(
    type_: SectionType, content: bytes, *, critical: bool = True, level: int = 3, packed: bool = True
) -> StoredSection:
    """Compress (unless `packed` is False: hashes do not) and describe one section."""
    if len(content) > MAX_SECTION:
        raise ValueError(f"section {type_.name} has {len(content)} bytes, the limit is {MAX_SECTION}")
    codec, stored = compress(content, level) if packed else (0, content)
    number = type_ | CRITICAL if critical else type_
    header = _LAYOUT.pack(number, codec, 0, 0, len(stored), len(content), 0, stored_hash(stored))
    return StoredSection(header, stored)


def seal_sections(object_header: bytes, sections: Sequence[StoredSection]) -> list[bytes]:
    """The bytes of the sections in order, closed by END, whose content binds the header and all section headers."""
    digest = _binding(object_header)
    parts: list[bytes] = []
    for section in sections:
        digest.update(section.header)
        parts += [section.header, section.stored]
    end = encode_section(SectionType.END, digest.digest(), packed=False)
    return [*parts, end.header, end.stored]


def _binding(object_header: bytes) -> blake3:
    # The signature slot and the header's checksum are filled after the body is known.
    return blake3(object_header[:192] + bytes(64) + object_header[256 : HEADER_LENGTH - 32])


def read_sections(
    body: memoryview, object_header: bytes, obj: str, wanted: Iterable[SectionType] | None = None
) -> Iterator[Section]:
    """Every known section of `body`, in order; hashes and END are verified.  `wanted` spares decompression."""
    keep = None if wanted is None else frozenset(wanted)
    digest = _binding(object_header)
    at = 0
    for _ in range(MAX_SECTIONS):
        number, codec, stored, raw_length, header = _next(body, at, obj)
        at += SECTION_HEADER_LENGTH + len(stored)
        known = _known(number, obj)
        if known is SectionType.END:
            if decompress(codec, stored, raw_length, obj) != digest.digest():
                raise Damaged(obj, "sections were lost, added or exchanged (the closing hash is wrong)")
            if at != len(body):
                raise Damaged(obj, f"{len(body) - at} unexpected bytes after the last section")
            return
        digest.update(header)
        if known is not None and (keep is None or known in keep):
            yield Section(known, decompress(codec, stored, raw_length, f"{obj} ({known.name})"))
    raise Damaged(obj, f"more than {MAX_SECTIONS} sections")


def _next(body: memoryview, at: int, obj: str) -> tuple[int, int, memoryview, int, bytes]:
    header = bytes(body[at : at + SECTION_HEADER_LENGTH])
    if len(header) < SECTION_HEADER_LENGTH:
        raise Damaged(obj, f"cut off at byte {at} of its body (a section header is missing)")
    number, codec, protection, reserved, length, raw_length, reserved2, digest = _LAYOUT.unpack(header)
    if length > MAX_SECTION or raw_length > MAX_SECTION or reserved or reserved2:
        raise Damaged(obj, f"section {number & 0x7FFF} at byte {at} has an impossible header")
    start = at + SECTION_HEADER_LENGTH
    stored = body[start : start + length]
    if len(stored) < length:
        raise Damaged(obj, f"cut off: section {number & 0x7FFF} has {len(stored)} of {length} bytes")
    if stored_hash(stored) != digest:
        raise Damaged(obj, f"section {number & 0x7FFF} at byte {at} is damaged (its hash is wrong)")
    if protection:
        raise Fault("format-unsupported", f"{obj}: sealed section, which this pgkeep cannot open", object=obj)
    return number, codec, stored, raw_length, header


def _known(number: int, obj: str) -> SectionType | None:
    try:
        return SectionType(number & ~CRITICAL)
    except ValueError:
        if number & CRITICAL:
            raise Fault(
                "format-unsupported",
                f"{obj}: holds a section of type {number & ~CRITICAL} that must be understood to read it",
                hint="use a newer pgkeep",
                object=obj,
            ) from None
        return None
