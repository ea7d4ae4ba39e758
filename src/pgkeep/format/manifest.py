"""What a root manifest says: its presence is the backup (docs/format/manifest.md).  Its bytes: `manifestcodec`.

The outer part (INFO, SEEN, PACKS, LIVE) is all that `list`, prune and sweep need; the inner part describes the cluster
and its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from pgkeep.format.limits import MAX_MAP, MAX_PATH
from pgkeep.format.record import Key32, Length, Mode, Natural, Ordinal, Record, Small, TimelineId
from pgkeep.format.tail import FooterPlace
from pgkeep.values.ids import ObjectId

NO_PACK: Final = -1


class ManifestInfo(Record, frozen=True, kw_only=True, omit_defaults=True):
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
    system_id: Natural
    server_version: Small
    timeline: TimelineId
    """The timeline on which the backup stopped."""
    start_timeline: TimelineId
    start_lsn: Natural
    stop_lsn: Natural
    wal_segment_size: Small
    source: str
    """'primary' or 'standby'."""
    method: str
    """How changes were found: 'full', 'rescan', 'lsn', 'summaries'."""
    method_reason: str
    base: str | None
    base_proof: str
    logical_bytes: Natural
    """Sum of all file lengths."""
    stored_bytes: Natural
    """Bytes of the packs that this backup wrote."""
    pages: Natural
    """Pages in the backup."""
    pages_changed: Natural
    """Pages that it stored itself."""
    files: Natural
    bad_pages: Natural
    server_started: str = ""
    """pg_postmaster_start_time(), which tells one life of the server from another; '' from earlier writers."""


class SeenManifest(Record, frozen=True, kw_only=True, array_like=True):
    """A manifest that existed when this one was written, and the digest of its directory (32 bytes)."""

    backup: Annotated[str, msgspec.Meta(min_length=25, max_length=25)]
    hash: Key32


class ServerInfo(Record, frozen=True, kw_only=True):
    """SERVER: the settings that recovery and later backups depend on."""

    block_size: Small
    relation_segment_blocks: Small
    wal_block_size: Small
    data_checksum_version: Small
    wal_log_hints: bool
    full_page_writes: bool
    wal_level: str
    catalog_version: Small
    encoding: str
    timezone: str
    data_directory: str
    config_file: str
    hba_file: str
    ident_file: str
    owner: str
    """Name of the account that owns the data directory."""
    max_connections: Small
    max_worker_processes: Small
    max_wal_senders: Small
    max_prepared_transactions: Small
    max_locks_per_transaction: Small
    shared_preload_libraries: str
    track_commit_timestamp: bool
    snapshot: str
    """pg_current_snapshot() after the stop: an xid that was running then, or later, committed after it."""
    source_url: str = ""


class WalRange(Record, frozen=True, kw_only=True):
    """WAL needed on one timeline, first to last segment number inclusive."""

    timeline: TimelineId
    first: Natural
    last: Natural


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
    """One extent: `pack`, `at` = its first ordinal, covering the whole file (size / block size units of PAGES)."""
    MAP = 2
    """An encoded extent map: `pack`, `at` = its first byte in the pack's map space, `length` bytes, keyed `hash`."""


class Entry(Record, frozen=True, kw_only=True, array_like=True):
    """One path of the backup, relative to the data directory, '/'-separated, as raw bytes."""

    path: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PATH)]
    type: EntryType
    mode: Mode
    size: Length
    unit: Unit = Unit.BYTES
    place: Place = Place.NONE
    pack: Annotated[int, msgspec.Meta(ge=NO_PACK, le=(1 << 31) - 1)] = NO_PACK
    """Index in PACKS."""
    at: Ordinal = 0
    length: Annotated[int, msgspec.Meta(ge=0, le=MAX_MAP)] = 0
    hash: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    """Of a MAP: its address (HashKeys.extent_map).  INLINE in bytes: HashKeys.file of the content, or empty."""


class BadPages(Record, frozen=True, kw_only=True):
    """Pages of one file whose checksum or header was wrong although they were not being written."""

    path: bytes
    blocks: list[Small]
    """Block numbers within this file (not within the relation)."""


class Relation(Record, frozen=True, kw_only=True, array_like=True):
    """A relation's name at the time of the backup; names as raw bytes of the database's encoding."""

    database: Small
    oid: Small
    filenode: Small
    schema: bytes
    name: bytes
    kind: str
    pages: Natural
    rows: float
    tablespace: Small = 0
    """OID; 0 is the database's own."""


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
    mode: Mode
    content: bytes


class Tablespace(Record, frozen=True, kw_only=True):
    """A tablespace; `location` is the original absolute path, empty for an in-place one."""

    oid: Small
    name: bytes
    location: bytes


class Database(Record, frozen=True, kw_only=True):
    """A database, template databases too."""

    oid: Small
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
    gone: bool = False
    """The origin was moved to other packs: its frames are found through `moves`."""


@dataclass(frozen=True, slots=True)
class Inner:
    """The inner part but for the paths."""

    server: ServerInfo
    backup_label: bytes
    tablespace_map: bytes
    wal: WalNeeds
    bad_pages: Sequence[BadPages]
    relations: Iterable[Relation]
    """A million in large clusters: a stream, which a manifest that was read gives as often as asked."""
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


def live_bitmap(live: npt.NDArray[np.bool_]) -> bytes:
    """Bitmap of a boolean column, least significant bit first."""
    return np.packbits(live, bitorder="little").tobytes()
