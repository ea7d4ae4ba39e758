"""`pgkeep wal push` and `pgkeep wal get`: their help, and what is said of mistakes.

Well-formed calls never come here: `fast` serves them (see `pgkeep.__main__`).
"""

from __future__ import annotations

import click

from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, Verbs, epilog
from pgkeep.errors import Fault


@click.group(
    "wal", cls=Verbs, modules={"push": "wal:push", "get": "wal:get"}, short_help="Archive WAL, and get it back."
)
def command() -> None:
    """Archive WAL, and get it back: what PostgreSQL's archive_command and restore_command run."""


@click.command(
    "push",
    cls=Verb,
    short_help="Archive one WAL file (archive_command).",
    epilog=epilog(["archive_command = 'pgkeep --config /etc/pgkeep/pgkeep.toml wal push %p'"], [0, 1, 2, 10, 11]),
)
@click.argument("path")
@click.pass_obj
def push(session: Session, path: str) -> None:
    """Archive the WAL file at PATH, durably; run by the server, in its data directory.

    Exits 0 only when the repository holds exactly these bytes.  PostgreSQL keeps the file and asks again otherwise.
    """
    raise _mistake(session)


@click.command(
    "get",
    cls=Verb,
    short_help="Fetch one WAL file (restore_command).",
    epilog="\b\nExamples:\n  restore_command = 'pgkeep --config /etc/pgkeep/pgkeep.toml wal get %f %p'\n"
    "  restore_command = 'mv pg_wal/pgkeep.spool.1/%f %p 2>/dev/null ||\n"
    "    pgkeep --config /etc/pgkeep/pgkeep.toml wal get %f %p --spool pg_wal/pgkeep.spool.1'\n\n"
    "Exit status: 0 done · 1 the archive has no such file · 200 anything else. PostgreSQL takes 1 to 125 for the end"
    " of WAL, so an outage is never below 126.",
)
@click.argument("name")
@click.argument("destination")
@click.option("--lineage", metavar="FILE", help="What a restore wrote about the timelines that it follows.")
@click.option("--spool", metavar="DIR", help="Fetch ahead into this directory, which must lie in pg_wal.")
@click.pass_obj
def get(session: Session, name: str, destination: str, lineage: str | None, spool: str | None) -> None:
    """Write the WAL file NAME to DESTINATION, verified and durable; run by a server in recovery.

    With --spool a process in the background fetches the segments behind it, which restore_command then takes with mv.
    """
    raise _mistake(session)


def _mistake(session: Session) -> Fault:
    """Arguments that click takes and `fast` does not: options without a meaning here, empty values."""
    if session.options.dry_run:
        return Fault("usage", "wal push and wal get cannot be rehearsed", hint="leave out --dry-run")
    return Fault("usage", "an option has an empty value", hint="see: pgkeep wal --help")
