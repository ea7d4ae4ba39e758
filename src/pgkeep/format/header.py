"""The clear header with which every object begins (docs/format/header.md).

Readable by one range read of `HEADER_LENGTH` bytes with the standard library alone: `wal push` compares headers before
it imports anything else.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pgkeep.errors import Damaged, Fault
from pgkeep.format.limits import FORMAT_VERSION, HEADER_LENGTH
from pgkeep.values.ids import ObjectId

MAGIC: Final = b"\x89PGKEEP\n"
SUITE_CLEAR: Final = 0
SUITE_SEALED: Final = 1
_LAYOUT: Final = struct.Struct("<8sHHHH16s16sIIQ80s32s32s32s16s64s64s96s")
_WAL: Final = struct.Struct("<QQIIQ32s")
_PACK: Final = struct.Struct("<I60x")
assert _LAYOUT.size == HEADER_LENGTH - 32
SIGNATURE_AT: Final = 256
SIGNATURE_LENGTH: Final = 64
_RESERVED: Final = bytes(96)


class ObjectType(IntEnum):
    """What an object is; the numbers are permanent."""

    REPOSITORY = 1
    KEY_BUNDLE = 2
    INCARNATION = 3
    PACK = 4
    MANIFEST = 5
    WAL_SEGMENT = 6
    WAL_PARTIAL = 7
    WAL_BACKUP_LABEL = 8
    WAL_HISTORY = 9
    WAL_CLAIM = 10
    WAL_INDEX = 11
    MOVES = 12
    CONDEMNED = 13
    RETIRED = 14
    PIN = 15
    DRILL = 16
    LEASE = 17
    FEATURE = 18
    DAMAGED = 19
    PRUNED = 20
    DUMP = 21


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a header.  `specific` is the 64-byte area whose meaning depends on the type."""

    type: ObjectType
    repository: ObjectId
    object: ObjectId
    created_us: int
    """Microseconds since 1970-01-01 UTC by the writer's clock; for people, never for decisions."""
    specific: bytes = bytes(64)
    suite: int = SUITE_CLEAR
    epoch: int = 0
    sealed_key: bytes = bytes(80)
    """The object's data key, sealed to the epoch's public key."""
    commitment: bytes = bytes(32)
    """Of the data key."""
    salt: bytes = bytes(32)
    """Random per attempt: from it and the metadata key follows the key of the object's sealed sections."""
    metadata_commitment: bytes = bytes(32)
    writer_key: bytes = bytes(16)
    signature: bytes = bytes(SIGNATURE_LENGTH)

    def encode(self) -> bytes:
        head = _LAYOUT.pack(
            MAGIC, FORMAT_VERSION, self.suite, self.type, HEADER_LENGTH, self.repository, self.object,
            self.epoch, 0, self.created_us, self.sealed_key, self.commitment, self.salt, self.metadata_commitment,
            self.writer_key, self.signature, self.specific, _RESERVED,
        )  # fmt: skip
        return head + hashlib.sha256(head).digest()


def decode_header(data: bytes | memoryview, obj: str) -> Header:
    """Read the header at the start of `data`; `obj` names the object in faults.

    Damaged when it is none, format-unsupported when a newer version or another suite wrote it.
    """
    head = bytes(data[:HEADER_LENGTH])
    if head[:8] != MAGIC:
        raise Damaged(obj, "not a pgkeep object (wrong magic)")
    if len(head) < HEADER_LENGTH:
        raise Damaged(obj, f"header cut off after {len(head)} of {HEADER_LENGTH} bytes")
    (_, version, suite, type_, length, repository, object_, epoch, flags, created, sealed, commitment, salt,
     metadata_commitment, writer, signature, specific, reserved) = _LAYOUT.unpack(head[:-32])  # fmt: skip
    if hashlib.sha256(head[:-32]).digest() != head[-32:]:
        raise Damaged(obj, "header damaged (its checksum is wrong)")
    if version != FORMAT_VERSION or length != HEADER_LENGTH or flags or reserved != _RESERVED:
        raise Fault(
            "format-unsupported",
            f"{obj}: written in repository format {version}, this pgkeep reads format {FORMAT_VERSION}",
            hint="use the pgkeep version that wrote it, or a newer one",
            object=obj,
        )
    if suite != SUITE_CLEAR:
        raise Fault(
            "format-unsupported",
            f"{obj}: encrypted with suite {suite}, which this pgkeep cannot read",
            hint="use a newer pgkeep",
            object=obj,
        )
    try:
        kind = ObjectType(type_)
    except ValueError:
        raise Fault("format-unsupported", f"{obj}: unknown object type {type_}", object=obj) from None
    return Header(
        kind, ObjectId(repository), ObjectId(object_), created, specific, suite, epoch, sealed, commitment,
        salt, metadata_commitment, writer, signature,
    )  # fmt: skip


def expect_header(
    data: bytes | memoryview, obj: str, *, type_: ObjectType, repository: ObjectId, object_: ObjectId
) -> Header:
    """`decode_header`, and the object must be the one that was asked for."""
    header = decode_header(data, obj)
    if header.type is not type_:
        raise Damaged(obj, f"is a {header.type.name}, expected a {type_.name}")
    if header.repository != repository:
        raise Damaged(obj, f"belongs to repository {header.repository}, expected {repository}")
    if header.object != object_:
        raise Damaged(obj, "is another object under this name (its id does not belong to its key)")
    return header


@dataclass(frozen=True, slots=True)
class WalIdentity:
    """The type-specific area of WAL objects: which bytes these are."""

    system_id: int
    page_address: int
    """Address in the first page's header = LSN of the segment's first byte; 0 for what is no segment."""
    segment_size: int
    timeline: int
    """The timeline in the file's name (a new timeline's first segment carries its parent's pages)."""
    length: int
    """Bytes of content."""
    content_hash: bytes
    """Keyed BLAKE3-256 of the content."""

    def encode(self) -> bytes:
        return _WAL.pack(
            self.system_id,
            self.page_address,
            self.segment_size,
            self.timeline,
            self.length,
            self.content_hash,
        )

    @classmethod
    def decode(cls, specific: bytes) -> WalIdentity:
        return cls(*_WAL.unpack(specific))


def pack_specific(page_size: int) -> bytes:
    """The type-specific area of packs: the size in bytes of one page."""
    return _PACK.pack(page_size)


def page_size_of(header: Header, obj: str) -> int:
    """The page size in a pack's header, a power of two from 1 to 32 KiB (PostgreSQL's BLCKSZ)."""
    size: int = _PACK.unpack(header.specific)[0]
    if size not in (1024, 2048, 4096, 8192, 16384, 32768):
        raise Damaged(obj, f"page size {size} is none that PostgreSQL has")
    return size
