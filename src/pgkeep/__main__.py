"""The program's entry: `wal push` and `wal get` go the short way, everything else to the command line proper.

1. Nothing is imported here before that choice but what the short way needs itself.
2. It may be started as a file by an interpreter without `site` (`python -SP .../pgkeep/__main__.py`, cli/program.py):
   the directories of installed packages are then added by whoever needs one (`fast.add_packages`).
"""

from __future__ import annotations

import os
import sys

if not __package__:
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from pgkeep.cli import fast
from pgkeep.interpreter import end, spare_collection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process, and end it."""
    argv = sys.argv[1:]
    if not fast.is_wal_get(argv):
        try:
            end(_run(argv))
        except KeyboardInterrupt:  # before the command line was read, or after its answer was given
            sys.exit(_INTERRUPTED)
    # PostgreSQL is waiting.  The interpreter's own exit statuses (1 for an exception, 120 for a failed flush) would
    # tell it that the archive has no such file, so no way leads out of here but this one.
    status = fast.OUTAGE
    try:
        status = _run(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        fast.say(f"error: {type(error).__name__}: {error}")
        status = fast.OUTAGE
    os._exit(status)


def _run(argv: list[str]) -> int:
    if argv == ["--version"]:
        return fast.version()
    call = fast.parse(argv)
    if call is not None:
        return fast.serve(call)
    from pgkeep.cli import early

    is_get = fast.is_wal_get(argv)
    if not is_get:  # PostgreSQL tells a restore_command that a SIGTERM ended from every other end
        early.stand_by()
    fast.add_packages()
    spare_collection()
    early.begin(argv)
    from pgkeep.cli.main import run

    status = run(argv)
    # Only help and mistakes come this way: neither is an answer about a segment.
    return fast.OUTAGE if status and is_get else status


if __name__ == "__main__":
    main()
