"""A live server, asked over SQL: its facts, and the start and stop of a physical backup.

1. Facts only: nothing here knows a repository, or decides anything with what it finds.
2. Losing the session that called pg_backup_start aborts the backup on the server's side; `check_same` notices
   what that session would survive: a promotion, a pooler's switch to another backend.
3. The functions' names changed in 15 (pg_start_backup -> pg_backup_start); the exclusive mode, which wrote a
   backup_label into the live data directory, is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, cast

from pgkeep.errors import Fault
from pgkeep.pg.facts import (
    ArchiverState,
    Identity,
    ServerFacts,
    read_archiver,
    read_facts,
    read_identity,
    read_snapshot,
    read_wal_position,
    what_changed,
)
from pgkeep.pg.inventory import (
    CollationVersion,
    Database,
    RelationName,
    Tablespace,
    read_collations,
    read_databases,
    read_relations,
    read_tablespaces,
)
from pgkeep.pg.programs import NEWEST_MAJOR, OLDEST_MAJOR
from pgkeep.pg.session import Session, as_text
from pgkeep.values.lsn import Lsn
from pgkeep.values.xid import XidSnapshot

_PREREQUISITE = "55000"  # object_not_in_prerequisite_state


@dataclass(frozen=True, slots=True)
class StartedBackup:
    """pg_backup_start has returned: every page with an LSN below `lsn` is on disk."""

    lsn: Lsn
    label: str


@dataclass(frozen=True, slots=True)
class StoppedBackup:
    """pg_backup_stop: WAL is needed up to `lsn`; both files are the server's bytes, to be stored as they are."""

    lsn: Lsn
    backup_label: bytes
    tablespace_map: bytes
    """Empty when there is no tablespace outside the data directory."""


def connect(conninfo: str, application_name: str = "pgkeep") -> Server:
    """Connect to a server of a supported version.

    Raises Fault 'postgres-unreachable', or 'postgres-version' outside 14 to 18.
    """
    session = Session.open(conninfo, application_name)
    major = session.version_num // 10000
    if not OLDEST_MAJOR <= major <= NEWEST_MAJOR:
        session.close()
        raise Fault(
            "postgres-version",
            f"the server is PostgreSQL {major}; supported are {OLDEST_MAJOR} to {NEWEST_MAJOR}",
        )
    return Server(session, conninfo, application_name)


class Server:
    """One session to one server; use as a context manager, or `close` it.

    Every method raises Fault 'postgres-lost' when the connection is gone, and 'postgres-rights' when the role lacks
    a right.
    """

    def __init__(self, session: Session, conninfo: str, application_name: str) -> None:
        self._session = session
        self._conninfo = conninfo
        self._application_name = application_name
        self._other: Session | None = None
        self._given_up = False

    @property
    def version_num(self) -> int:
        """170011 for 17.11."""
        return self._session.version_num

    @property
    def major(self) -> int:
        return self.version_num // 10000

    @property
    def is_open(self) -> bool:
        return self._session.is_open

    def facts(self) -> ServerFacts:
        """Settings, versions, identity: see ServerFacts."""
        return read_facts(self._session)

    def identity(self) -> Identity:
        """Which server, on which timeline, in which life."""
        return read_identity(self._session)

    def check_same(self, before: Identity) -> None:
        """Raise Fault 'backup-invalidated' when this is no longer the server, life and timeline of `before`."""
        changed = what_changed(before, self.identity())
        if changed is not None:
            raise Fault("backup-invalidated", changed, hint="start the backup again")

    def clock(self) -> datetime:
        """The server's wall clock, in UTC."""
        return cast(datetime, self._session.value("SELECT clock_timestamp()")).astimezone(UTC)

    def wal_position(self) -> Lsn:
        """Up to where WAL is flushed (a primary) or replayed (a standby)."""
        return read_wal_position(self._session)

    def archiver(self) -> ArchiverState:
        return read_archiver(self._session)

    def snapshot(self) -> XidSnapshot:
        """Which transactions are over now."""
        return read_snapshot(self._session)

    def databases(self) -> tuple[Database, ...]:
        return read_databases(self._session)

    def tablespaces(self) -> tuple[Tablespace, ...]:
        return read_tablespaces(self._session)

    def relation_names(self, database: Database, *, shared: bool = False) -> Iterator[RelationName]:
        """The relations of `database`, one at a time, over a connection of its own."""
        with self._session_to(database) as session:
            yield from read_relations(session, shared=shared)

    def all_relation_names(self, unread: Callable[[Database, Fault], None]) -> Iterator[RelationName]:
        """The relations of every database that allows connections, the shared ones once.

        A database that cannot be read (dropped meanwhile, no right, no free connection) is told to `unread`, and the
        others follow.
        """
        shared = True
        for database in self.databases():
            if not database.allow_connections:
                continue
            try:
                yield from self.relation_names(database, shared=shared)
            except Fault as fault:
                unread(database, fault)
            else:
                shared = False

    def collations(self, database: Database) -> tuple[CollationVersion, ...]:
        """The versioned collations that objects of `database` use, over a connection of its own."""
        with self._session_to(database) as session:
            return read_collations(session)

    def backup_start(self, label: str, *, fast: bool) -> StartedBackup:
        """Begin a non-exclusive backup in this session; returns after its checkpoint.

        With `fast` the checkpoint is immediate, else it may take minutes (checkpoint_timeout times
        checkpoint_completion_target); `cancel` from another thread, or Ctrl-C, ends the waiting.
        """
        name = "pg_backup_start(%s, %s)" if self.major >= 15 else "pg_start_backup(%s, %s, false)"
        text = self._session.value(f"SELECT {name}::text", (label, fast))
        return StartedBackup(Lsn.parse(as_text(text)), label)

    def backup_stop(self) -> StoppedBackup:
        """End the backup of this session, without waiting for the archiver.

        Raises Fault 'backup-invalidated' when the server says that the backup is void (a standby was promoted,
        full_page_writes was off meanwhile, no backup is running in this session).
        """
        name = "pg_backup_stop(false)" if self.major >= 15 else "pg_stop_backup(false, false)"
        try:
            lsn, label, tablespace_map = self._session.row(
                f"SELECT lsn::text, labelfile, spcmapfile FROM {name}"  # noqa: S608 (two constants)
            )
        except Fault as fault:
            if fault.context.get("sqlstate") == _PREREQUISITE:
                raise Fault("backup-invalidated", fault.message, hint="start the backup again") from fault
            raise
        return StoppedBackup(Lsn.parse(as_text(lsn)), _raw(label), _raw(tablespace_map))

    def create_restore_point(self, name: str) -> Lsn:
        """Write a named recovery target into WAL; its LSN.  Not possible in recovery ('postgres-settings')."""
        return Lsn.parse(as_text(self._session.value("SELECT pg_create_restore_point(%s)::text", (name,))))

    def switch_wal(self) -> Lsn:
        """Complete the present segment, so that it is archived; the end of what was written in it."""
        return Lsn.parse(as_text(self._session.value("SELECT pg_switch_wal()::text")))

    def write_and_switch_wal(self) -> None:
        """Complete the present segment although nothing may have been written to it since the last switch."""
        # A record of its own: pg_switch_wal does nothing on a server where nothing happened (xlogfuncs.c).
        self._session.rows("SELECT pg_logical_emit_message(false, 'pgkeep', 'a segment to be archived')")
        self.switch_wal()

    def pending_restart(self, names: Sequence[str]) -> frozenset[str]:
        """Those of the settings whose value in the files waits for a restart."""
        query = "SELECT name FROM pg_settings WHERE pending_restart AND name = ANY (%s)"
        return frozenset(as_text(row[0]) for row in self._session.rows(query, (list(names),)))

    def set_by_alter_system(self) -> tuple[tuple[str, str], ...]:
        """(name, value) of the settings that postgresql.auto.conf decides, as far as the role may see that."""
        query = "SELECT name, setting FROM pg_settings WHERE sourcefile LIKE '%/postgresql.auto.conf' ORDER BY name"
        return tuple((as_text(name), as_text(value)) for name, value in self._session.rows(query))

    def size(self) -> int:
        """Bytes in all databases that the role may look at."""
        query = "SELECT sum(pg_database_size(oid)) FROM pg_database WHERE has_database_privilege(oid, 'CONNECT')"
        return int(self._session.value(query) or 0)

    def apply(self, statements: Sequence[str]) -> None:
        """Run the statements, then let the server read its configuration again.

        'postgres-rights' or 'postgres-settings' for the first that it refuses; those before it stay applied.
        """
        for statement in statements:
            self._session.rows(statement)
        self._session.rows("SELECT pg_reload_conf()")

    def cancel(self) -> None:
        """Cancel the statement that another thread is running; it ends there with Fault 'interrupted'."""
        self._session.cancel()

    def cancel_all(self) -> None:
        """As `cancel`, also for the session to another database; none is opened after it (Fault 'interrupted')."""
        self._given_up = True
        for session in (self._session, self._other):
            if session is not None and session.is_open:
                with suppress(Fault):
                    session.cancel()

    def close(self) -> None:
        """End the session; a backup that it started and did not stop is aborted by the server."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _session_to(self, database: Database) -> Session:
        session = Session.open(self._conninfo, self._application_name, database.name)
        self._other = session
        try:
            if self._given_up:
                raise Fault("interrupted", f"the names in database {database.name} are not asked for any more")
            session.read_utf8()
        except BaseException:
            session.close()
            raise
        return session


def _raw(text: object) -> bytes:
    """The server's bytes of a text column (see pgkeep.pg.session, rule 3)."""
    return as_text(text).encode("utf-8", "surrogateescape")
