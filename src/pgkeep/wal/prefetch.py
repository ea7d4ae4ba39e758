"""Prefetching: one process that keeps the spool filled while a server recovers.

1. It fetches what the server will ask for next: along the restore's lineage and no further than the plan knew, or
   without a lineage along the timeline that was asked for.  Whole segments only: partials, histories and the end of
   WAL are for `wal get` to judge.
2. It is never an authority.  What it cannot get it leaves out, whatever the reason; `wal get` then asks the repository.
3. It trusts nothing that an earlier process left in the spool.
4. It runs ahead by itself as files leave.  `wal get` leaves a note with each segment that it had to serve: from there
   on recovery reads, so there the window begins anew.
5. It ends when recovery has ended, when the last segment is there, when one is missing, when anything fails, or when
   nothing has left the spool for a while; the next `wal get` starts another.  The lock lets one run at a time.

Recovery is one process: the startup process leads a session of its own (InitPostmasterChild in miscinit.c) in which
restore_command runs.  Who leads the prefetcher's session is therefore who reads the WAL.
"""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.values.wal import Segment
from pgkeep.wal.landing import is_running
from pgkeep.wal.prefetchplan import MOST_BYTES, SHARE, Way, Window, plan_step, room_for
from pgkeep.wal.spool import Spool

_THREADS: Final = 2
"""One waits for the disk or the store while the other unpacks; more would share one interpreter all the same."""
_POLL_SECONDS: Final = 0.01
_IDLE_SECONDS: Final = 30.0


def free_memory() -> int:
    """Bytes that can be had without swapping (MemAvailable of proc(5)); plenty where the kernel does not say."""
    with suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return SHARE * MOST_BYTES


def fill(archive: WalArchive, spool: Spool, lineage: RecoveryLineage | None, clock: Clock) -> None:
    """Keep the spool filled until one of the reasons of rule 5; OSError when the spool cannot be used."""
    lock = spool.lock()
    if lock is None:
        return
    try:
        spool.empty()
        _Filler(archive, spool, lineage, clock).run()
        with suppress(FileNotFoundError):
            spool.withdraw_all()
    finally:
        os.close(lock)


class _Outcome(Enum):
    """What became of an order."""

    FETCHED = "fetched"
    MISSING = "missing"
    FAILED = "failed"


class _Filler:
    """One prefetcher: `run` decides in the calling thread, threads of its own fetch what it orders."""

    def __init__(self, archive: WalArchive, spool: Spool, lineage: RecoveryLineage | None, clock: Clock) -> None:
        self._archive = archive
        self._spool = spool
        self._lineage = lineage
        self._clock = clock
        self._leader = os.getsid(0)
        self._mark = ""
        self._way: Way | None = None
        self._window = Window(0, 0, 0)
        self._held: dict[int, str] = {}
        self._coming: set[int] = set()
        self._orders: queue.SimpleQueue[Segment] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Segment, _Outcome]] = queue.SimpleQueue()
        self._found_end = False
        self._is_over = False
        self._moved = clock.monotonic()

    def run(self) -> None:
        for _ in range(_THREADS):
            threading.Thread(target=self._serve, daemon=True).start()
        with suppress(FileNotFoundError):  # recovery has ended and removed the spool
            while self._goes_on():
                self._follow()
                self._clock.sleep(_POLL_SECONDS)
        self._is_over = True

    def _goes_on(self) -> bool:
        if not is_running(self._leader):
            self._spool.remove()
            return False
        is_idle = self._clock.monotonic() - self._moved > _IDLE_SECONDS
        is_last = self._way is not None and (self._found_end or not self._way.allows(self._window.next))
        return not (self._is_over or is_idle or (is_last and not self._coming))

    def _follow(self) -> None:
        """One look at the spool, and what follows from it."""
        self._settle()
        self._look()
        noted = self._spool.asked()
        if noted is not None and noted[1] != self._mark:
            self._begin_behind(Segment.parse(noted[0], self._archive.segment_size), noted[1])
        if self._way is not None and not self._found_end:
            self._order(self._way)

    def _settle(self) -> None:
        """Take in what the threads have done."""
        with suppress(queue.Empty):
            while True:
                segment, outcome = self._done.get_nowait()
                self._coming.discard(segment.number)
                self._found_end |= outcome is _Outcome.MISSING
                self._is_over |= outcome is _Outcome.FAILED

    def _look(self) -> None:
        size = self._archive.segment_size
        held = {Segment.parse(name, size).number: name for name in self._spool.names()}
        if held != self._held:
            self._held, self._moved = held, self._clock.monotonic()
        disk = os.statvfs(self._spool.path)
        room = room_for(size, free_memory(), disk.f_frsize * disk.f_bavail, len(held) * size)
        self._window = replace(self._window, room=room)

    def _begin_behind(self, asked: Segment, mark: str) -> None:
        """Recovery reads on from `asked`: give up what it will not come to soon."""
        self._mark, self._moved, self._found_end = mark, self._clock.monotonic(), False
        self._way = Way.of(self._lineage, asked, self._archive.segment_size)
        begin = asked.number + 1
        self._window = Window(begin, begin, self._window.room)
        with suppress(queue.Empty):
            while True:
                self._coming.discard(self._orders.get_nowait().number)
        for number, name in list(self._held.items()):
            is_near = begin <= number < begin + self._window.room
            if not is_near or name != self._way.segment(number).name(self._archive.segment_size):
                self._discard(number)

    def _order(self, way: Way) -> None:
        step = plan_step(way, self._window, self._held, self._coming)
        for number in step.discard:
            self._discard(number)
        self._window = replace(self._window, next=step.next)
        for number in step.fetch:
            self._coming.add(number)
            self._orders.put(way.segment(number))

    def _discard(self, number: int) -> None:
        self._spool.discard(self._held.pop(number))

    def _serve(self) -> None:
        """A thread: fetch what is ordered, one after another."""
        while True:
            segment = self._orders.get()
            if self._is_over:
                return
            try:
                self._fetch(segment)
                outcome = _Outcome.FETCHED
            except Fault as fault:
                outcome = _Outcome.MISSING if fault.code == "object-missing" else _Outcome.FAILED
            except Exception:
                outcome = _Outcome.FAILED  # a full disk, most of all; whatever it is, `wal get` will meet it and say so
            self._done.put((segment, outcome))

    def _fetch(self, segment: Segment) -> None:
        name = segment.name(self._archive.segment_size)
        self._spool.announce(name)
        try:
            self._spool.add(name, self._archive.segment(segment))
        finally:
            self._spool.withdraw(name)
