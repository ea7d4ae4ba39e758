"""The only reader of the wall clock; everything else is handed a Clock, so that tests can bend time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(Protocol):
    """Wall time for records, monotonic time for durations and time-outs."""

    def now(self) -> datetime:
        """The present moment, always in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes backwards, and goes on while the machine is suspended."""
        ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        # CLOCK_MONOTONIC stands still in suspend on Linux: a laptop that wakes up would believe in its old lease.
        return time.clock_gettime(_BOOTTIME) if _BOOTTIME is not None else time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
