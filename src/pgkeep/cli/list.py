"""`pgkeep list`."""

from __future__ import annotations

import click

from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog


@click.command(
    "list",
    cls=Verb,
    short_help="Show the backups and dumps, what they reach, cost, and why they stay.",
    epilog=epilog(["pgkeep list", "pgkeep --cluster billing list", "pgkeep list --json"], [0, 1, 2, 10]),
)
@click.pass_obj
def command(session: Session) -> None:
    """Show every backup: what it can be recovered to, how its changes were found, what it cost, and why it is kept.

    AGE since it ended; HOW changes were found (full, rescan, lsn, summaries); CHANGED pages that it stored itself; NEW
    bytes that it stored; SIZE of what it restores; FREES what deleting it alone would free. WAL is complete, missing,
    has a gap later, or is the backup's own, when the policy keeps no more behind it.

    Then every logical dump: its SET, its DATABASE, the size of its SOURCE on the server, and why it is kept.
    """
    from pgkeep.app.listing import listing
    from pgkeep.app.place import open_place
    from pgkeep.cli.render.backups import backups_json, backups_text
    from pgkeep.cli.restore import local_zone

    clock, out = session.around.clock, session.out
    place = open_place(session.settings(), session.selection, clock, out.announce)
    report = listing(place, local_zone(session.around.environment), clock)
    out.answer("list", backups_json(report), lambda: backups_text(report, clock.now(), out.width))
