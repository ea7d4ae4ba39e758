"""What a logical dump has before it: the databases of a server, the sizes of their tables, the role's rights.

Names are the server's own bytes (pgkeep.pg.session, rule 3): a database is connected to by its bytes, whatever the
encoding of the database that was asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgkeep.errors import Fault
from pgkeep.pg.inventory import INVALID_DATABASE
from pgkeep.pg.session import Row, Session, as_text

_PATIENCE = "1s"
_LOCKED = "55P03"  # lock_not_available


@dataclass(frozen=True, slots=True)
class DumpableDatabase:
    """A row of pg_database; `size` is None where the role may not connect."""

    name: str
    size: int | None
    allows_connections: bool
    is_invalid: bool
    """Its DROP was begun and not ended: nobody can connect."""
    may_connect: bool
    encoding: str
    provider: str
    """datlocprovider; 'c' before 15."""
    collate: str
    ctype: str
    locale: str
    """Of ICU or of the builtin provider; '' for libc's."""
    icu_rules: str
    has_settings: bool
    """ALTER DATABASE SET, or ALTER ROLE ... IN DATABASE SET."""


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table with storage: its bytes without indexes, TOAST included."""

    schema: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class DumpServer:
    """Facts that need no right but to connect; `system_id` is 0 where the role may not ask for it."""

    version: str
    version_num: int
    system_id: int
    in_recovery: bool
    role: str
    is_superuser: bool
    reads_passwords: bool
    """Whether the role may read pg_authid, where the passwords are."""

    @property
    def major(self) -> int:
        return self.version_num // 10000


_SERVER = """
SELECT split_part(current_setting('server_version'), ' ', 1),
       CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE')
            THEN (SELECT system_identifier FROM pg_control_system()) ELSE 0 END,
       pg_is_in_recovery(), current_user::text, rolsuper, has_table_privilege('pg_authid', 'SELECT')
  FROM pg_roles WHERE rolname = current_user
"""
_DATABASES = """
SELECT d.datname, CASE WHEN {connectable} THEN pg_database_size(d.oid) END,
       d.datallowconn, d.datconnlimit = {invalid}, has_database_privilege(d.oid, 'CONNECT'),
       pg_encoding_to_char(d.encoding), {provider}, d.datcollate, d.datctype, {locale}, {rules},
       EXISTS (SELECT FROM pg_db_role_setting AS s WHERE s.setdatabase = d.oid)
  FROM pg_database AS d
 ORDER BY d.datname
"""
_CONNECTABLE = "has_database_privilege(d.oid, 'CONNECT') AND d.datconnlimit <> {invalid}"
# pg_table_size: the main fork, TOAST with its index, and the maps; large objects are in a catalogue's table.  It waits
# for whoever has locked the table: what somebody has locked is counted as the last VACUUM or ANALYZE has seen it.
_SIZE = "CASE WHEN c.oid NOT IN (SELECT relation FROM locked) THEN pg_table_size(c.oid) ELSE {seen} END"
_SEEN = "(c.relpages + coalesce(t.relpages, 0))::bigint * current_setting('block_size')::bigint"
_SIZES = """
WITH locked AS (SELECT relation FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation IS NOT NULL
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
SELECT n.nspname, c.relname, {size}
  FROM pg_class AS c
  LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
   AND (c.oid >= 16384 AND n.nspname !~ '^pg_' OR c.oid = 'pg_largeobject'::regclass)
 ORDER BY 3 DESC
"""
# FirstNormalObjectId (access/transam.h): what initdb did not make.
_SOMETHING = """
SELECT EXISTS (SELECT FROM pg_class WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_proc WHERE oid >= 16384)
    OR EXISTS (SELECT FROM pg_type WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_namespace WHERE oid >= 16384)
    OR EXISTS (SELECT FROM pg_extension WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_largeobject_metadata)
    OR EXISTS (SELECT FROM pg_publication) OR EXISTS (SELECT FROM pg_event_trigger)
    OR EXISTS (SELECT FROM pg_foreign_data_wrapper) OR EXISTS (SELECT FROM pg_language WHERE oid >= 16384)
    OR EXISTS (SELECT FROM pg_cast WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_default_acl)
    OR EXISTS (SELECT FROM pg_operator WHERE oid >= 16384) OR EXISTS (SELECT FROM pg_collation WHERE oid >= 16384
               AND collnamespace <> 'pg_catalog'::regnamespace)
"""


def read_dump_server(session: Session) -> DumpServer:
    """See DumpServer."""
    version, system_id, in_recovery, role, is_superuser, reads = session.row(_SERVER)
    return DumpServer(
        version=as_text(version), version_num=session.version_num, system_id=int(system_id), in_recovery=in_recovery,
        role=as_text(role), is_superuser=is_superuser, reads_passwords=reads,
    )  # fmt: skip


def read_dumpable(session: Session) -> tuple[DumpableDatabase, ...]:
    """Every database, by name."""
    version = session.version_num // 10000
    locale = "d.datlocale" if version >= 17 else "d.daticulocale" if version >= 15 else "NULL"
    query = _DATABASES.format(
        connectable=_CONNECTABLE.format(invalid=INVALID_DATABASE),
        invalid=INVALID_DATABASE,
        provider="d.datlocprovider" if version >= 15 else "'c'",
        locale=locale,
        rules="d.daticurules" if version >= 16 else "NULL",
    )
    return tuple(
        DumpableDatabase(
            name=as_text(row[0]), size=None if row[1] is None else int(row[1]), allows_connections=row[2],
            is_invalid=row[3], may_connect=row[4], encoding=as_text(row[5]), provider=as_text(row[6]),
            collate=as_text(row[7]), ctype=as_text(row[8]), locale=as_text(row[9]), icu_rules=as_text(row[10]),
            has_settings=row[11],
        )
        for row in session.rows(query)
    )  # fmt: skip


def read_table_sizes(session: Session) -> tuple[TableSize, ...]:
    """The tables of the session's database that have content of their own, the largest first; large objects among them
    as pg_catalog.pg_largeobject.  Waits for nobody's lock."""
    return tuple(TableSize(as_text(schema), as_text(name), int(size)) for schema, name, size in _sizes(session))


def _sizes(session: Session) -> list[Row]:
    session.rows("SELECT set_config('lock_timeout', %s, false)", (_PATIENCE,))
    try:
        return session.rows(_SIZES.format(size=_SIZE.format(seen=_SEEN)))
    except Fault as fault:  # locked between the look and the question
        if fault.context.get("sqlstate") != _LOCKED:
            raise
        return session.rows(_SIZES.format(size=_SEEN))
    finally:
        if session.is_open:
            session.rows("SELECT set_config('lock_timeout', '0', false)")


def holds_something(session: Session) -> bool:
    """Whether anybody has made anything in the session's database."""
    return bool(session.value(_SOMETHING))
