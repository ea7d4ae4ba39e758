"""`pgkeep restore`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgkeep.cli import completing
from pgkeep.cli.ask import confirm
from pgkeep.cli.program import hook_command
from pgkeep.cli.session import Session
from pgkeep.cli.types import PROCESSES
from pgkeep.cli.verb import Verb, epilog
from pgkeep.errors import EXIT_FAILED, EXIT_OK, Fault

if TYPE_CHECKING:
    from pgkeep.app.restore import RestoreChoices, StandbyWords, TargetWords
    from pgkeep.config.settings import Settings

OVERWRITING = {
    "keep": "rename what is there and restore beside it?",
    "delta": "rewrite this directory in place?",
    "replace": "DELETE what is in this directory, and restore into it?",
}
TARGETS = ("time", "lsn", "xid", "name", "immediate", "latest")


@click.command(
    "restore",
    cls=Verb,
    short_help="Bring a cluster back, as it was at any moment.",
    epilog=epilog(
        [
            'pgkeep restore /srv/restored --time "2026-05-07 14:29:00+03" --start',
            "pgkeep restore /srv/restored --xid 8273645 --exclusive --start",
            "pgkeep restore /srv/restored --dry-run          show the plan, write nothing",
            "pgkeep restore /srv/restored --tablespace-map /srv/fast=/srv/restored-fast",
            "pgkeep restore /var/lib/postgresql/17/main --delta          rewrite only what differs",
            'pgkeep restore /srv/replica --standby --primary "host=db1 user=replicator" --slot replica_1 --start',
        ],
        [0, 1, 2, 10, 13, 14, 130],
    ),
)
@click.argument("directory")
@click.option("--time", metavar="TIME", help="The state at this moment; a zone is needed: 2026-05-07 14:29:00+03.")
@click.option("--lsn", metavar="LSN", help="The state at this WAL position.")
@click.option("--xid", metavar="XID", help="The state after this transaction (with --exclusive: just before it).")
@click.option("--name", metavar="NAME", help="The restore point made with pg_create_restore_point.")
@click.option("--immediate", is_flag=True, help="The end of the backup: the quickest.")
@click.option("--latest", is_flag=True, help="The end of the archived WAL: the default.")
@click.option("--exclusive", is_flag=True, help="Stop just before --time, --lsn or --xid.")
@click.option(
    "--backup",
    metavar="ID",
    shell_complete=completing.backups,
    help="Begin with this backup; the newest that fits otherwise.",
)
@click.option("--timeline", type=click.IntRange(1), metavar="N", help="Follow this timeline; the newest otherwise.")
@click.option("--tablespace-map", "maps", multiple=True, metavar="OLD=NEW", help="Where a tablespace goes; repeatable.")
@click.option("--action", type=click.Choice(["promote", "pause", "shutdown"]), default="promote", help="At the target.")
@click.option("--delta", is_flag=True, help="Rewrite the data directory there in place: only what differs.")
@click.option("--replace", is_flag=True, help="Delete the data directory there; it is renamed and kept otherwise.")
@click.option("--standby", is_flag=True, help="Make a replica that follows its primary.")
@click.option("--primary", metavar="CONNINFO", help="The replica's primary; the configuration's connection otherwise.")
@click.option("--slot", metavar="NAME", help="The replica's replication slot on the primary.")
@click.option("--start", is_flag=True, help="Start the server, follow its recovery, and say where it ended.")
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="N", help="Of the restored server; a free one otherwise."
)
@click.option("--bindir", metavar="DIR", help="Where PostgreSQL's programs are, if not in a usual place.")
@click.option("--processes", type=PROCESSES, metavar="N", help="Worker processes; one for each core otherwise.")
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Restore into DIRECTORY, to any moment between a backup's end and the newest WAL.

    Nothing else is written: no running server, no other cluster's tablespace, no production setting is touched. The
    restored server archives nothing and listens on its own socket alone.

    A stopped server's data directory may be there: its WAL that was not archived is saved first, and it is renamed
    and kept (or see --delta, --replace). The plan is shown, and you are asked; --yes answers.
    """
    from pgkeep.app.place import available_processors, open_place
    from pgkeep.app.restore import carry_out, get_ready, plan
    from pgkeep.cli.render.restoring import plan_text, result_json, result_text

    out, settings = session.out, session.settings()
    place = open_place(settings, session.selection, session.around.clock, out.announce)
    choices = _choices(session, settings, given, place.settings.processes or available_processors())
    if not session.options.dry_run:
        get_ready()
    prepared = plan(place, choices, session.around.clock, out.announce, dry_run=session.options.dry_run)
    if session.options.dry_run:
        out.answer("restore", {"dry_run": True, "plan": prepared.plan.as_json()}, lambda: plan_text(prepared.plan))
        return EXIT_OK
    out.tell(lambda: plan_text(prepared.plan))
    over = prepared.plan.over
    if over is not None and not confirm(session, f"{prepared.plan.directory}: {OVERWRITING[over.how.value]}"):
        out.tell(lambda: "nothing was changed")
        return EXIT_FAILED
    result = carry_out(prepared, session.around.clock, out.announce, start=given["start"])
    out.done("restore", result_json(result), lambda: result_text(result))
    return EXIT_OK


def _choices(session: Session, settings: Settings, given: Mapping[str, Any], processes: int) -> RestoreChoices:
    from pgkeep.app.restore import RestoreChoices
    from pgkeep.restore.present import How
    from pgkeep.restore.settings import Action
    from pgkeep.restore.tablespaces import parse_mapping

    options = ["--config", settings.path, "--cluster", settings.cluster(session.selection.cluster).name]
    if session.selection.repo:
        options += ["--repo", session.selection.repo]
    return RestoreChoices(
        directory=os.path.join(session.around.cwd, given["directory"]),
        target=_target(given),
        program=hook_command(session.around.environment),
        options=options,
        local_zone=local_zone(session.around.environment),
        backup=given["backup"],
        action=Action(given["action"]),
        tablespaces=dict(parse_mapping(text) for text in given["maps"]),
        port=given["port"],
        bindir=Path(session.around.cwd, given["bindir"]) if given["bindir"] else None,
        processes=given["processes"] or processes,
        how=How.DELTA if given["delta"] else How.REPLACE if given["replace"] else How.KEEP,
        standby=_standby(given),
    )


def _standby(given: Mapping[str, Any]) -> StandbyWords | None:
    """Whom a replica follows; Fault `usage` together with what a replica does not have."""
    from pgkeep.app.restore import StandbyWords

    if given["delta"] and given["replace"]:
        raise Fault("usage", "--delta and --replace exclude each other", hint="leave out one of them")
    if not given["standby"]:
        if lone := [name for name in ("primary", "slot") if given[name]]:
            raise Fault("usage", f"--{lone[0]} needs --standby", hint="add --standby")
        return None
    targets = [name for name in (*TARGETS, "exclusive", "timeline") if given[name]]
    if targets or given["action"] != "promote":
        option = targets[0] if targets else "action"
        raise Fault(
            "usage",
            f"--{option} does not go with --standby: a replica follows its primary and stops nowhere",
            hint="leave out one of them",
        )
    return StandbyWords(given["primary"] or "", given["slot"] or "")


def _target(given: Mapping[str, Any]) -> TargetWords:
    """The one target among the options; Fault `usage` for several."""
    from pgkeep.app.restore import TargetWords
    from pgkeep.restore.target import TargetKind

    named = [name for name in TARGETS if given[name]]
    if len(named) > 1:
        options = " and ".join(f"--{name}" for name in named)
        raise Fault("usage", f"{options} name several targets, expected one", hint="leave out all but one")
    kind = TargetKind(named[0]) if named else TargetKind.LATEST
    text = given[kind.value] if isinstance(given[kind.value], str) else ""
    return TargetWords(kind, text, given["exclusive"], given["timeline"])


def local_zone(environment: Mapping[str, str]) -> str:
    """The name of this machine's time zone: TZ, else where /etc/localtime points; '' when neither tells (tzset(3))."""
    named = environment.get("TZ", "").removeprefix(":")
    if named and not named.startswith("/"):
        return named
    _, found, name = os.path.realpath(named or "/etc/localtime").partition("/zoneinfo/")
    return name if found else ""
