"""What a server says of itself: frozen values, and the statements that ask for them.

1. Each value is one moment's truth; nothing here remembers or decides.
2. Settings are read from pg_settings, in its base units (bytes, seconds); a row that the role may not see is a
   'postgres-rights' fault with the GRANT that shows it, never a silent default.
3. Paths are str by surrogateescape, exactly the server's bytes.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pgkeep.errors import Fault
from pgkeep.pg.session import Session, as_text
from pgkeep.values.lsn import Lsn
from pgkeep.values.xid import XidSnapshot


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server, on which timeline, in which life: what must not change while a backup runs.

    `backend_pid` changes when a pooler hands the session to another backend.
    """

    system_identifier: int
    timeline: int
    in_recovery: bool
    postmaster_started: datetime
    backend_pid: int


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Sizes in bytes, durations in seconds; `relation_segment_blocks` in pages of `block_size`."""

    version_num: int
    version: str
    catalog_version: int
    identity: Identity
    data_directory: str
    config_file: str
    hba_file: str
    ident_file: str
    external_config_files: tuple[str, ...]
    """Files that configuration is read from, outside the data directory; absolute."""
    block_size: int
    relation_segment_blocks: int
    wal_block_size: int
    wal_segment_size: int
    data_checksums: bool
    data_checksum_version: int
    wal_log_hints: bool
    full_page_writes: bool
    wal_level: str
    summarize_wal: bool
    """False before 17, which brought it."""
    archive_mode: str
    archive_command: str
    archive_library: str
    """'' before 15, which brought it."""
    archive_timeout: int
    encoding: str
    """Of the database that the session is connected to."""
    timezone: str
    log_timezone: str
    track_commit_timestamp: bool
    shared_preload_libraries: str
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_transactions: int
    max_locks_per_transaction: int
    is_superuser: bool
    role: str

    @property
    def major(self) -> int:
        return self.version_num // 10000

    @property
    def system_identifier(self) -> int:
        return self.identity.system_identifier

    @property
    def timeline(self) -> int:
        return self.identity.timeline

    @property
    def in_recovery(self) -> bool:
        return self.identity.in_recovery

    @property
    def postmaster_started(self) -> datetime:
        return self.identity.postmaster_started


@dataclass(frozen=True, slots=True)
class ArchiverState:
    """pg_stat_archiver: counts since the statistics' reset; names '' and times None when there was none."""

    archived_count: int
    last_archived_wal: str
    last_archived_time: datetime | None
    failed_count: int
    last_failed_wal: str
    last_failed_time: datetime | None


# In recovery there is no insertion point to ask; the control file knows the newest timeline replayed.
_IDENTITY = """
SELECT system_identifier,
       CASE WHEN pg_is_in_recovery()
            THEN greatest(checkpoint.timeline_id, recovery.min_recovery_end_timeline)
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
       END,
       pg_is_in_recovery(), pg_postmaster_start_time(), pg_backend_pid(), catalog_version_no
  FROM pg_control_system(), pg_control_checkpoint() AS checkpoint, pg_control_recovery() AS recovery
"""
_SETTINGS = (
    "data_directory", "config_file", "hba_file", "ident_file", "block_size", "segment_size", "wal_block_size",
    "wal_segment_size", "data_checksums", "wal_log_hints", "full_page_writes", "wal_level", "summarize_wal",
    "archive_mode", "archive_command", "archive_library", "archive_timeout", "server_encoding", "log_timezone",
    "track_commit_timestamp", "shared_preload_libraries", "max_connections", "max_worker_processes",
    "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction", "server_version",
)  # fmt: skip
_SINCE = {"summarize_wal": "off", "archive_library": ""}  # value on a version that does not know the setting


def read_identity(session: Session) -> Identity:
    """The server's identity now."""
    return _identity(session.row(_IDENTITY))


def _identity(row: Sequence[object]) -> Identity:
    system_identifier, timeline, in_recovery, started, pid = row[:5]
    assert isinstance(system_identifier, int) and isinstance(timeline, int) and isinstance(pid, int)
    assert isinstance(in_recovery, bool) and isinstance(started, datetime)
    # bigint: an identifier with its top bit set (after 2106) arrives negative
    return Identity(system_identifier % (1 << 64), timeline, in_recovery, started, pid)


def what_changed(before: Identity, now: Identity) -> str | None:
    """A sentence that says why `now` is not the server of `before` any more; None when it is."""
    if now.system_identifier != before.system_identifier:
        return f"this is another server: system identifier {now.system_identifier}, not {before.system_identifier}"
    if now.postmaster_started != before.postmaster_started:
        return f"the server was restarted at {now.postmaster_started:%Y-%m-%d %H:%M:%S %Z}"
    if before.in_recovery and not now.in_recovery:
        return "the standby was promoted"
    if now.timeline != before.timeline:
        return f"the timeline changed from {before.timeline} to {now.timeline}"
    if now.backend_pid != before.backend_pid:
        return "a connection pooler gave the session to another backend"
    return None


def read_facts(session: Session) -> ServerFacts:
    """Everything in ServerFacts; Fault 'postgres-rights' when a setting is hidden from the role."""
    row = session.row(_IDENTITY)
    settings = _read_settings(session)
    superuser, role, timezone = session.row(
        "SELECT rolsuper, rolname,"
        " coalesce((SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'), 'UTC')"
        " FROM pg_roles WHERE rolname = current_user"
    )
    return ServerFacts(
        version_num=session.version_num,
        version=settings["server_version"].split(" ")[0],
        catalog_version=int(row[5]),
        identity=_identity(row),
        data_directory=settings["data_directory"],
        config_file=settings["config_file"],
        hba_file=settings["hba_file"],
        ident_file=settings["ident_file"],
        external_config_files=_external_config_files(session, settings),
        block_size=int(settings["block_size"]),
        relation_segment_blocks=int(settings["segment_size"]),
        wal_block_size=int(settings["wal_block_size"]),
        wal_segment_size=int(settings["wal_segment_size"]),
        data_checksums=settings["data_checksums"] == "on",
        data_checksum_version=int(session.value("SELECT data_page_checksum_version FROM pg_control_init()")),
        wal_log_hints=settings["wal_log_hints"] == "on",
        full_page_writes=settings["full_page_writes"] == "on",
        wal_level=settings["wal_level"],
        summarize_wal=settings["summarize_wal"] == "on",
        archive_mode=settings["archive_mode"],
        archive_command=settings["archive_command"],
        archive_library=settings["archive_library"],
        archive_timeout=int(settings["archive_timeout"]),
        encoding=settings["server_encoding"],
        timezone=as_text(timezone),
        log_timezone=settings["log_timezone"],
        track_commit_timestamp=settings["track_commit_timestamp"] == "on",
        shared_preload_libraries=settings["shared_preload_libraries"],
        max_connections=int(settings["max_connections"]),
        max_worker_processes=int(settings["max_worker_processes"]),
        max_wal_senders=int(settings["max_wal_senders"]),
        max_prepared_transactions=int(settings["max_prepared_transactions"]),
        max_locks_per_transaction=int(settings["max_locks_per_transaction"]),
        is_superuser=bool(superuser),
        role=as_text(role),
    )


def _read_settings(session: Session) -> Mapping[str, str]:
    # While archive_mode is off, archive_command shows as '(disabled)' whatever it is (xlog.c, show_archive_command).
    rows = session.rows(
        "SELECT name, CASE name WHEN 'archive_command' THEN reset_val ELSE setting END"
        " FROM pg_settings WHERE name = ANY (%s)",
        (list(_SETTINGS),),
    )
    found = _SINCE | {as_text(name): as_text(setting) for name, setting in rows}
    hidden = [name for name in _SETTINGS if name not in found]
    if hidden:
        role = as_text(session.value("SELECT quote_ident(current_user)"))
        raise Fault(
            "postgres-rights",
            f"the role {role} may not see {', '.join(hidden)}",
            hint=f"as a superuser: GRANT pg_read_all_settings TO {role};",
        )
    return found


def _external_config_files(session: Session, settings: Mapping[str, str]) -> tuple[str, ...]:
    """config_file, hba_file, ident_file and every included file that lie outside the data directory.

    pg_file_settings lists all included files but only for superusers; for others pg_settings.sourcefile names
    those with an effective setting.
    """
    may_list = session.value(
        "SELECT has_table_privilege('pg_file_settings', 'SELECT')"
        " AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE')"
    )
    table = "pg_file_settings" if may_list else "pg_settings"
    rows = session.rows(f"SELECT DISTINCT sourcefile FROM {table} WHERE sourcefile IS NOT NULL")  # noqa: S608
    named = {settings["config_file"], settings["hba_file"], settings["ident_file"]}
    files = {os.path.normpath(path) for path in named | {as_text(row[0]) for row in rows} if path}
    inside = os.path.normpath(settings["data_directory"]) + os.sep
    return tuple(sorted(path for path in files if not path.startswith(inside)))


def read_archiver(session: Session) -> ArchiverState:
    """The archiver's counters."""
    row = session.row(
        "SELECT archived_count, last_archived_wal, last_archived_time,"
        " failed_count, last_failed_wal, last_failed_time FROM pg_stat_archiver"
    )
    return ArchiverState(int(row[0]), as_text(row[1]), row[2], int(row[3]), as_text(row[4]), row[5])


def read_snapshot(session: Session) -> XidSnapshot:
    """Which transactions are over now."""
    return XidSnapshot.parse(as_text(session.value("SELECT pg_current_snapshot()::text")))


def read_wal_position(session: Session) -> Lsn:
    """Up to where WAL is flushed (a primary) or replayed (a standby); 0/0 on a standby that replayed nothing."""
    text = session.value(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text"
    )
    return Lsn.parse(as_text(text) or "0/0")
