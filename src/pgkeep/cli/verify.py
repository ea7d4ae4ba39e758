"""`pgkeep verify`."""

from __future__ import annotations

import click

from pgkeep.cli.session import Session
from pgkeep.cli.types import PROCESSES
from pgkeep.cli.verb import Verb, epilog
from pgkeep.errors import EXIT_OK, EXIT_VERIFY


@click.command(
    "verify",
    cls=Verb,
    short_help="Read and re-hash everything that is stored.",
    epilog=epilog(["pgkeep verify", "pgkeep verify --json --quiet"], [0, 1, 2, 10, 14, 130]),
)
@click.option("--processes", type=PROCESSES, metavar="N", help="Worker processes; one for each core otherwise.")
@click.pass_obj
def command(session: Session, processes: int | None) -> int:
    """Read every pack, manifest and WAL segment, check every hash, and look for gaps in the WAL.

    Of dumps also the tables of contents are read: what they name must be there. Damage is reported for each backup and
    each dump that it costs, and the exit status is 14. The server is not touched.
    """
    from pgkeep.app.place import available_processors, open_place
    from pgkeep.app.verify import verify
    from pgkeep.cli.render.verification import report_json, report_text

    clock = session.around.clock
    place = open_place(session.settings(), session.selection, clock, session.out.announce)
    chosen = processes or place.settings.processes or available_processors()
    report = verify(place, chosen, clock, session.out.announce)
    session.out.answer("verify", report_json(report), lambda: report_text(report))
    return EXIT_OK if report.is_sound else EXIT_VERIFY
