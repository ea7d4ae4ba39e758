"""KeepPolicy: the line `keep = { daily = 7, weekly = 4, monthly = 12, yearly = 0, last = 3, wal = "7d" }`.

The standard library alone: the configuration is read by every `wal push`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

PERIODS: Final = ("daily", "weekly", "monthly", "yearly")


@dataclass(frozen=True, slots=True)
class KeepPolicy:
    """How many backups of each period stay, and for how long any moment can be recovered to.

    `daily = 7` keeps the newest backup of each of the last seven days *that have a backup*; weeks are ISO weeks, and
    `last = 3` keeps the newest three whatever their days.  `wal` None: all WAL from the oldest kept backup on stays.
    """

    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    last: int = 0
    wal: timedelta | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many of each period."""
        return {"daily": self.daily, "weekly": self.weekly, "monthly": self.monthly, "yearly": self.yearly}

    @property
    def keeps_backups(self) -> bool:
        """False when no rule keeps a backup."""
        return bool(self.last or any(self.counts.values()))

    def describe(self) -> str:
        """'7 daily, 4 weekly, last 3, WAL of 7 days'."""
        wal = "all WAL from the oldest of them on" if self.wal is None else f"WAL of {show_span(self.wal)}"
        return f"{self.describe_counts()}, {wal}"

    def describe_counts(self) -> str:
        """'7 daily, 4 weekly, last 3': what it says of dumps."""
        parts = [f"{count} {period}" for period, count in self.counts.items() if count]
        return ", ".join([*parts, *([f"last {self.last}"] if self.last else [])])


def show_span(span: timedelta) -> str:
    """'7 days', '12 hours', '90 minutes': in the largest unit that is whole."""
    seconds = span.total_seconds()
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0 or size == 1:
            count = seconds / size
            return f"{count:g} {unit}" if count == 1 else f"{count:g} {unit}s"
    raise AssertionError("unreachable")
