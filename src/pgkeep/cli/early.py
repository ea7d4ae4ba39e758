"""What happens before the command line is read: signals get an answer, and the long jobs' worker processes begin.

1. The workers' imports take as long as those of the command line itself, and a machine with two cores does both at
   once.  A word that is no verb here (a file named `backup`) costs an idle process until the end of the command, and
   nothing else.
2. A signal in the first tenths of a second meets imports, in which a KeyboardInterrupt may be lost or end as a
   traceback.  Nothing has been done then, so the process says what `main` would say, and ends at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

INTERRUPTED: Final = "interrupted; earlier backups are as they were"
EXIT_INTERRUPTED: Final = 130
"""As errors.EXIT_INTERRUPTED, which is not imported here: a signal may come with its import."""

_WORKERS: Final = {"backup": "pgkeep.backup.worker", "restore": "pgkeep.restore.worker"}
_SHORT: Final = frozenset({"--help", "-h", "--dry-run", "--version"})


def stand_by() -> None:
    """SIGINT, SIGTERM and SIGHUP end the process with an answer, but for those that it ignores (nohup)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Written by hand: what writes for `main` may be half imported."""
    if "--json" in sys.argv[1:]:
        error = f'{{"code": "interrupted", "message": "{INTERRUPTED}", "hint": null, "context": {{}}}}'
        stream, answer = 1, f'{{"schema": 1, "error": {error}}}\n'
    else:
        stream, answer = 2, f"error: {INTERRUPTED}\n"
    try:
        os.write(stream, answer.encode())
    finally:
        os._exit(EXIT_INTERRUPTED)


def begin(argv: Sequence[str]) -> None:
    """Start the fork server of the verb in `argv`, if it has one and is not only asked for its help or plan."""
    # Workers divide the processor among themselves; a pool of numpy's own in each would only spin and cost memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    module = next((_WORKERS[word] for word in argv if word in _WORKERS), None)
    if module is None or not _SHORT.isdisjoint(argv):
        return
    from pgkeep.crew import prepare

    prepare(module)
