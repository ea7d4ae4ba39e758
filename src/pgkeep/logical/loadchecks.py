"""What stands against a load, and what is to be said of it before it begins.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pgkeep.logical.loadneeds import needed_extensions, needed_roles, needed_tablespaces
from pgkeep.logical.loadrequest import LoadRequest, Notice
from pgkeep.logical.newdatabase import AboutDatabase, encoding_of
from pgkeep.logical.rolesplan import GlobalsPlan
from pgkeep.logical.selection import Selection
from pgkeep.logical.source import Kind, Source
from pgkeep.pg.dumptoc import TocEntry, major_of
from pgkeep.pg.sqltext import printable
from pgkeep.pg.target import NewDatabase, Present, TargetServer, shown_object

_SHOWN: Final = 5
_PUBLIC_CLOSED: Final = 15


def exists(clashes: list[TocEntry], request: LoadRequest) -> Notice:
    text = (
        f"{request.database} has {some([f'{one.desc.lower()} {one.name}' for one in clashes])} already, and the dump"
        " would make them"
    )
    hint = "--clean drops them and makes them anew, --data-only adds rows to them; or load --into another database"
    return Notice("exists", text, hint)


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(printable, names[:_SHOWN])) + more


def missing(
    source: Source, selection: Selection | None, request: LoadRequest, server: TargetServer, plan: GlobalsPlan | None,
    about: AboutDatabase,
) -> list[Notice]:  # fmt: skip
    """Roles, extensions and tablespaces that the load needs and the server has not; `about` is what is said of a new
    database."""
    found = []
    made = plan.creates_roles if plan is not None else frozenset()
    needed = needed_roles(source, selection, request.chosen) | about.needs
    if lacking := sorted(needed - server.roles - made):
        where = " (nor do the globals)" if plan is not None else ""
        text = f"the server has not the roles that own or use what is loaded: {some(lacking)}{where}"
        mapping = "--owner-map OLD=NEW lets another role stand for one; " if source.kind is not Kind.SCRIPT else ""
        hint = f"--globals makes the dumped server's roles; {mapping}or do without: --no-owner --no-acl"
        found.append(Notice("roles", text, hint))
    if request.role and request.role not in server.roles | made:
        found.append(Notice("roles", f"the server has no role {request.role}", "create it, or leave out --role"))
    extensions = needed_extensions(source, selection, request.chosen)
    if lacking := sorted(extensions - server.extensions.keys()):
        text = f"the server has not the extensions {some(lacking)}"
        found.append(Notice("extensions", text, "install their packages on the server's machine, for its version"))
    spaces = needed_tablespaces(selection, request.chosen) - server.tablespaces
    if lacking := sorted(spaces - (plan.creates_tablespaces.keys() if plan is not None else set())):
        text = f"the server has not the tablespaces {some(lacking)}"
        hint = "create them, or load everything into the default one: --no-tablespaces"
        found.append(Notice("tablespaces", text, hint))
    return found


_PLACES: Final = {"absent": "does not exist", "filled": "is not empty"}


def bad_places(plan: GlobalsPlan, places: Mapping[str, str]) -> list[Notice]:
    """Tablespaces that cannot be made where they were: `places` says of their directories what `read_place` does."""
    hint = (
        "make that directory, empty, the server's own; or create a tablespace of this name elsewhere, which is kept"
        " then; or do without: --no-tablespaces"
    )
    return [
        Notice("tablespaces", f"the tablespace {name} was in {where}, which {_PLACES[places[name]]} there", hint)
        for name, where in plan.creates_tablespaces.items()
        if places.get(name) in _PLACES
    ]


def script_refusals(source: Source, request: LoadRequest, present: Present) -> list[Notice]:
    """What pg_restore can choose, a script cannot."""
    if source.kind is not Kind.SCRIPT or source.script is None:
        return []
    found = []
    chosen = request.chosen
    options = {
        "--table, --schema and their kin": not chosen.is_everything,
        "--schema-only": chosen.schema_only, "--data-only": chosen.data_only, "--clean": request.clean,
        "--no-owner": chosen.no_owner, "--no-acl": chosen.no_acl, "--role": bool(request.role),
        "--owner-map": bool(request.owners),
    }  # fmt: skip
    if asked := [option for option, is_asked in options.items() if is_asked]:
        text = f"a script of plain SQL is loaded as it is: {', '.join(asked)} cannot be had of it"
        found.append(Notice("script", text, "dump it in custom or directory format"))
    if clashes := sorted(shown_object(name) for name in source.script.tables if name in present.relations):
        text = f"{request.database} has {some(clashes)} already, and the script would make them"
        found.append(Notice("exists", text, "load --into another database"))
    return found


def _of_encodings(dump: str, database: str) -> Notice:
    if dump == "SQL_ASCII":
        text = f"the dump says no encoding (SQL_ASCII): its text is taken for {database}, and what is not ends the load"
        return Notice("encoding", text, "load it into a database of the encoding that its text is in: --encoding")
    if database == "SQL_ASCII":
        text = f"the database is in SQL_ASCII: it takes the text in {dump} as it is, and checks nothing from then on"
        return Notice("encoding", text)
    text = f"the dump is in {dump}, the database in {database}: characters that it lacks end the load"
    return Notice("encoding", text)


def _unshared(source: Source) -> str:
    outside = f", compressed with {source.compression}" if source.compression else ""
    return "a script" + outside if source.kind is Kind.SCRIPT else f"a {source.kind.value} archive{outside}"


def warnings(
    source: Source,
    request: LoadRequest,
    server: TargetServer,
    present: Present,
    selection: Selection | None,
    one_transaction: bool,
    new: NewDatabase | None,
    appended: Sequence[str],
    about: AboutDatabase,
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
        found.append(_of_encodings(encoding, present.encoding))
    if selection is not None and selection.left_out:
        found.append(Notice("left-out", f"left out: {some(list(selection.left_out))}"))
    if request.jobs is not None and request.jobs > 1 and one_transaction and not request.changes_archive:
        found.append(Notice("jobs", f"one connection: {_unshared(source)} cannot be read by several"))
    if request.changes_archive and source.kind is Kind.CUSTOM and source.direct_path is not None:
        what = "its other owners" if request.owners else "the name of its encoding"
        text = f"one connection: a custom archive gets {what} while it is read"
        found.append(Notice("jobs", text, "a dump in directory format is loaded by several, even so"))
    if about.left_out:
        text = f"settings for the roles {some(about.left_out)} in this database are left out: the server has not them"
        found.append(Notice("role-settings", text))
    if appended and not request.chosen.schema_only:
        found.append(Notice("appended", f"rows are added to those of {some(appended)}", "empty them first if not"))
    if major_of(source.program_version) == 0 and source.kind is Kind.SCRIPT:
        found.append(Notice("foreign", "nothing says that pg_dump made this script: its end cannot be checked"))
    return found
