"""`wal push` and `wal get` without click and rich: PostgreSQL runs them once for every segment.

Rules of this file:

1. It serves well-formed calls only; help and mistakes go to click (`parse` returns None).
2. What goes wrong is said on stderr in the words of `render.output`: that is the server's log.
3. `wal get` answers 1 for "no such file" alone.  Everything else that fails is above 125, because PostgreSQL takes
   1 to 125 for the end of WAL and opens the server (RestoreArchivedFile in xlogarchive.c).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

OUTAGE: Final = 200
"""A failed `wal get` that is not known to be "no such file"; wal.get.EXIT_FAILED, without its imports."""
_WITH_VALUE: Final = ("--config", "--cluster", "--repo", "--lineage")
_FLAGS: Final = ("--json", "--quiet", "-v", "--verbose", "--no-color", "--yes")
_OPERANDS: Final = {"push": 1, "get": 2}


class WalCall(NamedTuple):
    """`wal push PATH` or `wal get NAME DESTINATION`, with the options that matter to them."""

    action: str
    operands: list[str]
    options: dict[str, str]
    verbose: bool


def is_wal_get(argv: Sequence[str]) -> bool:
    """True when PostgreSQL may be waiting for this exit status; rather once too often."""
    return "wal" in argv and "get" in argv[argv.index("wal") + 1 :]


def version() -> int:
    """`pgkeep --version`: a restore asks it of the restored server's account, so it is quick too."""
    from pgkeep import __version__

    print(f"pgkeep {__version__}")
    return 0


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
    if "" in options.values() or ("--lineage" in options and words[1] != "get"):
        return None
    return WalCall(words[1], words[2:], options, verbose)


def serve(call: WalCall) -> int:
    """The exit status; nothing is raised but KeyboardInterrupt."""
    try:
        return _push(call) if call.action == "push" else _get(call)
    except Exception as error:
        return _failed(call, error)


def _push(call: WalCall) -> int:
    from pgkeep.app.archive import Access, wal_push

    wal_push(Access(_config(call), os.environ, call.options.get("--repo")), call.operands[0])
    return 0


def _get(call: WalCall) -> int:
    from pgkeep.app.archive import Access, wal_get

    name, destination = call.operands
    access = Access(_config(call), os.environ, call.options.get("--repo"))
    outcome = wal_get(access, name, destination, call.options.get("--lineage"))
    say(*(f"warning: {note}" for note in outcome.notes))
    return outcome.status.value


def _config(call: WalCall) -> str:
    from pgkeep.config.find import find

    named = os.environ.get("PGKEEP_CONFIG")
    return find(call.options.get("--config"), named, os.getcwd(), os.path.expanduser("~"))


def _failed(call: WalCall, error: Exception) -> int:
    from pgkeep.errors import Fault

    if isinstance(error, Fault):
        say(f"error: {error.message}", f"hint: {error.hint}" if error.hint else "")
        status = error.exit_status
    else:
        say(f"error: internal error: {type(error).__name__}: {error}", "hint: run it again with -v, and report that")
        status = 1
    if call.verbose:
        import traceback

        say(traceback.format_exc())
    return OUTAGE if call.action == "get" else status


def say(*lines: str) -> None:
    """Lines to stderr; a closed or full stderr must change no exit status."""
    try:
        for line in filter(None, lines):
            sys.stderr.write(line.encode(errors="backslashreplace").decode() + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
