"""How this program runs its interpreter: less search for garbage, and an end that does not tidy up what ends anyway.

Imports alone make some 80,000 containers that stay.  CPython looks through them for cycles now and then, and takes
them apart one by one at the end: a fifth of a second in a job of two (docs/performance.md).
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from typing import Final, NoReturn

_YOUNG: Final = 100_000
"""Containers that are made before cycles are looked for: 700 by default."""
_FAILED_FLUSH: Final = 120
"""What CPython exits with when standard output could not be written at the end."""


def spare_collection() -> None:
    """Cycles are looked for seldom from now on; what is without cycles goes at once, as always."""
    gc.set_threshold(_YOUNG, 20, 20)


def end(status: int) -> NoReturn:
    """End the process as `sys.exit` would from the main thread, but for the taking apart of modules and objects.

    What it did is done, and its answer given: nobody's signal changes the status now.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or _FAILED_FLUSH
    os._exit(status)
