"""Blocks with right hashes around wrong content: what a bug, or somebody who mends checksums, would leave.

Written against docs/format/sections.md and not against the encoder, so that the encoder's own refusals do not matter.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3


@dataclass(frozen=True)
class Forged:
    """A section; lengths are those of the content unless they are given."""

    number: int
    stored: bytes
    codec: int = 0
    protection: int = 0
    raw_length: int | None = None
    stored_length: int | None = None


def forge_block(header: bytes, sections: Sequence[Forged], *, length: int | None = None) -> bytes:
    """A block whose every hash is right."""
    rows = b"".join(
        struct.pack(
            "<HBBIQQQ32s",
            s.number,
            s.codec,
            s.protection,
            0,
            len(s.stored) if s.stored_length is None else s.stored_length,
            len(s.stored) if s.raw_length is None else s.raw_length,
            0,
            blake3(s.stored).digest(),
        )
        for s in sections
    )
    total = 96 + len(rows) + sum(len(s.stored) for s in sections) if length is None else length
    bound = blake3(header[:256] + bytes(64) + header[320:480]).digest()
    fixed = struct.pack("<8sIIQQ32s", b"PGKSECT\n", len(sections), 0, total, 0, bound)
    return fixed + blake3(fixed + rows).digest() + rows + b"".join(s.stored for s in sections)


def reseal(data: bytes, number: int, change: bytes, *, at: int = 0) -> bytes:
    """An object of header and block, with the plain content of the `at`-th section `number` replaced, hashes right."""
    header, block = data[:512], data[512:]
    count = struct.unpack_from("<I", block, 8)[0]
    offset = 96 + 64 * count
    sections: list[Forged] = []
    seen = 0
    for i in range(count):
        found, codec, protection, _, stored, raw, _, _ = struct.unpack_from("<HBBIQQQ32s", block, 96 + 64 * i)
        section = Forged(found, block[offset : offset + stored], codec, protection, raw)
        offset += stored
        if found & 0x7FFF == number:
            section = Forged(found, change) if seen == at else section
            seen += 1
        sections.append(section)
    assert seen > at, f"there is no section {number}"
    return header + forge_block(header, sections)


def forge_tail(footer: bytes, offset: int, lsns_end: int, frames_end: int, object_id: bytes) -> bytes:
    """The tail that belongs behind `footer`, which begins at byte `offset` of its object."""
    total = offset + len(footer) + 88
    digest = footer[64:96]
    return struct.pack(
        "<QQQII16s32s8s", offset, len(footer), total, lsns_end, frames_end, object_id, digest, b"PGKTAIL\n"
    )
