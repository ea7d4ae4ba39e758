"""The server and the database that a dump is loaded into, as far as a plan must know them; and the database made anew.

Names are read as UTF-8 (Session.read_utf8), like those of an archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pgkeep.errors import Fault
from pgkeep.pg.programs import NEWEST_MAJOR, OLDEST_MAJOR
from pgkeep.pg.session import Session, as_text
from pgkeep.pg.sqltext import quoted_name, quoted_text, shown_name

Name = tuple[str, str]
"""(schema, name); ('', name) for what has no schema."""

_BUILTIN_SINCE: Final = 17
_ICU_SINCE: Final = 15

_RELATIONS = """
    SELECT n.nspname, c.relname, c.relkind, c.relpages, c.reltuples::float8 FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.oid >= 16384 AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
_FUNCTIONS = """
    SELECT n.nspname, p.proname || '(' || array_to_string(ARRAY(
               SELECT format_type(t.oid, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t(oid, at) ORDER BY at
           ), ', ') || ')'
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid >= 16384 AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""
_TYPES = """
    SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.oid >= 16384 AND n.nspname !~ '^pg_' AND t.typtype IN ('c', 'd', 'e', 'r')
      AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
      AND NOT EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
"""
_OTHERS = """
    SELECT 'PUBLICATION', pubname FROM pg_publication
    UNION ALL SELECT 'EVENT TRIGGER', evtname FROM pg_event_trigger
    UNION ALL SELECT 'FOREIGN DATA WRAPPER', fdwname FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'SERVER', srvname FROM pg_foreign_server
"""


@dataclass(frozen=True, slots=True)
class TargetRole:
    """Who loads: `is_superuser` may do everything."""

    name: str
    is_superuser: bool
    may_create_databases: bool
    may_create_roles: bool


@dataclass(frozen=True, slots=True)
class TargetServer:
    """`shown` is where it is, for people; `extensions` maps what can be created to its default version."""

    shown: str
    version: str
    major: int
    role: TargetRole
    databases: Mapping[str, str]
    """Name -> encoding."""
    roles: frozenset[str]
    tablespaces: frozenset[str]
    extensions: Mapping[str, str]
    locales: frozenset[str]
    """Of libc, in the spelling of `plain_locale`."""
    has_icu: bool
    default_locale: str


@dataclass(frozen=True, slots=True)
class Present:
    """What a database holds that is not PostgreSQL's own nor an extension's."""

    encoding: str = ""
    schemas: frozenset[str] = frozenset()
    relations: Mapping[Name, str] = field(default_factory=dict)
    """-> the kind, as in pg_class.relkind."""
    filled: frozenset[Name] = frozenset()
    """Relations that have pages or rows as far as statistics know."""
    functions: frozenset[Name] = frozenset()
    types: frozenset[Name] = frozenset()
    extensions: Mapping[str, str] = field(default_factory=dict)
    others: frozenset[Name] = frozenset()
    """(kind, name): publications, event triggers, foreign servers ..."""
    large_objects: frozenset[int] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Nothing of anybody's, the schema public and extensions apart."""
        things = (self.relations, self.functions, self.types, self.others, self.large_objects)
        return not any(things) and self.schemas <= {"public"}


@dataclass(frozen=True, slots=True)
class NewDatabase:
    """How a database is made: `locale` '' leaves everything about it to the server's template0."""

    encoding: str = ""
    provider: str = ""
    locale: str = ""
    """Of libc, or of the provider."""
    collate: str = ""
    ctype: str = ""
    icu_rules: str = ""

    def sql(self, name: str) -> str:
        """The statement for a database called `name`, on a server that knows the provider."""
        words = [f"CREATE DATABASE {quoted_name(name)} TEMPLATE template0"]
        if self.encoding:
            words.append(f"ENCODING {quoted_text(self.encoding)}")
        if self.provider in ("icu", "builtin"):
            words.append(f"LOCALE_PROVIDER {self.provider}")
            option = "ICU_LOCALE" if self.provider == "icu" else "BUILTIN_LOCALE"
            words.append(f"{option} {quoted_text(self.locale)}")
            if self.icu_rules:
                words.append(f"ICU_RULES {quoted_text(self.icu_rules)}")
        if self.collate:
            words.append(f"LC_COLLATE {quoted_text(self.collate)}")
        if self.ctype:
            words.append(f"LC_CTYPE {quoted_text(self.ctype)}")
        return " ".join(words)


def plain_locale(name: str) -> str:
    """'en_us.utf8' for 'en_US.UTF-8': the spellings that a C library takes for one locale."""
    base, dot, codeset = name.partition(".")
    return base.lower() + dot + codeset.lower().replace("-", "")


def open_target(conninfo: str, dbname: str | None = None, application_name: str = "pgkeep") -> Session:
    """A session on a server of a supported version; 'postgres-unreachable', 'postgres-version'."""
    session = Session.open(conninfo, application_name, dbname)
    major = session.version_num // 10000
    if not OLDEST_MAJOR <= major <= NEWEST_MAJOR:
        session.close()
        raise Fault(
            "postgres-version",
            f"the server is PostgreSQL {major}; supported are {OLDEST_MAJOR} to {NEWEST_MAJOR}",
            hint="load into a server of a supported version",
        )
    session.read_utf8()
    return session


def read_server(session: Session) -> TargetServer:
    """What the whole server has."""
    role = session.row(
        "SELECT rolname, rolsuper, rolsuper OR rolcreatedb, rolsuper OR rolcreaterole FROM pg_roles"
        " WHERE rolname = current_user"
    )
    address = session.value("SELECT host(inet_server_addr()) || ':' || inet_server_port()")
    directory = session.value("SELECT current_setting('port')")
    locales = session.rows("SELECT collcollate FROM pg_collation WHERE collprovider = 'c' AND collcollate IS NOT NULL")
    return TargetServer(
        shown=as_text(address) or f"this machine, port {directory}",
        version=as_text(session.value("SHOW server_version")),
        major=session.version_num // 10000,
        role=TargetRole(as_text(role[0]), bool(role[1]), bool(role[2]), bool(role[3])),
        databases={
            as_text(name): as_text(encoding)
            for name, encoding in session.rows("SELECT datname, pg_encoding_to_char(encoding) FROM pg_database")
        },
        roles=_names(session, "SELECT rolname FROM pg_roles"),
        tablespaces=_names(session, "SELECT spcname FROM pg_tablespace"),
        extensions={
            as_text(name): as_text(version)
            for name, version in session.rows("SELECT name, default_version FROM pg_available_extensions")
        },
        locales=frozenset({"c", "posix", *(plain_locale(as_text(row[0])) for row in locales)}),
        has_icu=bool(session.value("SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i')")),
        default_locale=as_text(session.value("SELECT datcollate FROM pg_database WHERE datname = 'template0'")),
    )


def read_present(session: Session) -> Present:
    """What the database of this session holds."""
    relations = session.rows(_RELATIONS)
    return Present(
        encoding=as_text(session.value("SHOW server_encoding")),
        schemas=_names(
            session, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
                     " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass"
                     " AND d.objid = pg_namespace.oid AND d.deptype = 'e')",
        ),
        relations={(as_text(row[0]), as_text(row[1])): as_text(row[2]) for row in relations},
        filled=frozenset((as_text(row[0]), as_text(row[1])) for row in relations if row[3] > 0 or row[4] > 0),
        functions=_pairs(session, _FUNCTIONS),
        types=_pairs(session, _TYPES),
        extensions={
            as_text(name): as_text(version)
            for name, version in session.rows("SELECT extname, extversion FROM pg_extension")
        },
        others=_pairs(session, _OTHERS),
        large_objects=frozenset(int(row[0]) for row in session.rows("SELECT oid FROM pg_largeobject_metadata")),
    )  # fmt: skip


def read_place(session: Session, directory: str) -> str:
    """A tablespace's directory on the server's machine: 'absent', 'filled', 'empty', '' when nobody may look."""
    try:
        if not session.value("SELECT coalesce((pg_stat_file(%s, true)).isdir, false)", (directory,)):
            return "absent"
        return "filled" if session.rows("SELECT pg_ls_dir(%s)", (directory,)) else "empty"
    except Fault:
        return ""


def supports(server: TargetServer, made: NewDatabase) -> bool:
    """Whether the server has that provider and locale."""
    match made.provider:
        case "icu":
            return server.major >= _ICU_SINCE and server.has_icu
        case "builtin":
            return server.major >= _BUILTIN_SINCE
    wanted = [name for name in (made.collate, made.ctype) if name]
    return all(plain_locale(name) in server.locales for name in wanted)


def create_database(session: Session, name: str, made: NewDatabase, comment: str) -> None:
    """CREATE DATABASE, with a comment that says what it is while it is not whole."""
    session.rows(made.sql(name))
    session.rows(f"COMMENT ON DATABASE {quoted_name(name)} IS {quoted_text(comment)}")


def drop_database(session: Session, name: str) -> None:
    """DROP DATABASE, ending who is connected to it."""
    session.rows(f"DROP DATABASE IF EXISTS {quoted_name(name)} WITH (FORCE)")


def rename_database(session: Session, name: str, new: str) -> None:
    """The server waits up to five seconds for others to leave, and ends autovacuum itself (CountOtherDBBackends)."""
    session.rows(f"ALTER DATABASE {quoted_name(name)} RENAME TO {quoted_name(new)}")


def shown_object(name: Name) -> str:
    """'shop.orders'."""
    return ".".join(shown_name(part) for part in name if part)


def _names(session: Session, query: str) -> frozenset[str]:
    return frozenset(as_text(row[0]) for row in session.rows(query))


def _pairs(session: Session, query: str) -> frozenset[Name]:
    return frozenset((as_text(row[0]), as_text(row[1])) for row in session.rows(query))
