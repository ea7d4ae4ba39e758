"""`wal push` and `wal get` without click and rich: PostgreSQL runs them once for every segment.

Rules of this file:

1. It serves well-formed calls only; help and mistakes go to click (`parse` returns None).
2. What goes wrong is said on stderr in the words of `render.output`: that is the server's log.
3. `wal get` answers 1 for "no such file" alone.  Everything else that fails is above 125, because PostgreSQL takes
   1 to 125 for the end of WAL and opens the server (RestoreArchivedFile in xlogarchive.c).
4. A `wal push` of what is archived already, if wal/archived.sh could not say so, ends after `wal.marker` has.  Until
   then nothing is imported but what an interpreter has loaded when it starts: even typing costs as much again as that.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

OUTAGE: Final = 200
"""A failed `wal get` that is not known to be "no such file"; wal.get.EXIT_FAILED, without its imports."""
_WITH_VALUE: Final = ("--config", "--cluster", "--repo", "--lineage", "--spool")
_OF_GET: Final = ("--lineage", "--spool")
_FLAGS: Final = ("--json", "--quiet", "-v", "--verbose", "--no-color", "--yes")
_OPERANDS: Final = {"push": 1, "get": 2, "prefetch": 1}


class WalCall:
    """`wal push PATH` or `wal get NAME DESTINATION`, with the options that matter to them.

    `wal prefetch SPOOL` is what a `wal get` starts; nobody types it.
    """

    __slots__ = ("action", "operands", "options", "verbose")

    def __init__(self, action: str, operands: list[str], options: dict[str, str], verbose: bool) -> None:
        self.action = action
        self.operands = operands
        self.options = options
        self.verbose = verbose


def is_wal_get(argv: Sequence[str]) -> bool:
    """True when PostgreSQL may be waiting for this exit status; rather once too often."""
    return "wal" in argv and "get" in argv[argv.index("wal") + 1 :]


def version() -> int:
    """`pgkeep --version`: a restore asks it of the restored server's account, so it is quick too."""
    from pgkeep import __version__

    print(f"pgkeep {__version__}")
    return 0


def add_packages() -> None:
    """Let packages be imported, where the interpreter was started without `site` to save its time (-S)."""
    if sys.flags.no_site and "site" not in sys.modules:
        import site

        site.main()


def parse(argv: Sequence[str]) -> WalCall | None:
    """The call, or None for anything that click should answer."""
    words: list[str] = []
    options: dict[str, str] = {}
    verbose = False
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in _WITH_VALUE:
            options[name] = value if equals else next(rest, "")
        elif word in _FLAGS:
            verbose |= word in ("-v", "--verbose")
        elif word.startswith("-"):
            return None
        else:
            words.append(word)
    if len(words) < 2 or words[0] != "wal" or len(words) != 2 + _OPERANDS.get(words[1], -1):
        return None
    if "" in options.values() or (words[1] == "push" and not options.keys().isdisjoint(_OF_GET)):
        return None
    return WalCall(words[1], words[2:], options, verbose)


def serve(call: WalCall) -> int:
    """The exit status; nothing is raised but KeyboardInterrupt."""
    try:
        return _ACTIONS[call.action](call)
    except Exception as error:
        return _failed(call, error)


def _push(call: WalCall) -> int:
    from pgkeep.wal import marker

    path = call.operands[0]
    if marker.await_archived(path, call.options, os.environ):
        return 0
    add_packages()
    from pgkeep.app.push import wal_push

    config = _config(call)
    command = sys.orig_argv[:-1] if sys.orig_argv[-1] == path else ()
    terms = marker.terms(call.options, os.environ, config, _passed(call, config), command)
    wal_push(config, os.environ, call.options.get("--repo"), path, terms)
    return 0


def _get(call: WalCall) -> int:
    name, destination = call.operands
    spool = call.options.get("--spool")
    if spool is not None and _take(spool, name, destination):
        return 0
    add_packages()
    from pgkeep.app.archive import Access, wal_get

    access = Access(_config(call), os.environ, call.options.get("--repo"))
    served = wal_get(access, name, destination, call.options.get("--lineage"), spool)
    say(*(f"warning: {note}" for note in served.outcome.notes))
    if spool is not None and served.fetch_ahead:
        _start_prefetch(call, spool)
    return served.outcome.status.value


def _take(spool: str, name: str, destination: str) -> bool:
    """True when the file has come into the spool since restore_command looked there."""
    from pgkeep.wal.spool import Spool

    place = Spool(spool)
    return place.belongs_to(os.curdir) and place.take(name, destination)


def _start_prefetch(call: WalCall, spool: str) -> None:
    """Let this program run on as `wal prefetch`; PostgreSQL waits for this process alone.

    It stays in the session of the startup process, so that it knows when recovery ends (wal/prefetch.py).
    """
    given = [word for name in _WITH_VALUE if name != "--spool" and name in call.options
             for word in (name, call.options[name])]  # fmt: skip
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    try:
        os.posix_spawn(sys.executable, [*program, *given, "wal", "prefetch", spool], os.environ, file_actions=nowhere)
    except OSError as error:
        say(f"warning: WAL is not fetched ahead: {error.strerror}")


def _prefetch(call: WalCall) -> int:
    """Ends with 0 whatever happens: as a container's first process the server inherits this one, and would take any
    other end for a crash of its own (CleanupBackend in postmaster.c)."""
    import signal

    add_packages()
    from pgkeep.app.archive import Access, wal_prefetch

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        _close_inherited()
        access = Access(_config(call), os.environ, call.options.get("--repo"))
        wal_prefetch(access, call.operands[0], call.options.get("--lineage"))
    finally:
        os._exit(0)


def _close_inherited() -> None:
    """The startup process leaves its files open to restore_command; kept open, a removed one would keep its space."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:  # the descriptor of this very listing
                continue


def _config(call: WalCall) -> str:
    from pgkeep.config.find import find

    named = os.environ.get("PGKEEP_CONFIG")
    return find(call.options.get("--config"), named, os.getcwd(), os.path.expanduser("~"))


def _passed(call: WalCall, config: str) -> Sequence[str]:
    """Where a configuration would have counted more than the one that was found, had there been one."""
    if call.options.get("--config") or os.environ.get("PGKEEP_CONFIG"):
        return ()
    from pgkeep.config.find import candidates

    usual = candidates(os.getcwd(), os.path.expanduser("~"))
    return usual[: usual.index(config)] if config in usual else ()


def _say_backlog(path: str) -> None:
    """While archiving fails the disk fills: when, the server's log should say before it happens."""
    add_packages()
    from pgkeep.app.push import waiting_wal

    if sentence := waiting_wal(path):
        say(f"warning: {sentence}")


def _failed(call: WalCall, error: Exception) -> int:
    from pgkeep.errors import Fault

    if isinstance(error, Fault):
        say(f"error: {error.message}", f"hint: {error.hint}" if error.hint else "")
        status = error.exit_status
    else:
        say(f"error: internal error: {type(error).__name__}: {error}", "hint: run it again with -v, and report that")
        status = 1
    if call.action == "push":
        _say_backlog(call.operands[0])
    if call.verbose:
        import traceback

        say(traceback.format_exc())
    return OUTAGE if call.action == "get" else status


_ACTIONS: Final = {"push": _push, "get": _get, "prefetch": _prefetch}


def say(*lines: str) -> None:
    """Lines to stderr; a closed or full stderr must change no exit status."""
    try:
        for line in filter(None, lines):
            sys.stderr.write(line.encode(errors="backslashreplace").decode() + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
