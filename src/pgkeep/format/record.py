"""Small typed records inside sections: MessagePack with permanent field names (docs/format/records.md).

A reader ignores fields that it does not know, and a field that is added later has a default; what must not be ignored
comes in a new critical section instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

from pgkeep.errors import Damaged
from pgkeep.format.limits import MAX_FILE, MAX_ORDINAL, MAX_RECORDS, MAX_ROWS

R = TypeVar("R", bound="Record")
T = TypeVar("T")

# What a field may hold; checked when it is read, so that no reader has to guard itself against a hostile number.
Natural = Annotated[int, msgspec.Meta(ge=0)]
"""0 to 2**64 - 1: LSNs, system identifiers, counts."""
Small = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
"""An unsigned 32-bit number: OIDs, block numbers, settings."""
TimelineId = Annotated[int, msgspec.Meta(ge=1, le=(1 << 32) - 1)]
Length = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE)]
"""Bytes of a file."""
Ordinal = Annotated[int, msgspec.Meta(ge=0, le=MAX_ORDINAL)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
Key32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all records."""


def _plain(value: object) -> object:
    """Lsn, BackupId and their like are written as the int, str or bytes that they are."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return bytes(value)
    raise TypeError(f"a record cannot hold a {type(value).__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_ARRAY16: Final = 0xDC
_ARRAY32: Final = 0xDD


def encode_record(record: object) -> bytes:
    return _encoder.encode(record)


def encode_rows(rows: Sequence[Record]) -> list[bytes]:
    """The rows as the contents of one section, or of as many as their bytes need."""
    content = _encoder.encode(rows)
    if len(content) <= MAX_RECORDS and len(rows) <= MAX_ROWS:
        return [content]
    if len(rows) == 1:
        raise ValueError(f"a record of {len(content)} bytes, the limit is {MAX_RECORDS}")
    middle = len(rows) // 2
    return [*encode_rows(rows[:middle]), *encode_rows(rows[middle:])]


def decode_record(content: bytes, type_: type[R], obj: str) -> R:
    """Damaged when `content` is not a `type_`."""
    return _decode(content, type_, type_.__name__, obj)


def decode_rows(content: bytes, row: type[R], obj: str) -> list[R]:
    """A section that holds a list of records; Damaged."""
    if _count(content) > MAX_ROWS:
        raise Damaged(obj, f"holds {_count(content)} rows of {row.__name__} in a section, the limit is {MAX_ROWS}")
    rows: list[R] = _decode(content, list[row], row.__name__, obj)  # type: ignore[valid-type]
    return rows


def _count(content: bytes) -> int:
    """Elements of the array that `content` begins with (MessagePack specification, array format family)."""
    first = content[0] if content else 0
    if first in (_ARRAY16, _ARRAY32):
        return int.from_bytes(content[1 : 3 if first == _ARRAY16 else 5], "big")
    return first & 0x0F


def _decode(content: bytes, type_: type[T], name: str, obj: str) -> T:
    if len(content) > MAX_RECORDS:
        raise Damaged(obj, f"holds {len(content)} bytes of {name}, the limit is {MAX_RECORDS}")
    try:
        return _decoder(type_).decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise Damaged(obj, f"holds no readable {name} ({error})") from None


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def _decoder(type_: type[T]) -> msgspec.msgpack.Decoder[T]:
    # Building a decoder costs more than decoding a small record with it.
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders[type_] = msgspec.msgpack.Decoder(type_)
    return decoder
