"""The plan of a load: what the dump holds, what the target holds, what would be overwritten, what is missing.  Pure.

1. Into a database that does not exist: it is made under a passing name, filled in parallel, and gets its name when it
   is whole.  Whatever happens before, no database of that name appears.
2. Into one that exists: one transaction, all or nothing.  With --jobs several connections work, and there is no common
   transaction: the plan says what a failure would leave.
3. What is known to fail is refused before anything is done: missing roles, extensions, tablespaces; objects that exist.
4. A dump of a newer version may say what an older server does not understand.  `tolerance` names, one by one, what may
   fail without anything being lost; any other error ends the load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from pgkeep.logical.loadneeds import needed_extensions, needed_roles, needed_tablespaces
from pgkeep.logical.newdatabase import encoding_of
from pgkeep.logical.rolesplan import GlobalsPlan
from pgkeep.logical.selection import Chosen, Selection
from pgkeep.logical.source import Kind, Source
from pgkeep.logical.tolerance import IN_HEAD
from pgkeep.pg.dumptoc import TocEntry, major_of
from pgkeep.pg.target import NewDatabase, Present, TargetServer, shown_object, supports
from pgkeep.pg.tools import ToolChoice

_SHOWN: Final = 5
_PUBLIC_CLOSED: Final = 15
_RELATIONS: Final = frozenset({"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"})
_FUNCTIONS: Final = frozenset({"FUNCTION", "PROCEDURE", "AGGREGATE"})
_TYPES: Final = frozenset({"TYPE", "DOMAIN"})


class Way(Enum):
    """Which programs load it."""

    RESTORE = "pg_restore"
    RESTORE_TO_PSQL = "pg_restore to psql"
    PSQL = "psql"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know; `code` is permanent."""

    code: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What was asked for, besides the source and the server.  `jobs` None: as many as are sensible."""

    database: str
    chosen: Chosen = field(default_factory=Chosen)
    jobs: int | None = None
    clean: bool = False
    role: str = ""
    keep: bool = False
    disable_triggers: bool = False


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything that a load will do.  `refusals` empty: it can be carried out."""

    source: Source
    request: LoadRequest
    selection: Selection | None
    """None: a script, which is loaded as a whole."""
    server: TargetServer
    tools: ToolChoice
    way: Way
    jobs: int
    one_transaction: bool
    new: NewDatabase | None
    """How the database is made; None: it exists."""
    globals: GlobalsPlan | None
    present: Present
    replaced: tuple[str, ...]
    """Existing objects that are dropped and made anew (--clean)."""
    appended: tuple[str, ...]
    """Existing tables that get rows."""
    as_they_are: frozenset[int]
    """Schemas that exist: their items are left out."""
    through_memory: bool
    """A directory from the repository is laid out for pg_restore first."""
    refusals: tuple[Notice, ...]
    warnings: tuple[Notice, ...]

    @property
    def database(self) -> str:
        return self.request.database

    @property
    def needs_consent(self) -> bool:
        """Somebody's database is touched that is not empty."""
        return self.new is None and not self.present.is_empty

    def on_failure(self) -> str:
        """What a failure would leave, for people."""
        if self.new is not None:
            if self.request.keep:
                return "what was loaded so far stays, in a database of another name (--keep)"
            return "nothing: the database appears when it is whole"
        if self.one_transaction:
            return "nothing: it is one transaction"
        return "what was loaded so far: several connections have no common transaction; it is listed then"

    def counts(self) -> dict[str, int]:
        """Items by pg_dump's words, the tables and their data first."""
        if self.selection is None:
            assert self.source.script is not None
            return {"TABLE": len(self.source.script.tables)}
        found: dict[str, int] = {"TABLE": 0, "TABLE DATA": 0}
        for entry in self.selection.entries:
            found[entry.desc] = found.get(entry.desc, 0) + 1
        return {desc: count for desc, count in found.items() if count}

    def as_json(self) -> dict[str, Any]:
        """docs/json.md, load."""
        source = self.source
        return {
            "source": {
                "path": source.content.shown,
                "kind": source.kind.value,
                "compression": source.compression or None,
                "bytes": source.size,
                "database": source.toc.dbname if source.toc is not None else None,
                "server_version": source.server_version or None,
                "program_version": source.program_version or None,
            },
            "target": {
                "server": self.server.shown,
                "server_version": self.server.version,
                "database": self.database,
                "exists": self.new is None,
                "empty": self.new is not None or self.present.is_empty,
                "role": self.server.role.name,
            },
            "items": self.counts(),
            "programs": str(self.tools),
            "way": self.way.value,
            "jobs": self.jobs,
            "one_transaction": self.one_transaction,
            "replaced": list(self.replaced),
            "appended": list(self.appended),
            "left_out": list(self.selection.left_out) if self.selection is not None else [],
            "globals": self.globals.as_json() if self.globals is not None else None,
            "on_failure": self.on_failure(),
            "refusals": [_json(one) for one in self.refusals],
            "warnings": [_json(one) for one in self.warnings],
        }


def _json(notice: Notice) -> dict[str, Any]:
    return {"code": notice.code, "text": notice.text, "hint": notice.hint or None}


def is_there(present: Present, entry: TocEntry) -> bool:
    """Whether the target has what an item makes."""
    name = (entry.namespace, entry.tag)
    if entry.desc in _RELATIONS:
        return name in present.relations
    if entry.desc in _FUNCTIONS:
        return name in present.functions
    if entry.desc in _TYPES:
        return name in present.types
    if entry.desc == "SCHEMA":
        return entry.tag in present.schemas
    if entry.desc == "EXTENSION":
        return entry.tag in present.extensions
    if entry.desc in {"BLOB", "BLOB METADATA"}:
        return any(int(number) in present.large_objects for number in large_objects(entry))
    return (entry.desc, entry.tag) in present.others


def large_objects(entry: TocEntry) -> list[str]:
    """The numbers of the large objects that an item makes."""
    if entry.desc == "BLOB":
        return [entry.tag] if entry.tag.isdecimal() else []
    return [line for line in entry.definition.split() if line.isdecimal()]


def plan_load(
    source: Source,
    request: LoadRequest,
    server: TargetServer,
    present: Present | None,
    tools: ToolChoice,
    selection: Selection | None,
    wishes: NewDatabase,
    globals_plan: GlobalsPlan | None,
    processors: int,
) -> LoadPlan:
    """`present` None: the database does not exist, and is made as `wishes` says as far as the server can."""
    new, refusals, warnings = (None, [], []) if present is not None else _new_database(wishes, server)
    found = present or Present(encoding=new.encoding if new is not None else "")
    jobs, one_transaction = _jobs(source, request, new is not None, processors)
    entries = selection.entries if selection is not None else ()
    existing = [entry for entry in entries if _makes(entry) and is_there(found, entry)]
    schemas = (
        frozenset(entry.dump_id for entry in existing if entry.desc == "SCHEMA") if not request.clean else frozenset()
    )
    clashes = [entry for entry in existing if entry.dump_id not in schemas and entry.desc != "EXTENSION"]
    if clashes and not request.clean:
        refusals.append(_exist(clashes, request))
    refusals += _missing(source, selection, request, server, globals_plan)
    refusals += _script_refusals(source, request, found)
    if new is not None and not server.role.may_create_databases:
        hint = "connect as a role with CREATEDB, or let somebody create the database and load into it"
        refusals.append(
            Notice("rights", f"the role {server.role.name} may not create the database {request.database}", hint)
        )
    warnings += _warnings(source, request, server, found, selection, one_transaction, new)
    return LoadPlan(
        source, request, selection, server, tools, _way(source, server, one_transaction, tools), jobs, one_transaction,
        new, globals_plan, found,
        replaced=tuple(shown_object((entry.namespace, entry.tag)) for entry in clashes) if request.clean else (),
        appended=_appended(selection, request, found),
        as_they_are=schemas,
        through_memory=source.kind is Kind.DIRECTORY and source.content.path is None,
        refusals=tuple(refusals),
        warnings=tuple(warnings),
    )  # fmt: skip


def _makes(entry: TocEntry) -> bool:
    """pg_dump has an item for the schema public that makes nothing."""
    return entry.definition != "" and not entry.definition.lstrip().startswith("--")


def _new_database(wishes: NewDatabase, server: TargetServer) -> tuple[NewDatabase, list[Notice], list[Notice]]:
    if supports(server, wishes):
        return wishes, [], []
    had = wishes.locale or wishes.collate
    text = (
        f"the dumped database sorted text by {had}{f' of {wishes.provider}' if wishes.provider else ''}, which this"
        f" server does not have: the new one sorts by {server.default_locale}"
    )
    hint = "generate that locale on the server's machine, or create the database yourself and load into it"
    return NewDatabase(encoding=wishes.encoding), [], [Notice("collation", text, hint)]


def _jobs(source: Source, request: LoadRequest, is_new: bool, processors: int) -> tuple[int, bool]:
    """(connections, whether all of it is one transaction)."""
    can_share = source.kind is Kind.DIRECTORY or (source.kind is Kind.CUSTOM and source.direct_path is not None)
    if source.kind is Kind.SCRIPT:
        return 1, True
    if is_new:
        return (request.jobs or processors if can_share else 1), False
    if request.jobs is not None and request.jobs > 1 and can_share:
        return request.jobs, False
    return 1, True


def _way(source: Source, server: TargetServer, one_transaction: bool, tools: ToolChoice) -> Way:
    """One transaction does not survive an error, so what `tolerance` names must not reach the server; and what is read
    from a stream must be known to be whole before it is committed, which psql does at the end of its input."""
    if source.kind is Kind.SCRIPT:
        return Way.PSQL
    if one_transaction and source.kind is not Kind.DIRECTORY and source.direct_path is None:
        return Way.RESTORE_TO_PSQL
    is_down = any(server.major < first <= tools.programs.major for _, first in IN_HEAD)
    return Way.RESTORE_TO_PSQL if one_transaction and is_down else Way.RESTORE


def _exist(clashes: list[TocEntry], request: LoadRequest) -> Notice:
    text = (
        f"{request.database} has {_some([f'{one.desc.lower()} {one.name}' for one in clashes])} already, and the dump"
        " would make them"
    )
    hint = "--clean drops them and makes them anew, --data-only adds rows to them; or load --into another database"
    return Notice("exists", text, hint)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _missing(
    source: Source, selection: Selection | None, request: LoadRequest, server: TargetServer, plan: GlobalsPlan | None
) -> list[Notice]:
    found = []
    roles = needed_roles(source, selection, request.chosen) - server.roles
    made = plan.creates_roles if plan is not None else frozenset()
    if lacking := sorted(roles - made):
        where = " (nor do the globals)" if plan is not None else ""
        text = f"the server has not the roles that own or use what is loaded: {_some(lacking)}{where}"
        hint = "--globals makes the dumped server's roles; or do without: --no-owner --no-acl"
        found.append(Notice("roles", text, hint))
    if request.role and request.role not in server.roles | made:
        found.append(Notice("roles", f"the server has no role {request.role}", "create it, or leave out --role"))
    extensions = needed_extensions(source, selection, request.chosen)
    if lacking := sorted(extensions - server.extensions.keys()):
        text = f"the server has not the extensions {_some(lacking)}"
        found.append(Notice("extensions", text, "install their packages on the server's machine, for its version"))
    spaces = needed_tablespaces(selection, request.chosen) - server.tablespaces
    made = plan.creates_tablespaces if plan is not None else frozenset()
    if lacking := sorted(spaces - made):
        text = f"the server has not the tablespaces {_some(lacking)}"
        hint = "create them, or load everything into the default one: --no-tablespaces"
        found.append(Notice("tablespaces", text, hint))
    return found


def _script_refusals(source: Source, request: LoadRequest, present: Present) -> list[Notice]:
    """What pg_restore can choose, a script cannot."""
    if source.kind is not Kind.SCRIPT or source.script is None:
        return []
    found = []
    chosen = request.chosen
    options = {
        "--table, --schema and their kin": not chosen.is_everything,
        "--schema-only": chosen.schema_only, "--data-only": chosen.data_only, "--clean": request.clean,
        "--no-owner": chosen.no_owner, "--no-acl": chosen.no_acl, "--role": bool(request.role),
    }  # fmt: skip
    if asked := [option for option, is_asked in options.items() if is_asked]:
        text = f"a script of plain SQL is loaded as it is: {', '.join(asked)} cannot be had of it"
        found.append(Notice("script", text, "dump it in custom or directory format"))
    if clashes := sorted(shown_object(name) for name in source.script.tables if name in present.relations):
        text = f"{request.database} has {_some(clashes)} already, and the script would make them"
        found.append(Notice("exists", text, "load --into another database"))
    return found


def _appended(selection: Selection | None, request: LoadRequest, present: Present) -> tuple[str, ...]:
    if selection is None or request.clean:
        return ()
    names = [(entry.namespace, entry.tag) for entry in selection.entries if entry.desc == "TABLE DATA"]
    return tuple(shown_object(name) for name in names if name in present.relations)


def _warnings(
    source: Source,
    request: LoadRequest,
    server: TargetServer,
    present: Present,
    selection: Selection | None,
    one_transaction: bool,
    new: NewDatabase | None,
) -> list[Notice]:
    found = []
    if source.server_major > server.major:
        text = (
            f"the dump is of PostgreSQL {source.server_version}, the server is {server.version}: what only the newer"
            " version knows ends the load"
        )
        found.append(Notice("older-server", text))
    if new is not None and source.toc is not None and source.server_major >= _PUBLIC_CLOSED > server.major:
        text = "before PostgreSQL 15 everybody may create objects in the schema public: the new database allows it"
        found.append(Notice("public-schema", text, "REVOKE CREATE ON SCHEMA public FROM PUBLIC after the load"))
    encoding = encoding_of(source)
    if encoding and present.encoding and encoding != present.encoding:
        text = f"the dump is in {encoding}, the database in {present.encoding}: characters that it lacks end the load"
        found.append(Notice("encoding", text))
    if selection is not None and selection.left_out:
        found.append(Notice("left-out", f"left out: {_some(list(selection.left_out))}"))
    if request.jobs is not None and request.jobs > 1 and one_transaction:
        why = "a script" if source.kind is Kind.SCRIPT else f"a {source.kind.value} archive"
        outside = f", compressed with {source.compression}" if source.compression else ""
        found.append(Notice("jobs", f"one connection: {why}{outside} cannot be read by several"))
    filled = list(_appended(selection, request, present))
    if filled and not request.chosen.schema_only:
        found.append(Notice("appended", f"rows are added to those of {_some(filled)}", "empty them first if not"))
    if major_of(source.program_version) == 0 and source.kind is Kind.SCRIPT:
        found.append(Notice("foreign", "nothing says that pg_dump made this script: its end cannot be checked"))
    return found
