"""`verify`: the whole repository of a cluster, read by as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor

from pgkeep.app.place import Place
from pgkeep.catalog import verification
from pgkeep.catalog.verification import VerifyReport
from pgkeep.clock import Clock
from pgkeep.events import Announce


def verify(place: Place, processes: int, clock: Clock, announce: Announce) -> VerifyReport:
    """Damage is in the report; faults are those of the store."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, initializer=_leave_interrupts_to_the_parent)
    try:
        return verification.verify(place.cluster, executor, clock, announce)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
