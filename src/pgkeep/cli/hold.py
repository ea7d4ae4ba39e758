"""`pgkeep hold`."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from pgkeep.cli import completing
from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog
from pgkeep.errors import Fault

if TYPE_CHECKING:
    from pgkeep.format.deletion import PinInfo


@click.command(
    "hold",
    cls=Verb,
    short_help="Keep a backup, a dump or a span of time, whatever the policy says.",
    epilog=epilog(
        [
            "pgkeep hold                    list what is held",
            'pgkeep hold 20260507T112900Z-3f9a01c7 --note "before the migration"',
            'pgkeep hold --from "2026-05-07 12:00+03" --to "2026-05-07 18:00+03" --note "the incident"',
            "pgkeep hold --release 20260507T112900Z-3f9a01c7",
        ],
        [0, 1, 2, 10, 13],
    ),
)
@click.argument("backup", required=False, shell_complete=completing.roots)
@click.option("--from", "begin", metavar="TIME", help="Hold every moment from this one on, with a zone ...")
@click.option("--to", "end", metavar="TIME", help="... to this one.")
@click.option("--note", metavar="TEXT", help="Why: whoever comes across it in a year will want to know.")
@click.option("--release", is_flag=True, help="End all that is held on BACKUP.")
@click.option("--timeline", type=click.IntRange(1), metavar="N", help="Of the span, where several branches live.")
@click.pass_obj
def command(
    session: Session, backup: str | None, begin: str | None, end: str | None, note: str | None, release: bool,
    timeline: int | None,
) -> None:  # fmt: skip
    """Hold BACKUP, or every moment of a span of time, until it is released; without arguments, list what is held.

    BACKUP may be a logical dump too.

    A span keeps the newest backup that ended before it, and all WAL from there to its end. What can no longer be
    recovered is refused.
    """
    from pgkeep.app.hold import SpanWords, hold, hold_window, holds, release_hold
    from pgkeep.app.place import open_place
    from pgkeep.cli.render.holding import held_json, held_text, pin_json, pinned_text, released_text
    from pgkeep.cli.restore import local_zone

    clock, out, dry_run = session.around.clock, session.out, session.options.dry_run
    _check(backup, begin, end, note, release, timeline)
    place = open_place(session.settings(), session.selection, clock, out.announce)
    if backup is None and begin is None:
        found = holds(place, clock)
        out.answer("hold", {"held": held_json(found)}, lambda: held_text(found, place.cluster.name))
        return
    if release:
        assert backup is not None
        if dry_run:
            raise Fault("usage", "releasing deletes nothing, and cannot be rehearsed", hint="leave out --dry-run")
        was = release_hold(place, backup, _who(), clock)
        out.done("hold", {"released": pin_json(was)}, lambda: released_text(was))
        return
    if begin is not None and end is not None:
        words = SpanWords(begin, end, timeline, local_zone(session.around.environment))
        pin: PinInfo = hold_window(place, words, note or "", _who(), clock, dry_run=dry_run)
    else:
        assert backup is not None
        pin = hold(place, backup, note or "", _who(), clock, dry_run=dry_run)
    out.done("hold", {"dry_run": dry_run, "held": [pin_json(pin)]}, lambda: pinned_text(pin, dry_run=dry_run))


def _check(
    backup: str | None, begin: str | None, end: str | None, note: str | None, release: bool, timeline: int | None
) -> None:
    """Fault `usage` for options that do not go together."""
    if release:
        if backup is None or begin or end or note:
            raise Fault("usage", "--release takes the name of a backup and nothing else", hint="see: pgkeep hold")
        return
    if (begin is None) != (end is None):
        raise Fault("usage", "a span has two ends", hint="give both --from and --to")
    if backup is not None and begin is not None:
        raise Fault("usage", "hold a backup or a span, not both at once", hint="run it twice")
    if timeline is not None and begin is None:
        raise Fault("usage", "--timeline belongs to a span", hint="add --from and --to")
    if note is not None and backup is None and begin is None:
        raise Fault("usage", "--note without anything to hold", hint="name a backup, or --from and --to")
    if (backup is not None or begin is not None) and not (note or "").strip():
        raise Fault("usage", "a hold needs its reason", hint='add --note "before the migration"')


def _who() -> str:
    """The account and host, for whoever wonders later."""
    name = str(os.getuid())
    with suppress(KeyError):
        name = pwd.getpwuid(os.getuid()).pw_name
    return f"{name}@{os.uname().nodename}"
