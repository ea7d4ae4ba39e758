"""Small objects, one record behind a header: repository, incarnation, claim, history (docs/format/objects.md)."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from pgkeep.errors import Damaged
from pgkeep.format.header import Header, decode_header
from pgkeep.format.limits import HEADER_LENGTH, MAX_SMALL_OBJECT
from pgkeep.format.record import Key32, Natural, Record, Small, decode_record, encode_record
from pgkeep.format.section import SectionType, decode_directory, encode_section, read_sections, seal_sections
from pgkeep.values.wal import is_segment_size

R = TypeVar("R", bound=Record)


class RepositoryInfo(Record, frozen=True, kw_only=True):
    """INFO of the object `pgkeep`."""

    created: str
    """ISO 8601, UTC."""
    writer: str


class ClearKeys(Record, frozen=True, kw_only=True):
    """CLEAR_KEYS of the object `pgkeep` while encryption is off: the bundle would hold them otherwise."""

    hash_key: Key32
    metadata_key: Key32


class IncarnationInfo(Record, frozen=True, kw_only=True):
    """INFO of `incarnations/<sysid>`."""

    system_id: Natural
    cluster_name: str
    server_version: Small
    """As server_version_num, for example 170011."""
    first_seen: str
    wal_segment_size: Small


class ClaimInfo(Record, frozen=True, kw_only=True):
    """INFO of a claim: which instance archives this timeline."""

    token: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    """Random, kept in the data directory."""
    host: str
    data_directory: str
    claimed: str


def encode_object(header: Header, info: Record | None = None, **contents: bytes | Record) -> list[bytes]:
    """Header and sections of a small object; keyword names are section types in lower case."""
    head = header.encode()
    sections = []
    if info is not None:
        sections.append(encode_section(SectionType.INFO, encode_record(info)))
    for name, content in contents.items():
        data = encode_record(content) if isinstance(content, Record) else content
        sections.append(encode_section(SectionType[name.upper()], data))
    return [head, *seal_sections(head, sections)]


def decode_contents(data: bytes, obj: str) -> dict[SectionType, bytes]:
    """The sections of a small object by type; its header must have been checked by the caller."""
    decode_header(data, obj)
    block = memoryview(data)[HEADER_LENGTH:]
    large = [row.number for row in decode_directory(block, None, obj).rows if row.raw_length > MAX_SMALL_OBJECT]
    if large:
        raise Damaged(obj, f"holds sections {large} over the {MAX_SMALL_OBJECT} bytes that such an object may have")
    sections = list(read_sections(block, data[:HEADER_LENGTH], obj))
    contents = {section.type: section.content for section in sections}
    if len(contents) != len(sections):
        raise Damaged(obj, "holds two sections of one type, expected one")
    return contents


def required(contents: dict[SectionType, bytes], type_: SectionType, obj: str) -> bytes:
    try:
        return contents[type_]
    except KeyError:
        raise Damaged(obj, f"lacks its {type_.name} section") from None


def decode_info(data: bytes, type_: type[R], obj: str) -> R:
    """The INFO record of a small object."""
    return decode_record(required(decode_contents(data, obj), SectionType.INFO, obj), type_, obj)


def decode_incarnation(data: bytes, obj: str) -> IncarnationInfo:
    """INFO of an incarnation; Damaged also for a WAL segment size that PostgreSQL does not have."""
    info = decode_info(data, IncarnationInfo, obj)
    if not is_segment_size(info.wal_segment_size):
        raise Damaged(obj, f"holds the impossible WAL segment size {info.wal_segment_size}")
    return info
