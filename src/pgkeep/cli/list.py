"""`pgkeep list`."""

from __future__ import annotations

import click

from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog


@click.command(
    "list",
    cls=Verb,
    short_help="Show the backups and what they can be recovered to.",
    epilog=epilog(["pgkeep list", "pgkeep --cluster billing list", "pgkeep list --json"], [0, 1, 2, 10]),
)
@click.pass_obj
def command(session: Session) -> None:
    """Show every backup, whether its WAL is complete, and until when it can be recovered.

    RECOVERABLE UNTIL is when the last unbroken WAL was archived: every commit before it is safe.
    """
    from pgkeep.app.place import open_place
    from pgkeep.catalog.backups import backup_rows
    from pgkeep.cli.render.backups import backups_json, backups_text

    clock, out = session.around.clock, session.out
    place = open_place(session.settings(), session.selection, clock, out.announce)
    rows = backup_rows(place.cluster)
    name = place.cluster.name
    out.answer("list", backups_json(name, rows), lambda: backups_text(name, rows, clock.now(), out.width))
