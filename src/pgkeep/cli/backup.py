"""`pgkeep backup`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

import click

from pgkeep.cli.session import Session
from pgkeep.cli.types import PROCESSES, duration
from pgkeep.cli.verb import Verb, epilog
from pgkeep.config.settings import Checkpoint
from pgkeep.errors import EXIT_OK, EXIT_PARTIAL

if TYPE_CHECKING:
    from pgkeep.backup.detection import Mode


@click.command(
    "backup",
    cls=Verb,
    short_help="Take a backup of a running cluster.",
    epilog=epilog(
        ["pgkeep backup", "pgkeep backup --label before-upgrade", "pgkeep backup --mode full --checkpoint spread"],
        [0, 1, 2, 3, 10, 20, 130],
    ),
)
@click.option("--label", default="pgkeep", metavar="TEXT", help="A word of your own, shown by list.")
@click.option("--checkpoint", type=click.Choice(["fast", "spread"]), help="Begin at once, or spare the disks.")
@click.option(
    "--mode",
    type=click.Choice(["auto", "full", "rescan", "lsn", "summaries"]),
    default="auto",
    show_default=True,
    help="How to find what has changed, at best; full stores everything again.",
)
@click.option("--processes", type=PROCESSES, metavar="N", help="Worker processes; one for each core otherwise.")
@click.option("--archive-timeout", callback=duration, metavar="TIME", help="How long to wait for the last WAL (10min).")
@click.pass_obj
def command(
    session: Session,
    label: str,
    checkpoint: str | None,
    mode: str,
    processes: int | None,
    archive_timeout: timedelta | None,
) -> int:
    """Take a physical backup while the cluster runs; it exists when this says so, and is complete with its WAL.

    Every backup is whole and restores without the others; pages that have not changed are not stored again.

    Exits 3 when the backup exists but holds pages that are damaged in the server itself.
    """
    from pgkeep.app.backup import BackupChoices, backup, plan_backup
    from pgkeep.app.place import open_place
    from pgkeep.cli.render.backup import plan_json, plan_text, result_json, result_text

    clock, out = session.around.clock, session.out
    choices = BackupChoices(
        label=label,
        checkpoint=cast(Checkpoint | None, checkpoint),
        mode=cast("Mode", mode),
        processes=processes,
        archive_timeout=archive_timeout.total_seconds() if archive_timeout is not None else None,
    )
    place = open_place(session.settings(), session.selection, clock, out.announce)
    if session.options.dry_run:
        plan = plan_backup(place, choices)
        out.answer("backup", plan_json(plan), lambda: plan_text(plan, place))
        return EXIT_OK
    result = backup(place, choices, clock, out.announce)
    out.done("backup", result_json(result), lambda: result_text(result))
    return EXIT_PARTIAL if result.info.bad_pages else EXIT_OK
