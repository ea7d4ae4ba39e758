"""The last bytes of a pack or WAL object: where its footer lies (docs/format/pack.md).

Free of numpy, like all that `wal push` and `wal get` import.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Damaged
from pgkeep.format.keyed import stored_hash
from pgkeep.format.limits import HEADER_LENGTH, MAX_FOOTER, TAIL_LENGTH
from pgkeep.values.ids import ObjectId

_MAGIC: Final = b"PGKTAIL\n"
_LAYOUT: Final = struct.Struct("<QQ16s16sQ8s")
assert _LAYOUT.size == TAIL_LENGTH


@dataclass(frozen=True, slots=True)
class FooterPlace:
    """Where a footer lies in its object and what it must hash to: enough to read it with one range read."""

    object_length: int
    offset: int
    length: int
    hash: bytes


def close_object(offset: int, footer: bytes, object_id: ObjectId) -> tuple[list[bytes], FooterPlace]:
    """The parts that follow the frames, which end at byte `offset`: the footer and the tail; and the footer's place."""
    place = FooterPlace(offset + len(footer) + TAIL_LENGTH, offset, len(footer), stored_hash(footer))
    tail = _LAYOUT.pack(offset, len(footer), place.hash, object_id, place.object_length, _MAGIC)
    return [footer, tail], place


def decode_tail(data: bytes, object_length: int, object_id: ObjectId, obj: str) -> FooterPlace:
    """Read the last `TAIL_LENGTH` bytes of an object of `object_length` bytes."""
    if len(data) != TAIL_LENGTH:
        raise Damaged(obj, f"is cut off (no tail in its {object_length} bytes)")
    offset, length, digest, owner, total, magic = _LAYOUT.unpack(data)
    if magic != _MAGIC:
        raise Damaged(obj, "is cut off or overwritten at its end (no tail)")
    if owner != object_id or total != object_length:
        raise Damaged(obj, f"has the tail of another object (of {total} bytes, expected {object_length})")
    if offset < HEADER_LENGTH or length > MAX_FOOTER or offset + length + TAIL_LENGTH != object_length:
        raise Damaged(obj, f"has an impossible footer ({length} bytes at {offset})")
    return FooterPlace(object_length, offset, length, digest)
