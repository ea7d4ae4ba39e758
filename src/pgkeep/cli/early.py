"""The long jobs' worker processes, begun before the command line is read.

Their imports take as long as those of the command line itself, and a machine with two cores does both at once.  A word
that is no verb here (a file named `backup`) costs an idle process until the end of the command, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

_WORKERS: Final = {"backup": "pgkeep.backup.worker", "restore": "pgkeep.restore.worker"}
_SHORT: Final = frozenset({"--help", "-h", "--dry-run", "--version"})


def begin(argv: Sequence[str]) -> None:
    """Start the fork server of the verb in `argv`, if it has one and is not only asked for its help or plan."""
    # Workers divide the processor among themselves; a pool of numpy's own in each would only spin and cost memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    module = next((_WORKERS[word] for word in argv if word in _WORKERS), None)
    if module is None or not _SHORT.isdisjoint(argv):
        return
    from pgkeep.crew import prepare

    prepare(module)
