"""`pgkeep demo`: the whole story on a throwaway server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog
from pgkeep.errors import Fault


@click.command(
    "demo",
    cls=Verb,
    short_help="See it work: a dropped table and its recovery.",
    epilog=epilog(["pgkeep demo", "pgkeep demo --keep --directory /srv/pgkeep-demo"], [0, 1, 14, 130]),
)
@click.option("--keep", is_flag=True, help="Leave the files in place, to look around.")
@click.option("--directory", metavar="DIR", help="Where it plays: absent or empty; a temporary one otherwise.")
@click.pass_obj
def command(session: Session, keep: bool, directory: str | None) -> int:
    """Make a server, back it up, drop a table, recover to the moment before, and prove that every row is back.

    It needs no configuration and no network, listens on no port, and touches nothing outside its directory. It needs
    PostgreSQL 14 to 18 on this machine, or: pip install 'pgkeep[demo]'
    """
    from pgkeep.cli.render.story import Story
    from pgkeep.cli.scenes import Play

    if session.options.dry_run:
        raise Fault("usage", "the demo touches nothing of yours, and cannot be rehearsed", hint="leave out --dry-run")
    story = Story(session.out, session.around.clock)
    with _home(directory, keep=keep) as home, ExitStack() as stack:
        return Play(session, story, home, stack, keep=keep).run()


@contextmanager
def _home(directory: str | None, *, keep: bool) -> Iterator[Path]:
    """The directory of the demo; what was made is removed at the end, unless it is kept."""
    home = Path(tempfile.mkdtemp(prefix="pgkeep-demo-", dir="/tmp")) if directory is None else _empty(directory)
    try:
        yield home
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


def _empty(directory: str) -> Path:
    home = Path(directory).absolute()
    try:
        home.mkdir(exist_ok=True)
        is_empty = not any(home.iterdir())
    except OSError as error:
        raise Fault("io", f"{home} cannot be used: {error.strerror}") from error
    if not is_empty:
        raise Fault("target-not-empty", f"{home} is not empty", hint="name a directory that is absent or empty")
    return home
