"""`verify`: the whole repository of a cluster, read by as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

from pgkeep.app.place import Place
from pgkeep.catalog import verification
from pgkeep.catalog.verification import VerifyReport
from pgkeep.clock import Clock
from pgkeep.crew import interrupts_held
from pgkeep.events import Announce
from pgkeep.logical.probe import dump_problems


def verify(place: Place, processes: int, clock: Clock, announce: Announce) -> VerifyReport:
    """Damage is in the report; faults are those of the store."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, initializer=_end_with_the_parent)
    try:
        with interrupts_held():
            executor.submit(_start).result()  # the first task starts all processes
        return verification.verify(place.cluster, executor, clock, announce, dump_problems)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _end_with_the_parent() -> None:
    """A pool's workers hold their own queue open: they would wait for ever for a parent that was killed."""
    threading.Thread(target=_wait_for_the_parent, daemon=True).start()


def _wait_for_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start() -> None:
    """Nothing to do."""
