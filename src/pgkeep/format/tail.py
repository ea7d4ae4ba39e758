"""The last bytes of a pack or WAL object: where its footer lies (docs/format/pack.md).

Free of numpy, like all that `wal push` and `wal get` import.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from pgkeep.errors import Damaged
from pgkeep.format.limits import HEADER_LENGTH, MAX_FOOTER, MAX_OBJECT, TAIL_LENGTH
from pgkeep.format.section import Directory, SectionType, StoredSection, decode_directory, seal_sections
from pgkeep.values.ids import ObjectId

_MAGIC: Final = b"PGKTAIL\n"
_LAYOUT: Final = struct.Struct("<QQQII16s32s8s")
assert _LAYOUT.size == TAIL_LENGTH


@dataclass(frozen=True, slots=True)
class FooterPlace:
    """Where a footer lies in its object and what it must be: enough to read any part of it with one range read.

    A footer is a block of sections in this order: PAGE_LSNS, FRAMES, PAGE_HASHES (packs), or FRAMES alone (WAL).
    """

    object_length: int
    offset: int
    length: int
    lsns_end: int
    """Bytes from `offset` to the end of PAGE_LSNS: what the mode `lsn` reads."""
    frames_end: int
    """Bytes from `offset` to the end of FRAMES: what a restore reads."""
    digest: bytes
    """Of the footer's directory."""

    def is_possible(self) -> bool:
        """False for a place that no object can have."""
        return (
            self.object_length <= MAX_OBJECT
            and self.offset >= HEADER_LENGTH
            and self.length <= MAX_FOOTER
            and self.offset + self.length + TAIL_LENGTH == self.object_length
            and 0 < self.lsns_end <= self.frames_end <= self.length
        )


def close_object(
    header: bytes, offset: int, sections: Sequence[StoredSection], frames: int, object_id: ObjectId
) -> tuple[list[bytes], FooterPlace]:
    """The parts that follow the frames, which end at byte `offset`: the footer and the tail; and the footer's place.

    `frames` is the index of FRAMES in `sections`; PAGE_LSNS, if it is there, comes before it.
    """
    parts = seal_sections(header, sections)
    ends = list(accumulate(map(len, parts)))
    digest = decode_directory(parts[0], None, str(object_id)).digest
    place = FooterPlace(offset + ends[-1] + TAIL_LENGTH, offset, ends[-1], ends[frames], ends[frames + 1], digest)
    if not place.is_possible():
        raise ValueError(f"an object of {place.object_length} bytes with a footer of {place.length} is over the limits")
    tail = _LAYOUT.pack(
        place.offset, place.length, place.object_length, place.lsns_end, place.frames_end, object_id, digest, _MAGIC
    )
    return [*parts, tail], place


def decode_tail(data: bytes, object_length: int, object_id: ObjectId, obj: str) -> FooterPlace:
    """Read the last `TAIL_LENGTH` bytes of an object of `object_length` bytes."""
    if len(data) != TAIL_LENGTH:
        raise Damaged(obj, f"is cut off (no tail in its {object_length} bytes)")
    offset, length, total, lsns_end, frames_end, owner, digest, magic = _LAYOUT.unpack(data)
    if magic != _MAGIC:
        raise Damaged(obj, "is cut off or overwritten at its end (no tail)")
    if owner != object_id or total != object_length:
        raise Damaged(obj, f"has the tail of another object (of {total} bytes, expected {object_length})")
    place = FooterPlace(total, offset, length, lsns_end, frames_end, digest)
    if not place.is_possible():
        raise Damaged(obj, f"has an impossible footer ({length} bytes at {offset})")
    return place


def footer_directory(body: bytes | memoryview, header: bytes | None, place: FooterPlace, obj: str) -> Directory:
    """The directory at the start of a footer, which must be the one that `place` names; Damaged.

    `header` may be None where `place` comes from a manifest: its digest then vouches for everything.
    """
    directory = decode_directory(body, header, obj)
    if directory.digest != place.digest:
        raise Damaged(obj, "its footer is another than the one that was written (its hash is wrong)")
    frames = directory.one(SectionType.FRAMES, obj)
    lsns = directory.of(SectionType.PAGE_LSNS)
    lsns_end = lsns[0].end if lsns else frames.offset
    if (directory.length, lsns_end, frames.end) != (place.length, place.lsns_end, place.frames_end):
        raise Damaged(obj, "the sections of its footer do not lie where they are said to lie")
    return directory
