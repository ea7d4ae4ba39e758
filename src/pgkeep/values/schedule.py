"""Schedule: when something is due, as people write it: 'daily 02:30', 'weekly sun 03:00', or five fields of cron.

1. Times are those of a zone's clocks.  What falls into the hour that clocks leave out comes an hour later; what falls
   into the hour that they repeat comes once, the first time.
2. A schedule says when it was due last; whoever asks compares that with when it was done last.  So what was missed
   while a machine was off is done once, when it is on again.
3. Cron's rule for days: with both a day of the month and a day of the week, either makes it due (crontab(5)).

The standard library alone: the configuration is read by every `wal push`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_LONGEST: Final = 8 * 366
"""Days between two 29ths of February at most (1896 and 1904), and more."""
EXAMPLES: Final = "'hourly', 'daily 02:30', 'weekly sun 03:00', 'monthly 1 04:00' or cron's '30 2 * * *'"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which minutes, hours and days; days of the week count from Sunday, 0."""

    text: str
    """As it was written."""
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool = False
    """Both kinds of days were given, so that either counts."""

    def due_before(self, now: datetime, zone: tzinfo) -> datetime | None:
        """The last moment, not after `now`, at which it was due (aware, UTC); None when it never was."""
        today = now.astimezone(zone).date()
        for back in range(-1, _LONGEST):
            day = today - timedelta(days=back)
            if not self._is_on(day):
                continue
            for moment in self._moments(day, zone):
                if moment <= now:
                    return moment
        return None

    def due_after(self, now: datetime, zone: tzinfo) -> datetime | None:
        """The next moment after `now` at which it is due; None when there is none."""
        today = now.astimezone(zone).date()
        for ahead in range(-1, _LONGEST):
            day = today + timedelta(days=ahead)
            if not self._is_on(day):
                continue
            for moment in reversed(list(self._moments(day, zone))):
                if moment > now:
                    return moment
        return None

    def _is_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, (day.weekday() + 1) % 7 in self.weekdays
        return by_month or by_week if self.either_day else by_month and by_week

    def _moments(self, day: date, zone: tzinfo) -> Iterator[datetime]:
        """Of one day, the latest first."""
        moments = {
            datetime.combine(day, time(hour, minute), zone).astimezone(UTC)
            for hour in self.hours
            for minute in self.minutes
        }
        yield from sorted(moments, reverse=True)


def parse_schedule(text: str) -> Schedule:
    """ValueError, with a sentence for a person, for what is none."""
    words = text.lower().split()
    fields = words if len(words) == 5 else _as_cron(words)
    if fields is None:
        raise ValueError(f"not a schedule: {text!r} (expected a form like {EXAMPLES})")
    try:
        days, weekdays = _field(fields[2], 1, 31), _field(fields[4], 0, 7, _DAYS)
        schedule = Schedule(
            text,
            _field(fields[0], 0, 59),
            _field(fields[1], 0, 23),
            days,
            _field(fields[3], 1, 12, _MONTHS),
            frozenset(day % 7 for day in weekdays),
            not fields[2].startswith("*") and not fields[4].startswith("*"),
        )
    except ValueError as error:
        raise ValueError(f"not a schedule: {text!r} ({error}; expected a form like {EXAMPLES})") from None
    if schedule.due_after(datetime(2000, 1, 1, tzinfo=UTC), UTC) is None:
        raise ValueError(f"{text!r} is never due: no year has such a day")
    return schedule


def _as_cron(words: list[str]) -> list[str] | None:
    """The five fields of 'hourly', 'daily 02:30' and their like; None for anything else."""
    match words:
        case ["hourly"]:
            return ["0", "*", "*", "*", "*"]
        case ["daily", clock] if found := _CLOCK.fullmatch(clock):
            return [found[2], found[1], "*", "*", "*"]
        case ["weekly", day, clock] if found := _CLOCK.fullmatch(clock):
            return [found[2], found[1], "*", "*", day[:3] if _is_day(day) else "?"]
        case ["monthly", day, clock] if found := _CLOCK.fullmatch(clock):
            return [found[2], found[1], day, "*", "*"]
    return None


def _is_day(word: str) -> bool:
    whole = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
    return word in _DAYS or word in whole


def _field(text: str, least: int, most: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    """A field of cron: numbers or names, ranges, lists and steps."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isascii() and step.isdigit() and int(step)):
            raise ValueError(f"{part!r} has no step that is a number above 0")
        if span == "*":
            first, last = least, most
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, least, names)
            last = _number(end, least, names) if dash else (most if slash else first)
        if not least <= first <= last <= most:
            raise ValueError(f"{part!r} is not within {least} to {most}")
        found.update(range(first, last + 1, int(step) if slash else 1))
    return frozenset(found)


def _number(word: str, least: int, names: tuple[str, ...]) -> int:
    if word in names:
        return names.index(word) + least
    if not (word.isascii() and word.isdigit() and len(word) <= 2):
        raise ValueError(f"{word!r} is no number" + (f" and none of {', '.join(names)}" if names else ""))
    return int(word)
