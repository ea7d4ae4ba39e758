"""`pgkeep load`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgkeep.cli import completing
from pgkeep.cli.ask import confirm
from pgkeep.cli.session import Session
from pgkeep.cli.types import PROCESSES
from pgkeep.cli.verb import Verb, epilog
from pgkeep.errors import EXIT_FAILED, EXIT_OK, Fault

if TYPE_CHECKING:
    from pgkeep.app.load import LoadChoices
    from pgkeep.app.place import Place
    from pgkeep.logical.loadplan import LoadPlan


@click.command(
    "load",
    cls=Verb,
    short_help="Load a dump into a database.",
    epilog=epilog(
        [
            "pgkeep load latest --into shop_copy --jobs 4",
            'pgkeep load latest --name shop --server "host=localhost" --into shop --globals',
            "pgkeep load customer-prod.dump --into customer --no-owner --no-acl",
            "pgkeep load old.sql.gz --into old",
            "pgkeep load latest --into shop --table shop.orders --clean       one table, replaced",
            "pgkeep load latest --into shop_copy --dry-run       show the plan, change nothing",
        ],
        [0, 1, 2, 3, 10, 14, 20, 130],
    ),
)
@click.argument("source", shell_complete=completing.files)
@click.option("--into", "into", metavar="DATABASE", required=True, help="The database; made when it does not exist.")
@click.option("--server", metavar="CONNINFO", help="The server; the configuration's otherwise, or libpq's own.")
@click.option("--name", "set_name", metavar="SET", help="With SOURCE latest: of this set of dumps.")
@click.option("--database", metavar="NAME", help="Of a dump of several databases: this one.")
@click.option(
    "-t", "--table", "tables", multiple=True, metavar="PATTERN", help="Only this table, with what is its own."
)
@click.option("-n", "--schema", "schemas", multiple=True, metavar="PATTERN", help="Only what is in this schema.")
@click.option("-T", "--exclude-table", "exclude_tables", multiple=True, metavar="PATTERN", help="Not this table.")
@click.option("-N", "--exclude-schema", "exclude_schemas", multiple=True, metavar="PATTERN", help="Not this schema.")
@click.option("--schema-only", is_flag=True, help="No rows.")
@click.option("--data-only", is_flag=True, help="Only rows, into tables that exist.")
@click.option("--clean", is_flag=True, help="Drop what the dump makes before it is made.")
@click.option("--no-owner", is_flag=True, help="Everything belongs to who loads it.")
@click.option("--no-acl", is_flag=True, help="No privileges.")
@click.option(
    "--owner-map", "owners", multiple=True, metavar="OLD=NEW", help="What OLD owns and may belongs to NEW; repeatable."
)
@click.option("--no-tablespaces", is_flag=True, help="Everything into the default tablespace.")
@click.option("--no-publications", is_flag=True, help="No publications.")
@click.option("--role", metavar="ROLE", default="", help="Become this role first; with --no-owner everything is its.")
@click.option("--globals", "with_globals", is_flag=True, help="Make the roles and tablespaces that are missing.")
@click.option(
    "--globals-file", metavar="FILE", default="", help="The same, from a script of pg_dumpall --globals-only."
)
@click.option("--disable-triggers", is_flag=True, help="With --data-only: no triggers, no foreign keys meanwhile.")
@click.option("--encoding", metavar="NAME", default="", help="Of a new database; the dump's otherwise.")
@click.option("--jobs", "-j", type=PROCESSES, metavar="N", help="Connections; one a core into a new database.")
@click.option("--keep", is_flag=True, help="Keep a new database that could not be filled.")
@click.option("--scratch", metavar="DIR", default="", help="Where a dump is laid out; the machine's memory otherwise.")
@click.option("--bindir", metavar="DIR", help="Where pg_restore and psql are, if not in a usual place.")
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Load SOURCE into a database of this or another version.

    SOURCE is a dump of the repository (its id, the beginning of it, or latest) or a file or directory: an archive of
    pg_dump in any format, or plain SQL, compressed or not.

    A database that does not exist is made, filled in parallel, and has its name when it is whole: a load that fails
    leaves none behind. Into one that exists, everything is one transaction unless --jobs is given. The plan is
    shown; you are asked before a database that is not empty is touched, and --yes answers.
    """
    from pgkeep.app.load import carry_out, check, prepared
    from pgkeep.app.place import open_place
    from pgkeep.cli.render.loading import plan_text, result_json, result_text

    out, clock = session.out, session.around.clock
    choices = _choices(session, given)

    def locate() -> Place:
        return open_place(session.settings(), session.selection, clock, out.announce)

    with prepared(choices, locate, clock, out.announce) as ready:
        plan = ready.plan
        if session.options.dry_run:
            out.answer("load", {"dry_run": True, "plan": plan.as_json()}, lambda: plan_text(plan))
            return EXIT_FAILED if plan.refusals else EXIT_OK
        out.tell(lambda: plan_text(plan))
        check(plan)
        if plan.needs_consent and not confirm(session, _question(plan)):
            out.tell(lambda: "nothing was changed")
            return EXIT_FAILED
        result = carry_out(ready, clock, out.announce)
    out.done("load", result_json(result), lambda: result_text(result))
    return EXIT_OK


def _question(plan: LoadPlan) -> str:
    what = f"DROP {len(plan.replaced)} of its objects and make them anew?" if plan.replaced else "load into it?"
    return f"{plan.database} on {plan.server.shown} is not empty: {what}"


def _choices(session: Session, given: Mapping[str, Any]) -> LoadChoices:
    from pgkeep.app.load import LoadChoices
    from pgkeep.logical.loadrequest import LoadRequest
    from pgkeep.logical.ownermap import parse_owner_map
    from pgkeep.logical.selection import Chosen

    if given["schema_only"] and given["data_only"]:
        raise Fault("usage", "--schema-only and --data-only exclude each other", hint="leave out one of them")
    if given["disable_triggers"] and not given["data_only"]:
        raise Fault("usage", "--disable-triggers needs --data-only", hint="add --data-only, or leave it out")
    if given["owners"] and given["no_owner"]:
        raise Fault("usage", "--owner-map and --no-owner exclude each other", hint="leave out one of them")
    if given["clean"] and given["data_only"]:
        raise Fault("usage", "--clean and --data-only exclude each other", hint="leave out one of them")
    cwd = session.around.cwd
    conninfo, bindir = _server(session, given)
    names = ("tables", "schemas", "exclude_tables", "exclude_schemas")
    flags = ("schema_only", "data_only", "no_owner", "no_acl", "no_tablespaces", "no_publications")
    return LoadChoices(
        source=given["source"] if given["source"] == "latest" else _path(cwd, given["source"]),
        request=LoadRequest(
            database=given["into"],
            chosen=Chosen(**{name: given[name] for name in (*names, *flags)}),
            jobs=given["jobs"],
            clean=given["clean"],
            role=given["role"],
            keep=given["keep"],
            disable_triggers=given["disable_triggers"],
            owners=parse_owner_map(given["owners"]),
        ),
        conninfo=conninfo,
        set_name=given["set_name"],
        database=given["database"],
        with_globals=given["with_globals"],
        globals_file=str(Path(cwd, given["globals_file"])) if given["globals_file"] else "",
        encoding=given["encoding"],
        scratch=str(Path(cwd, given["scratch"])) if given["scratch"] else "",
        bindir=bindir,
    )


def _path(cwd: str, source: str) -> str:
    """The file's path when there is one; else the word itself, which may be an id."""
    path = Path(cwd, source)
    return str(path) if path.exists() else source


def _server(session: Session, given: Mapping[str, Any]) -> tuple[str, Path | None]:
    """(connection string, bindir): from the options, else from the configuration where there is one."""
    bindir = Path(session.around.cwd, given["bindir"]) if given["bindir"] else None
    try:
        configured = session.settings().cluster(session.selection.cluster)
    except Fault as fault:
        if fault.code != "config-missing" or session.options.config:
            raise
        return given["server"] or "", bindir
    return given["server"] or configured.connection, bindir or (Path(configured.bindir) if configured.bindir else None)
