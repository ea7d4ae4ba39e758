"""From argv to an exit status: the one place where errors become words."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from pgkeep import __version__
from pgkeep.cli import early
from pgkeep.cli.options import Options
from pgkeep.cli.session import Session, Surroundings
from pgkeep.cli.verb import Verbs, epilog
from pgkeep.clock import SystemClock
from pgkeep.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, Fault

VERBS = {
    "init": "init",
    "backup": "backup",
    "list": "list",
    "timeline": "timeline",
    "restore": "restore",
    "verify": "verify",
    "prune": "prune",
    "hold": "hold",
    "dump": "dump",
    "load": "load",
    "wal": "wal",
    "demo": "demo",
    "completion": "completion",
}


@click.group(
    cls=Verbs,
    modules=VERBS,
    is_top=True,
    epilog=epilog(
        ["pgkeep demo", "pgkeep init", "pgkeep backup", 'pgkeep restore /srv/restored --time "2026-05-07 14:29:00+03"'],
        [0, 1, 2, 3, 10, 11, 12, 13, 14, 20, 130],
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="pgkeep", message="%(prog)s %(version)s")
def pgkeep() -> None:
    """Keep PostgreSQL recoverable: every backup is full, stores only changed pages, and can be proven.

    \b
    See it work:        pgkeep demo
    Protect a server:   pgkeep init, then pgkeep backup
    Get it back:        pgkeep restore DIRECTORY --time "2026-05-07 14:29:00+03"
    A database alone:   pgkeep dump DATABASE
    """


def run(argv: Sequence[str], around: Surroundings | None = None) -> int:
    """Run one command line to its exit status; nothing is raised."""
    here = around or surroundings()
    session = Session(here, Options(json="--json" in argv, no_color="--no-color" in argv))
    with _terminating_as_interrupt():
        status = _run(argv, session)
        try:
            session.out.close()
        except Fault as fault:
            session.out.complain(fault)
            return status or fault.exit_status
    return status


def surroundings() -> Surroundings:
    """The real ones.  Text that the terminal's encoding lacks is escaped instead of ending a job."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return Surroundings(os.environ, _cwd(), os.path.expanduser("~"), SystemClock(), sys.stdout, sys.stderr)


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed under us
        return "/"


def _run(argv: Sequence[str], session: Session) -> int:
    try:
        status = pgkeep.main(list(argv), prog_name="pgkeep", standalone_mode=False, obj=session)
        return status if isinstance(status, int) else EXIT_OK
    except Fault as fault:
        session.out.fail(fault)
        if session.options.verbose:
            session.out.trace(traceback.format_exc())
        return fault.exit_status
    except (KeyboardInterrupt, click.Abort):
        session.out.fail(Fault("interrupted", early.INTERRUPTED))
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        session.around.stderr.write(f"{error.format_message()}\n")
        return EXIT_USAGE
    except click.ClickException as error:
        session.out.fail(_usage(error))
        return EXIT_USAGE
    except Exception as error:
        session.out.fail(_internal(error))
        if session.options.verbose:
            session.out.trace(traceback.format_exc())
        return EXIT_FAILED


def _usage(error: click.ClickException) -> Fault:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    verb = context.command_path if context is not None else "pgkeep"
    return Fault("usage", message[:1].lower() + message[1:], hint=f"see: {verb} --help")


def _internal(error: Exception) -> Fault:
    return Fault(
        "internal",
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a mistake in pgkeep; run the command again with -v and report what it prints",
    )


@contextmanager
def _terminating_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that every clean-up runs; who ignores one (nohup) still does.

    From here on there may be something to clean up, so `early` does not answer any more.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) in (signal.SIG_DFL, early.leave)]
    for number in numbers:
        signal.signal(number, interrupt)
    if signal.getsignal(signal.SIGINT) is early.leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
