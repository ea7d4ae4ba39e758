"""Small typed records inside sections: MessagePack maps with permanent field names (docs/format/records.md).

A reader ignores fields that it does not know; what must not be ignored is a new critical section instead.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pgkeep.errors import Damaged

R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all records."""


_encoder = msgspec.msgpack.Encoder()


def encode_record(record: object) -> bytes:
    return _encoder.encode(record)


def decode_record(content: bytes, type_: type[R], obj: str) -> R:
    """Damaged when `content` is not a `type_`."""
    return _decode(content, type_, obj)


def decode_rows(content: bytes, row: type[R], obj: str) -> list[R]:
    """A section that holds a list of records."""
    return _decode(content, list[row], obj)  # type: ignore[valid-type]


def _decode(content: bytes, type_: type[T], obj: str) -> T:
    try:
        return msgspec.msgpack.decode(content, type=type_)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise Damaged(obj, f"holds no readable {getattr(type_, '__name__', type_)} ({error})") from None


T = TypeVar("T")
