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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from pgkeep.logical.loadchecks import bad_places, exists, missing, script_refusals, warnings
from pgkeep.logical.loadrequest import LoadRequest, Notice, is_streamed
from pgkeep.logical.newdatabase import AboutDatabase, about_new_database
from pgkeep.logical.rolesplan import GlobalsPlan
from pgkeep.logical.selection import Selection
from pgkeep.logical.source import TOC, Kind, Source
from pgkeep.logical.tolerance import IN_HEAD
from pgkeep.pg.dumptoc import TocEntry
from pgkeep.pg.target import NewDatabase, Present, TargetServer, shown_object, supports
from pgkeep.pg.tools import ToolChoice, knows_restrict, restrict_fault

_RELATIONS: Final = frozenset({"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"})
_FUNCTIONS: Final = frozenset({"FUNCTION", "PROCEDURE", "AGGREGATE"})
_TYPES: Final = frozenset({"TYPE", "DOMAIN"})


class Way(Enum):
    """Which programs load it."""

    RESTORE = "pg_restore"
    RESTORE_TO_PSQL = "pg_restore to psql"
    PSQL = "psql"


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
    laid_out: int
    """Bytes that are laid out for pg_restore first: a directory of the repository, or what stands for the table of
    contents of one where owners are mapped."""
    refusals: tuple[Notice, ...]
    warnings: tuple[Notice, ...]

    @property
    def database(self) -> str:
        return self.request.database

    @property
    def is_streamed(self) -> bool:
        """pg_restore reads the archive from a pipe, or psql the script."""
        return is_streamed(self.source, self.request)

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
        if self.one_transaction and self.source.script is not None and not self.source.script.by_pg_dump:
            return "nothing: it is one transaction, unless the script ends it by itself (COMMIT)"
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
            "owner_map": dict(self.request.owners),
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
    notices: Sequence[Notice] = (),
    places: Mapping[str, str] = MappingProxyType({}),
) -> LoadPlan:
    """`present` None: the database does not exist, and is made as `wishes` says as far as the server can.  `notices`
    were found before, and are warnings; `places` says of the directories of tablespaces that would be made what
    `read_place` has found."""
    new, refusals, known = (None, [], []) if present is not None else _new_database(wishes, server)
    found = present or Present(encoding=new.encoding if new is not None else "")
    jobs, one_transaction = _jobs(source, request, new is not None, processors)
    entries = selection.entries if selection is not None else ()
    existing = [entry for entry in entries if _makes(entry) and is_there(found, entry)]
    schemas = (
        frozenset(entry.dump_id for entry in existing if entry.desc == "SCHEMA") if not request.clean else frozenset()
    )
    clashes = [entry for entry in existing if entry.dump_id not in schemas and entry.desc != "EXTENSION"]
    if clashes and not request.clean:
        refusals.append(exists(clashes, request))
    roles = server.roles | (globals_plan.creates_roles if globals_plan is not None else frozenset())
    about = about_new_database(source, request, roles, request.database) if new is not None else AboutDatabase()
    filled = _appended(selection, request, found)
    refusals += missing(source, selection, request, server, globals_plan, about)
    if globals_plan is not None:
        refusals += bad_places(globals_plan, places)
    refusals += script_refusals(source, request, found)
    if new is not None and not server.role.may_create_databases:
        hint = "connect as a role with CREATEDB, or let somebody create the database and load into it"
        refusals.append(
            Notice("rights", f"the role {server.role.name} may not create the database {request.database}", hint)
        )
    way = _way(source, request, server, one_transaction, tools)
    if way is not Way.RESTORE and not knows_restrict(tools.programs):
        fault = restrict_fault(tools.programs)
        refusals.append(Notice("psql-version", fault.message, fault.hint))
    known += notices
    known += warnings(source, request, server, found, selection, one_transaction, new, filled, about)
    return LoadPlan(
        source, request, selection, server, tools, way, jobs, one_transaction, new, globals_plan, found,
        replaced=tuple(shown_object((entry.namespace, entry.tag)) for entry in clashes) if request.clean else (),
        appended=filled,
        as_they_are=schemas,
        laid_out=_laid_out(source, request),
        refusals=tuple(refusals),
        warnings=tuple(known),
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


def _laid_out(source: Source, request: LoadRequest) -> int:
    if source.kind is not Kind.DIRECTORY:
        return 0
    if source.content.path is None:
        return source.size
    return source.content.parts[TOC] if request.changes_archive else 0


def _jobs(source: Source, request: LoadRequest, is_new: bool, processors: int) -> tuple[int, bool]:
    """(connections, whether all of it is one transaction)."""
    can_share = source.kind is Kind.DIRECTORY or (source.kind is Kind.CUSTOM and not is_streamed(source, request))
    if source.kind is Kind.SCRIPT:
        return 1, True
    if is_new:
        return (request.jobs or processors if can_share else 1), False
    if request.jobs is not None and request.jobs > 1 and can_share:
        return request.jobs, False
    return 1, True


def _way(source: Source, request: LoadRequest, server: TargetServer, one_transaction: bool, tools: ToolChoice) -> Way:
    """One transaction does not survive an error, so what `tolerance` names must not reach the server; and what is read
    from a stream must be known to be whole before it is committed, which psql does at the end of its input."""
    if source.kind is Kind.SCRIPT:
        return Way.PSQL
    if one_transaction and is_streamed(source, request):
        return Way.RESTORE_TO_PSQL
    is_down = any(server.major < first <= tools.programs.major for _, first in IN_HEAD)
    return Way.RESTORE_TO_PSQL if one_transaction and is_down else Way.RESTORE


def _appended(selection: Selection | None, request: LoadRequest, present: Present) -> tuple[str, ...]:
    if selection is None or request.clean:
        return ()
    names = [(entry.namespace, entry.tag) for entry in selection.entries if entry.desc == "TABLE DATA"]
    return tuple(shown_object(name) for name in names if name in present.relations)
