"""`verify`: the whole repository of a cluster, read by as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from pgkeep.app.place import Place
from pgkeep.catalog import verification
from pgkeep.catalog.verification import VerifyReport
from pgkeep.clock import Clock
from pgkeep.crew import interrupts_held
from pgkeep.events import Announce


def verify(place: Place, processes: int, clock: Clock, announce: Announce) -> VerifyReport:
    """Damage is in the report; faults are those of the store."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context)
    try:
        with interrupts_held():
            executor.submit(_start).result()  # the first task starts all processes
        return verification.verify(place.cluster, executor, clock, announce)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Nothing to do."""
