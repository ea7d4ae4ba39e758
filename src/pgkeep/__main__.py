"""The program's entry: `wal push` and `wal get` go the short way, everything else to the command line proper.

Nothing is imported here before that choice but what the short way needs itself.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from pgkeep.cli import fast

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process, and end it."""
    argv = sys.argv[1:]
    if not fast.is_wal_get(argv):
        try:
            sys.exit(_run(argv))
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
    from pgkeep.cli.main import run

    status = run(argv)
    # Only help and mistakes come this way: neither is an answer about a segment.
    return fast.OUTAGE if status and fast.is_wal_get(argv) else status


if __name__ == "__main__":
    main()
