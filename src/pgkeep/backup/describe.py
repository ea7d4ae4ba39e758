"""From a server's facts and a backup's course to the records of its manifest (pure)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pgkeep import __version__
from pgkeep.backup.detection import Detection
from pgkeep.backup.source import Inventory
from pgkeep.format.manifest import Database, Entry, EntryType, ManifestInfo, ServerInfo, Tablespace, Unit
from pgkeep.pg.datadir import DataDirectory, tablespace_oid
from pgkeep.pg.entry import EntryType as DirectoryType
from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.page import BLCKSZ
from pgkeep.pg.server import StartedBackup, StoppedBackup
from pgkeep.repo.repository import Cluster
from pgkeep.values.ids import BackupId


@dataclass(frozen=True, slots=True)
class Course:
    """What happened when, by the server's clock and WAL."""

    backup: BackupId
    label: str
    started: StartedBackup
    stopped: StoppedBackup
    began: datetime
    ended: datetime
    timeline: int
    snapshot: str
    """pg_current_snapshot() after the stop."""
    detection: Detection
    pages_stored: int


def server_info(facts: ServerFacts, owner: str, snapshot: str) -> ServerInfo:
    return ServerInfo(
        block_size=facts.block_size,
        relation_segment_blocks=facts.relation_segment_blocks,
        wal_block_size=facts.wal_block_size,
        data_checksum_version=facts.data_checksum_version,
        wal_log_hints=facts.wal_log_hints,
        full_page_writes=facts.full_page_writes,
        wal_level=facts.wal_level,
        catalog_version=facts.catalog_version,
        encoding=facts.encoding,
        timezone=facts.timezone,
        data_directory=_text(facts.data_directory),
        config_file=_text(facts.config_file),
        hba_file=_text(facts.hba_file),
        ident_file=_text(facts.ident_file),
        owner=owner,
        max_connections=facts.max_connections,
        max_worker_processes=facts.max_worker_processes,
        max_wal_senders=facts.max_wal_senders,
        max_prepared_transactions=facts.max_prepared_transactions,
        max_locks_per_transaction=facts.max_locks_per_transaction,
        shared_preload_libraries=facts.shared_preload_libraries,
        track_commit_timestamp=facts.track_commit_timestamp,
        snapshot=snapshot,
    )


def _text(path: str) -> str:
    """Paths in records are for people: bytes that are no UTF-8 are shown, not kept."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def manifest_info(
    cluster: Cluster, facts: ServerFacts, course: Course, entries: Iterable[Entry], stored: int, bad: int
) -> ManifestInfo:
    """INFO of a backup of a primary."""
    base = course.detection.base
    files = size = pages = 0
    for entry in entries:
        if entry.type is EntryType.FILE:
            files += 1
            size += entry.size
            pages += entry.size // BLCKSZ if entry.unit is Unit.PAGES else 0
    return ManifestInfo(
        backup=course.backup,
        cluster=cluster.uuid,
        cluster_name=cluster.name,
        writer=f"pgkeep {__version__}",
        host=os.uname().nodename,
        label=course.label,
        started=course.began.isoformat(),
        stopped=course.ended.isoformat(),
        system_id=facts.system_identifier,
        server_version=facts.version_num,
        timeline=course.timeline,
        start_timeline=course.timeline,
        start_lsn=course.started.lsn,
        stop_lsn=course.stopped.lsn,
        wal_segment_size=facts.wal_segment_size,
        source="primary",
        method=course.detection.method,
        method_reason=course.detection.reason,
        base=base.info.backup if base else None,
        base_proof=course.detection.proof,
        logical_bytes=size,
        stored_bytes=stored,
        pages=pages,
        pages_changed=course.pages_stored,
        files=files,
        bad_pages=bad,
        server_started=facts.postmaster_started.astimezone(UTC).isoformat(),
    )


def tablespaces(inventory: Inventory, directory: DataDirectory) -> list[Tablespace]:
    """The catalogs' tablespaces, and links that no catalog names: of a CREATE TABLESPACE that has not committed, that
    came after the catalogs were read, or that a crash cut off.  A restore must know where to put each link.
    """
    named = {
        found.oid: Tablespace(
            oid=found.oid,
            name=found.name.encode("utf-8", "surrogateescape"),
            location=b"" if found.in_place else os.fsencode(found.location),
        )
        for found in inventory.tablespaces
    }
    linked = [entry for entry in directory.tablespaces if entry.type is DirectoryType.LINKED_TABLESPACE]
    for oid, entry in ((tablespace_oid(entry), entry) for entry in linked):
        named.setdefault(oid, Tablespace(oid=oid, name=str(oid).encode(), location=os.fsencode(entry.target)))
    return [named[oid] for oid in sorted(named)]


def databases(inventory: Inventory) -> list[Database]:
    return [
        Database(oid=found.oid, name=found.name.encode("utf-8", "surrogateescape"), encoding=found.encoding)
        for found in inventory.databases
    ]
