"""The root manifest: its presence is the backup (docs/format/manifest.md).

The outer part (INFO, SEEN, PACKS, LIVE) is all that `list`, prune and sweep need; the inner part describes the cluster
and its files.  Encoding takes the entries as a stream and decoding gives them as one, so that a million files need no
million objects at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged
from pgkeep.format.footer import FooterPlace
from pgkeep.format.header import Header
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import HEADER_LENGTH, MAX_FRAMES, MAX_OBJECT, PATHS_PER_CHUNK, RELATIONS_PER_CHUNK
from pgkeep.format.record import Record, decode_record, decode_rows, encode_record
from pgkeep.format.section import (
    Section,
    SectionType,
    StoredSection,
    encode_section,
    read_sections,
    seal_sections,
)
from pgkeep.values.ids import ObjectId

NO_PACK: Final = -1


class ManifestInfo(Record, frozen=True, kw_only=True):
    """INFO: what a list of backups shows.  Times are ISO 8601 in UTC, sizes bytes, LSNs integers."""

    backup: str
    cluster: str
    cluster_name: str
    writer: str
    host: str
    label: str
    started: str
    stopped: str
    """By the *server's* clock, after pg_backup_stop."""
    system_id: int
    server_version: int
    timeline: int
    """The timeline on which the backup stopped."""
    start_timeline: int
    start_lsn: int
    stop_lsn: int
    wal_segment_size: int
    source: str
    """'primary' or 'standby'."""
    method: str
    """How changes were found: 'full', 'rescan', 'lsn', 'summaries'."""
    method_reason: str
    base: str | None
    base_proof: str
    logical_bytes: int
    """Sum of all file lengths."""
    stored_bytes: int
    """Bytes of the packs that this backup wrote."""
    pages: int
    """Pages in the backup."""
    pages_changed: int
    """Pages that it stored itself."""
    files: int
    bad_pages: int


class SeenManifest(Record, frozen=True, kw_only=True, array_like=True):
    """A manifest that existed when this one was written, and BLAKE3-128 of its bytes."""

    backup: str
    hash: bytes


class ServerInfo(Record, frozen=True, kw_only=True):
    """SERVER: the settings that recovery and later backups depend on."""

    block_size: int
    relation_segment_blocks: int
    wal_block_size: int
    data_checksum_version: int
    wal_log_hints: bool
    full_page_writes: bool
    wal_level: str
    catalog_version: int
    encoding: str
    timezone: str
    data_directory: str
    config_file: str
    hba_file: str
    ident_file: str
    owner: str
    """Name of the account that owns the data directory."""
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_transactions: int
    max_locks_per_transaction: int
    shared_preload_libraries: str
    track_commit_timestamp: bool
    snapshot: str
    """pg_current_snapshot() after the stop: an xid that was running then, or later, committed after it."""
    source_url: str = ""


class WalRange(Record, frozen=True, kw_only=True):
    """WAL needed on one timeline, first to last segment number inclusive."""

    timeline: int
    first: int
    last: int


class WalNeeds(Record, frozen=True, kw_only=True):
    """WAL_RANGES: what makes the backup consistent, and the history file's text verbatim (empty on timeline 1)."""

    ranges: list[WalRange]
    history: bytes


class EntryType(IntEnum):
    """What a path is."""

    FILE = 0
    DIRECTORY = 1
    LINKED_TABLESPACE = 2
    """A symlink in pg_tblspc on the source; its entries follow below its path."""
    IN_PLACE_TABLESPACE = 3


class Unit(IntEnum):
    """What a file's extents count."""

    BYTES = 0
    PAGES = 1


class Place(IntEnum):
    """How an entry says where its content lies."""

    NONE = 0
    """No content (directories, empty files)."""
    INLINE = 1
    """One extent: `pack`, `at` = its first ordinal, covering the whole file."""
    MAP = 2
    """An encoded extent map: `pack`, `at` = its first byte in the pack's map space, `length` bytes, keyed `hash`."""


class Entry(Record, frozen=True, kw_only=True, array_like=True):
    """One path of the backup, relative to the data directory, '/'-separated, as raw bytes."""

    path: bytes
    type: EntryType
    mode: int
    size: int
    unit: Unit = Unit.BYTES
    place: Place = Place.NONE
    pack: int = NO_PACK
    """Index in PACKS."""
    at: int = 0
    length: int = 0
    hash: bytes = b""


class BadPages(Record, frozen=True, kw_only=True):
    """Pages of one file whose checksum or header was wrong although they were not being written."""

    path: bytes
    blocks: list[int]
    """Block numbers within this file (not within the relation)."""


class Relation(Record, frozen=True, kw_only=True, array_like=True):
    """A relation's name at the time of the backup; names as raw bytes of the database's encoding."""

    database: int
    oid: int
    filenode: int
    schema: bytes
    name: bytes
    kind: str
    pages: int
    rows: float


class Collation(Record, frozen=True, kw_only=True, array_like=True):
    """A collation provider's version that index order depends on."""

    database: bytes
    name: bytes
    provider: str
    version: str


class Attachment(Record, frozen=True, kw_only=True):
    """A configuration file outside the data directory: its absolute path, role and content."""

    path: bytes
    role: str
    """'config', 'hba', 'ident' or 'include'."""
    mode: int
    content: bytes


class Tablespace(Record, frozen=True, kw_only=True):
    """A tablespace; `location` is the original absolute path, empty for an in-place one."""

    oid: int
    name: bytes
    location: bytes


class Database(Record, frozen=True, kw_only=True):
    """A database, template databases too."""

    oid: int
    name: bytes
    encoding: str


@dataclass(frozen=True, slots=True)
class PackRef:
    """A pack that a manifest uses: id, where its footer lies, number of frames, and which of them are live."""

    id: ObjectId
    footer: FooterPlace
    frames: int
    live: bytes
    """Bitmap of live frames, least significant bit first, ceil(frames / 8) bytes."""


@dataclass(frozen=True, slots=True)
class Inner:
    """The inner part but for the paths."""

    server: ServerInfo
    backup_label: bytes
    tablespace_map: bytes
    wal: WalNeeds
    bad_pages: Sequence[BadPages]
    relations: Sequence[Relation]
    collations: Sequence[Collation]
    attachments: Sequence[Attachment]
    tablespaces: Sequence[Tablespace]
    databases: Sequence[Database]


@dataclass(frozen=True, slots=True)
class Outer:
    """The outer part."""

    info: ManifestInfo
    seen: Sequence[SeenManifest]
    packs: Sequence[PackRef]


_PACK_ROW: Final = struct.Struct("<16sQQQ16sI")
_COUNT: Final = struct.Struct("<I")


def _encode_packs(packs: Sequence[PackRef]) -> bytes:
    rows = [
        _PACK_ROW.pack(p.id, p.footer.object_length, p.footer.offset, p.footer.length, p.footer.hash, p.frames)
        for p in packs
    ]
    return _COUNT.pack(len(packs)) + b"".join(rows)


def _decode_packs(content: bytes, live: bytes, obj: str) -> list[PackRef]:
    n = _COUNT.unpack_from(content)[0] if len(content) >= 4 else -1
    if n < 0 or len(content) != 4 + n * _PACK_ROW.size:
        raise Damaged(obj, f"pack table of {len(content)} bytes cannot hold its {n} rows")
    packs: list[PackRef] = []
    at = 0
    for row in _PACK_ROW.iter_unpack(memoryview(content)[4:]):
        pack_id, total, offset, length, digest, frames = row
        width = (frames + 7) // 8
        if frames > MAX_FRAMES or total > MAX_OBJECT or at + width > len(live) or offset + length > total:
            raise Damaged(obj, f"pack table row {len(packs)} is impossible")
        bitmap = live[at : at + width]
        packs.append(PackRef(ObjectId(pack_id), FooterPlace(total, offset, length, digest), frames, bitmap))
        at += width
    if at != len(live):
        raise Damaged(obj, "bitmap of live frames does not fit the pack table")
    return packs


def _chunks(rows: Iterable[Record], size: int) -> Iterator[list[Record]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _inner_sections(inner: Inner, entries: Iterable[Entry]) -> Iterator[StoredSection]:
    S = SectionType  # noqa: N806
    yield encode_section(S.SERVER, encode_record(inner.server))
    yield encode_section(S.BACKUP_LABEL, inner.backup_label)
    yield encode_section(S.TABLESPACE_MAP, inner.tablespace_map)
    yield encode_section(S.WAL_RANGES, encode_record(inner.wal))
    for type_, rows in (
        (S.BAD_PAGES, inner.bad_pages),
        (S.TABLESPACES, inner.tablespaces),
        (S.DATABASES, inner.databases),
    ):
        yield encode_section(type_, encode_record(list(rows)))
    yield encode_section(S.COLLATIONS, encode_record(list(inner.collations)), critical=False)
    yield encode_section(S.ATTACHMENTS, encode_record(list(inner.attachments)), critical=False)
    for chunk in _chunks(inner.relations, RELATIONS_PER_CHUNK):
        yield encode_section(S.RELATIONS, encode_record(chunk), critical=False)
    for chunk in _chunks(entries, PATHS_PER_CHUNK):
        yield encode_section(S.PATHS, encode_record(chunk))


def encode_manifest(header: Header, outer: Outer, inner: Inner, entries: Iterable[Entry]) -> list[bytes]:
    """The parts of the manifest object.  `entries` must ascend by path."""
    head = header.encode()
    sections = [
        encode_section(SectionType.INFO, encode_record(outer.info)),
        encode_section(SectionType.SEEN, encode_record(list(outer.seen)), critical=False),
        encode_section(SectionType.PACKS, _encode_packs(outer.packs)),
        encode_section(SectionType.LIVE, b"".join(pack.live for pack in outer.packs)),
        *_inner_sections(inner, entries),
    ]
    return [head, *seal_sections(head, sections)]


def decode_info_only(data: bytes, obj: str) -> ManifestInfo:
    """INFO of a whole manifest (all section hashes are verified on the way)."""
    for section in _sections(data, obj, [SectionType.INFO]):
        return decode_record(section.content, ManifestInfo, obj)
    raise Damaged(obj, "lacks its INFO section")


def _sections(data: bytes, obj: str, wanted: Iterable[SectionType]) -> Iterator[Section]:
    return read_sections(memoryview(data)[HEADER_LENGTH:], data[:HEADER_LENGTH], obj, wanted)


def decode_outer(data: bytes, obj: str) -> Outer:
    """The outer part."""
    S = SectionType  # noqa: N806
    found = {s.type: s.content for s in _sections(data, obj, [S.INFO, S.SEEN, S.PACKS, S.LIVE])}
    for needed in (S.INFO, S.PACKS, S.LIVE):
        if needed not in found:
            raise Damaged(obj, f"lacks its {needed.name} section")
    seen = decode_rows(found[S.SEEN], SeenManifest, obj) if S.SEEN in found else []
    return Outer(
        decode_record(found[S.INFO], ManifestInfo, obj),
        seen,
        _decode_packs(found[S.PACKS], found[S.LIVE], obj),
    )


def decode_inner(data: bytes, obj: str) -> Inner:
    """The inner part but for the paths; `decode_entries` streams those."""
    S = SectionType  # noqa: N806
    single: dict[SectionType, bytes] = {}
    relations: list[Relation] = []
    wanted = [
        S.SERVER, S.BACKUP_LABEL, S.TABLESPACE_MAP, S.WAL_RANGES, S.BAD_PAGES, S.RELATIONS, S.COLLATIONS,
        S.ATTACHMENTS, S.TABLESPACES, S.DATABASES,
    ]  # fmt: skip
    for section in _sections(data, obj, wanted):
        if section.type is S.RELATIONS:
            relations += decode_rows(section.content, Relation, obj)
        else:
            single[section.type] = section.content

    def need(type_: SectionType) -> bytes:
        if type_ not in single:
            raise Damaged(obj, f"lacks its {type_.name} section")
        return single[type_]

    empty = encode_record([])
    return Inner(
        server=decode_record(need(S.SERVER), ServerInfo, obj),
        backup_label=need(S.BACKUP_LABEL),
        tablespace_map=need(S.TABLESPACE_MAP),
        wal=decode_record(need(S.WAL_RANGES), WalNeeds, obj),
        bad_pages=decode_rows(need(S.BAD_PAGES), BadPages, obj),
        relations=relations,
        collations=decode_rows(single.get(S.COLLATIONS, empty), Collation, obj),
        attachments=decode_rows(single.get(S.ATTACHMENTS, empty), Attachment, obj),
        tablespaces=decode_rows(need(S.TABLESPACES), Tablespace, obj),
        databases=decode_rows(need(S.DATABASES), Database, obj),
    )


def decode_entries(data: bytes, obj: str, packs: int) -> Iterator[Entry]:
    """Every entry in order; Damaged for a path that leaves the target, disorder or an impossible place.

    `packs` is the length of the manifest's pack table.
    """
    previous = b""
    for section in _sections(data, obj, [SectionType.PATHS]):
        for entry in decode_rows(section.content, Entry, obj):
            _check_entry(entry, previous, packs, obj)
            previous = entry.path
            yield entry


def _check_entry(entry: Entry, previous: bytes, packs: int, obj: str) -> None:
    shown = entry.path.decode("utf-8", "backslashreplace")
    parts = entry.path.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts or b"\0" in entry.path or len(entry.path) > 4096:
        raise Damaged(obj, f"holds the path {shown!r}, which would leave the target directory")
    if entry.path <= previous:
        raise Damaged(obj, f"holds the path {shown!r} out of order")
    if entry.size < 0 or entry.mode & ~0o7777 or entry.at < 0 or entry.length < 0:
        raise Damaged(obj, f"holds impossible attributes for {shown!r}")
    if entry.place is not Place.NONE and not 0 <= entry.pack < packs:
        raise Damaged(obj, f"places {shown!r} in a pack that is not in its table")
    if entry.place is Place.MAP and len(entry.hash) != HASH_LENGTH:
        raise Damaged(obj, f"names no extent map for {shown!r}")
    if (entry.place is Place.NONE) != (entry.size == 0 or entry.type is not EntryType.FILE):
        raise Damaged(obj, f"does not say where the content of {shown!r} lies")


def live_bitmap(live: npt.NDArray[np.bool_]) -> bytes:
    """Bitmap of a boolean column, least significant bit first."""
    return np.packbits(live, bitorder="little").tobytes()
