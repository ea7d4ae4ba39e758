"""A clock that tests wind by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_BEGAN = datetime(2026, 5, 7, 11, 29, tzinfo=UTC)


class HandClock:
    """Stands still until somebody sleeps on it or sets `seconds`; `slept` lists the pauses in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return _BEGAN + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
