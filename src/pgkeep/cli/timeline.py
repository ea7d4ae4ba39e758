"""`pgkeep timeline`."""

from __future__ import annotations

import click

from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog


@click.command(
    "timeline",
    cls=Verb,
    short_help="Draw what can be recovered: windows, timelines, gaps.",
    epilog=epilog(["pgkeep timeline", "pgkeep --cluster billing timeline", "pgkeep timeline --json"], [0, 1, 2, 10]),
)
@click.pass_obj
def command(session: Session) -> None:
    """Show from when to when the cluster can be recovered, on which timelines, and why each window ends.

    The times are those of real transactions where the WAL could be read. If the server answers, the newest change that
    a lost disk would cost is shown too.
    """
    from pgkeep.app.place import available_processors, open_place
    from pgkeep.app.timeline import timeline
    from pgkeep.cli.render.lineages import report_json, report_text

    out, clock = session.out, session.around.clock
    place = open_place(session.settings(), session.selection, clock, out.announce)
    report = timeline(place, place.settings.processes or available_processors(), clock, out.announce)
    out.answer("timeline", report_json(report), lambda: report_text(report, out.width))
