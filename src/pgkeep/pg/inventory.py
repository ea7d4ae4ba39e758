"""What a cluster holds, by name: databases, tablespaces, relations, collations.

WAL and files know numbers only (postgres-facts, 7): these lists, saved with each backup, give them names.
Names are UTF-8 whatever the database's encoding; in SQL_ASCII databases they may be any bytes, kept by
surrogateescape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgkeep.pg.session import Session, as_text

GLOBAL_TABLESPACE = 1664  # pg_tablespace.dat: pg_global
INVALID_DATABASE = -2  # datconnlimit of a database whose DROP has begun (DATCONNLIMIT_INVALID_DB, pg_database.h)


@dataclass(frozen=True, slots=True)
class Database:
    """A row of pg_database; the collation versions are '' where the server keeps none (always before 15)."""

    oid: int
    name: str
    allow_connections: bool
    """False too for an invalid one: nobody can connect to it any more."""
    is_invalid: bool
    """Its DROP has begun, goes on or was interrupted: its files may be gone (minor releases since August 2023)."""
    is_template: bool
    encoding: str
    tablespace: int
    collation_version: str
    actual_collation_version: str


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace other than pg_default and pg_global; an in-place one's location is relative: pg_tblspc/OID."""

    oid: int
    name: str
    location: str
    in_place: bool


@dataclass(frozen=True, slots=True)
class RelationName:
    """A relation in one database (`database` 0: shared by all).

    `filenode` is 0 for what has no storage (views, partitioned tables); `tablespace` is the effective one, the way WAL
    writes tablespace/database/filenode.  `pages` and `tuples` are pg_class's estimates, `tuples` -1 if unknown.
    """

    database: int
    oid: int
    filenode: int
    tablespace: int
    schema: str
    name: str
    kind: str
    pages: int
    tuples: float


@dataclass(frozen=True, slots=True)
class CollationVersion:
    """A collation that something in `database` depends on, and its provider's versions then and now."""

    database: int
    schema: str
    name: str
    provider: str
    version: str
    actual_version: str


_DATABASES = """
SELECT oid, datname, datallowconn AND datconnlimit <> {invalid}, datconnlimit = {invalid}, datistemplate,
       pg_encoding_to_char(encoding), dattablespace, {versions}
  FROM pg_database
 ORDER BY oid
"""
_RELATIONS = """
SELECT c.oid, coalesce(pg_relation_filenode(c.oid), 0),
       CASE WHEN c.relisshared THEN {shared} WHEN c.reltablespace = 0 THEN d.dattablespace ELSE c.reltablespace END,
       n.nspname, c.relname, c.relkind, c.relpages, c.reltuples, c.relisshared, d.oid
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_database AS d ON d.datname = current_database()
 WHERE c.relpersistence <> 't' AND c.relkind <> 'c'
"""
_COLLATIONS = """
SELECT d.oid, n.nspname, c.collname, c.collprovider, c.collversion, pg_collation_actual_version(c.oid)
  FROM pg_collation AS c
  JOIN pg_namespace AS n ON n.oid = c.collnamespace
  JOIN pg_database AS d ON d.datname = current_database()
 WHERE c.collversion IS NOT NULL
   AND EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_collation'::regclass AND refobjid = c.oid)
 ORDER BY n.nspname, c.collname
"""


def read_databases(session: Session) -> tuple[Database, ...]:
    """Every database, also those that allow no connections, by oid."""
    has_versions = session.version_num >= 150000
    versions = "datcollversion, pg_database_collation_actual_version(oid)" if has_versions else "NULL, NULL"
    query = _DATABASES.format(invalid=INVALID_DATABASE, versions=versions)
    return tuple(
        Database(
            oid=int(row[0]), name=as_text(row[1]), allow_connections=row[2], is_invalid=row[3], is_template=row[4],
            encoding=as_text(row[5]), tablespace=int(row[6]),
            collation_version=as_text(row[7]), actual_collation_version=as_text(row[8]),
        )
        for row in session.rows(query)
    )  # fmt: skip


def read_tablespaces(session: Session) -> tuple[Tablespace, ...]:
    """Every tablespace but the two built-in ones, by oid (pg_tablespace_location, misc.c)."""
    rows = session.rows(
        "SELECT oid, spcname, pg_tablespace_location(oid) FROM pg_tablespace"
        " WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid"
    )
    return tuple(
        Tablespace(int(oid), as_text(name), as_text(location), not as_text(location).startswith("/"))
        for oid, name, location in rows
    )


def read_relations(session: Session, *, shared: bool) -> Iterator[RelationName]:
    """The relations of the session's database, one at a time; with `shared` those of pg_global too.

    Temporary relations are left out, their files are in no backup.
    """
    query = _RELATIONS.format(shared=GLOBAL_TABLESPACE)
    for row in session.stream(query if shared else f"{query} AND NOT c.relisshared"):
        oid, filenode, tablespace, schema, name, kind, pages, tuples, is_shared, database = row
        yield RelationName(
            database=0 if is_shared else int(database), oid=int(oid), filenode=int(filenode),
            tablespace=int(tablespace), schema=as_text(schema), name=as_text(name), kind=as_text(kind),
            pages=int(pages), tuples=float(tuples),
        )  # fmt: skip


def read_collations(session: Session) -> tuple[CollationVersion, ...]:
    """The versioned collations (ICU, libc) that an object of the session's database uses."""
    return tuple(
        CollationVersion(int(row[0]), *(as_text(column) for column in row[1:])) for row in session.rows(_COLLATIONS)
    )
