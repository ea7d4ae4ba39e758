"""`pgkeep dump`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pgkeep.cli import completing
from pgkeep.cli.duedumps import make_due, refuse_beside_due
from pgkeep.cli.session import Session
from pgkeep.cli.types import PROCESSES, duration
from pgkeep.cli.verb import Verb, epilog
from pgkeep.errors import EXIT_OK, Fault

if TYPE_CHECKING:
    from pgkeep.app.dumpwords import DumpWords
    from pgkeep.logical.request import Chosen


@click.command(
    "dump",
    cls=Verb,
    short_help="Dump databases, into the repository or to a path.",
    epilog=epilog(
        [
            "pgkeep dump shop",
            "pgkeep dump shop --to /srv/shop.dump --format custom",
            'pgkeep dump shop --table "sales.*" --exclude-table sales.log --name sales',
            "pgkeep dump --all --dry-run          show the plan, dump nothing",
            "pgkeep dump --due --quiet            as cron runs it: what the configuration's schedules say",
        ],
        [0, 1, 2, 10, 11, 20, 130],
    ),
)
@click.argument("database", required=False)
@click.option("--all", "every", is_flag=True, help="Every database, and the globals once, as one dump.")
@click.option("--name", metavar="NAME", help="The set of dumps that it belongs to; the database's name otherwise.")
@click.option("--to", metavar="PATH", shell_complete=completing.files, help="Write it there, not into the repository.")
@click.option("-n", "--schema", "schemas", multiple=True, metavar="PATTERN", help="These schemas alone; repeatable.")
@click.option("-N", "--exclude-schema", "exclude_schemas", multiple=True, metavar="PATTERN", help="Not these schemas.")
@click.option("-t", "--table", "tables", multiple=True, metavar="PATTERN", help="These tables alone; repeatable.")
@click.option("-T", "--exclude-table", "exclude_tables", multiple=True, metavar="PATTERN", help="Not these tables.")
@click.option("--exclude-table-data", multiple=True, metavar="PATTERN", help="These tables without their rows.")
@click.option("--filter", metavar="FILE", shell_complete=completing.files, help="pg_dump's filter file (17 and newer).")
@click.option("--schema-only", is_flag=True, help="No rows.")
@click.option("--data-only", is_flag=True, help="Rows alone.")
@click.option("--no-owner", is_flag=True, help="Nobody is made the owner of anything.")
@click.option("--no-acl", is_flag=True, help="No GRANT and no REVOKE.")
@click.option("--format", "form", type=click.Choice(["directory", "custom", "plain"]), help="Directory otherwise.")
@click.option("--jobs", "-j", type=PROCESSES, metavar="N", help="Tables at one time; one for each core otherwise.")
@click.option("--compress", metavar="METHOD", help="As pg_dump's: zstd:3, gzip:6, lz4, none; the best there is.")
@click.option("--inserts", is_flag=True, help="INSERT statements: large, and slow to load; for other systems.")
@click.option(
    "--lock-timeout", callback=duration, metavar="DURATION", help="Give up on a locked table after this; it waits."
)
@click.option("--scratch", metavar="DIR", help="Where directory format passes through; memory otherwise.")
@click.option("--pg-version", type=click.IntRange(14, 18), metavar="N", help="Use pg_dump of this major version.")
@click.option("--due", is_flag=True, help="Make those dumps of the configuration that are due now, and nothing else.")
@click.option("--label", default="", metavar="TEXT", help="A word of your own, shown by list.")
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Dump DATABASE with PostgreSQL's own pg_dump: parallel, compressed, with roles and tablespaces beside it.

    It goes into the repository, where it is listed, verified and kept as backups are. Nothing lies on a disk in plain
    form on the way, also when pgkeep is killed. With --to it appears at that path when all of it is durable.

    Without DATABASE, the one set of dumps of the configuration is taken.
    """
    if given.pop("due"):
        refuse_beside_due(given)
        return make_due(session)
    from pgkeep.app.dump import DumpTarget, dump, prepare_dump
    from pgkeep.app.dumpwords import request_for
    from pgkeep.app.place import open_place
    from pgkeep.cli.render.dumping import plan_json, plan_text, result_json, result_text

    clock, out = session.around.clock, session.out
    settings = session.settings()
    cluster = settings.cluster(session.selection.cluster)
    request = request_for(cluster, _words(session, given))
    target = DumpTarget(_path(session, given["to"]), _path(session, given["scratch"]))
    place = None
    if target.to is None:
        place = open_place(settings, session.selection, clock, out.announce)
    prepared = prepare_dump(cluster, request, target, clock, place.cluster if place else None)
    url = place.repository.store.url if place else None
    if session.options.dry_run:
        fields = {"dry_run": True, "plan": plan_json(prepared.plan)}
        out.answer("dump", fields, lambda: plan_text(prepared.plan, url))
        return EXIT_OK
    result = dump(prepared, place, clock, out.announce)
    out.done("dump", result_json(result), lambda: result_text(result))
    return EXIT_OK


def _path(session: Session, given: str | None) -> str | None:
    return os.path.normpath(os.path.join(session.around.cwd, given)) if given else None


def _words(session: Session, given: Mapping[str, Any]) -> DumpWords:
    from pgkeep.app.dumpwords import DumpWords

    return DumpWords(
        database=given["database"],
        name=given["name"],
        every=given["every"],
        chosen=_chosen(session, given),
        format=given["form"],
        jobs=given["jobs"],
        compress=given["compress"],
        inserts=given["inserts"],
        lock_timeout=given["lock_timeout"],
        program_major=given["pg_version"],
        label=given["label"],
    )


def _chosen(session: Session, given: Mapping[str, Any]) -> Chosen:
    from pgkeep.logical.request import Chosen

    if given["schema_only"] and given["data_only"]:
        raise Fault("usage", "--schema-only and --data-only leave nothing", hint="leave out one of them")
    return Chosen(
        schemas=given["schemas"],
        exclude_schemas=given["exclude_schemas"],
        tables=given["tables"],
        exclude_tables=given["exclude_tables"],
        exclude_table_data=given["exclude_table_data"],
        filter=_path(session, given["filter"]),
        part="schema" if given["schema_only"] else "data" if given["data_only"] else "all",
        owner=not given["no_owner"],
        acl=not given["no_acl"],
    )
