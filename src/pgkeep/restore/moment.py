"""Moments as people write them: read without guessing a time zone, shown as PostgreSQL shows them.

1. A moment needs a zone: an offset, `Z`, an abbreviation (MSK) or a name (Europe/Moscow).  Without one it is refused
   with the readings that it could have, ready to be pasted.
2. An abbreviation means the offset that zones call so *at that moment*, looked up over all zones of the time zone data
   base; when they disagree (IST, CST) it is refused with every reading.  A zone that calls itself so only in the other
   half of the year counts too: PST in May is the Philippines' to the letter, and Los Angeles' in most people's minds.
3. A local time that a zone skips or has twice (daylight saving) is refused with both readings.
4. `UTC+3` is refused: POSIX, and so PostgreSQL, reads it as three hours *west* of Greenwich.
5. Fractions are kept to microseconds, as timestamptz keeps them; digits beyond are cut off, towards the earlier moment.

Pure, but for reading the time zone data base.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pgkeep.errors import Fault

_MOMENT: Final = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})(?:[ T]+|t)(?P<time>\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)\s*(?P<zone>.*)",
    re.ASCII,
)
_OFFSET: Final = re.compile(
    r"(?P<sign>[+-])(?P<hours>\d{1,2})(?::?(?P<minutes>\d{2}))?(?::?(?P<seconds>\d{2}))?", re.ASCII
)
_POSIX: Final = re.compile(r"(?:UTC|GMT)(?P<sign>[+-])(?P<rest>\d{1,2}(?::?\d{2})?)", re.IGNORECASE | re.ASCII)
_GREENWICH: Final = frozenset({"z", "utc", "gmt", "uct", "zulu"})
_HALF_A_YEAR: Final = timedelta(days=182)
_MAX_OFFSET: Final = timedelta(hours=15, minutes=59, seconds=59)  # PostgreSQL's MAX_TZDISP_HOUR
_FORMS: Final = "write for example 2026-05-07 14:29:00+03, 2026-05-07T11:29:00Z or 2026-05-07 14:29:00 Europe/Moscow"


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone to offer when a time has none: whose it is ('the server's zone'), and its name."""

    whose: str
    name: str


def parse_moment(text: str, zones: Sequence[Zone] = (), option: str = "--time") -> datetime:
    """Read a moment; the answer is aware, in UTC.

    `zones` and `option` only serve the hint for a time without a zone (Fault `time-without-zone`); every other text
    that is not exactly one moment is `time-unreadable`.
    """
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        raise _unreadable(text, "is no date and time with a zone")
    local = _local_time(text, match["date"], match["time"])
    zone = match["zone"].strip()
    if not zone:
        raise _without_zone(text, local, zones, option)
    return _in_zone(text, local, zone, option)


def show_moment(moment: datetime) -> str:
    """As PostgreSQL prints timestamptz in ISO style: '2026-05-07 14:29:00.5+03', in the moment's own zone."""
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    if moment.microsecond:
        text += f".{moment.microsecond:06d}".rstrip("0")
    return text + show_offset(moment.utcoffset() or timedelta())


def show_offset(offset: timedelta) -> str:
    """'+03', '-03:30', '+00' (EncodeTimezone of datetime.c)."""
    seconds = int(offset.total_seconds())
    sign = "-" if seconds < 0 else "+"
    hours, rest = divmod(abs(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"{sign}{hours:02d}"
    if minutes or seconds:
        text += f":{minutes:02d}"
    return text + (f":{seconds:02d}" if seconds else "")


def in_zone(moment: datetime, name: str) -> datetime:
    """The same moment in a named zone; in UTC when the name is none."""
    zone = zone_named(name)
    return moment.astimezone(zone or UTC)


def zone_named(name: str) -> tzinfo | None:
    """A zone of the time zone data base, whatever the case of its name; None when there is none."""
    known = _zone_names().get(name.strip().casefold())
    if known is None:
        return None
    try:
        return ZoneInfo(known)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@cache
def _zone_names() -> dict[str, str]:
    return {name.casefold(): name for name in available_timezones() if name not in ("Factory", "localtime")}


def _local_time(text: str, date: str, time: str) -> datetime:
    hours, minutes, *rest = time.replace(",", ".").split(":")
    whole, _, fraction = (rest[0] if rest else "0").partition(".")
    try:
        day = datetime.strptime(date, "%Y-%m-%d")  # noqa: DTZ007 - the zone follows
        return day.replace(
            hour=int(hours), minute=int(minutes), second=int(whole), microsecond=int(f"{fraction:0<6}"[:6])
        )
    except ValueError as error:
        raise _unreadable(text, f"is no time of the calendar ({error})") from None


def _in_zone(text: str, local: datetime, zone: str, option: str) -> datetime:
    if zone.casefold() in _GREENWICH:
        return local.replace(tzinfo=UTC)
    if (offset := _OFFSET.fullmatch(zone)) is not None:
        return _utc(text, local, [_offset_of(text, offset)], zone, option)
    if (posix := _POSIX.fullmatch(zone)) is not None:
        return _refuse_posix(text, local, posix, option)
    offsets = _offsets_called(zone, local)
    if offsets:
        return _utc(text, local, offsets, zone, option)
    if (known := zone_named(zone)) is not None:
        return _in_named_zone(text, local, known, option)
    raise _unreadable(text, f"names the zone {zone!r}, which no time zone has or is called at that moment")


def _offset_of(text: str, match: re.Match[str]) -> timedelta:
    parts = {unit: int(match[unit] or 0) for unit in ("hours", "minutes", "seconds")}
    offset = timedelta(**parts)
    if parts["minutes"] > 59 or parts["seconds"] > 59 or offset > _MAX_OFFSET:
        raise _unreadable(text, f"has the offset {match[0]}, which is none")
    return -offset if match["sign"] == "-" else offset


def _utc(text: str, local: datetime, offsets: Sequence[timedelta], zone: str, option: str) -> datetime:
    """`local` at the one offset there is; several are refused with every reading."""
    if len(offsets) > 1:
        readings = _arguments(local, offsets, option)
        raise _unreadable(text, f"says {zone}, which means {len(offsets)} different zones then", f"write {readings}")
    try:
        return local.replace(tzinfo=timezone(offsets[0])).astimezone(UTC)
    except OverflowError:
        raise _unreadable(text, "is outside the years 1 to 9999") from None


def _refuse_posix(text: str, local: datetime, match: re.Match[str], option: str) -> datetime:
    found = _OFFSET.fullmatch(match["sign"] + match["rest"])
    offset = _offset_of(text, found) if found else timedelta()
    readings = _arguments(local, [offset, -offset], option)
    raise _unreadable(text, "has a zone that ISO and POSIX read with opposite signs", f"write {readings}")


def _in_named_zone(text: str, local: datetime, zone: tzinfo, option: str) -> datetime:
    offsets = list(_offsets_in(zone, local))
    if len(offsets) == 1:
        return _utc(text, local, offsets, str(zone), option)
    around = sorted({_offset(zone, local, fold) for fold in (0, 1)}, reverse=True)
    readings = _arguments(local, around, option)
    if offsets:
        raise _unreadable(text, f"happened twice in {zone} (the clocks were set back)", f"write {readings}")
    raise _unreadable(text, f"never was in {zone} (the clocks were set forward)", f"write {readings}")


def _offset(zone: tzinfo, local: datetime, fold: int) -> timedelta:
    return local.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()


def _offsets_in(zone: tzinfo, local: datetime) -> Iterator[timedelta]:
    """The offsets at which the zone's clocks showed `local`: none in a gap, two in an overlap (PEP 495)."""
    seen: set[timedelta] = set()
    for fold in (0, 1):
        try:
            offset = _offset(zone, local, fold)
            there = (local - offset).replace(tzinfo=UTC).astimezone(zone)
        except OverflowError:
            continue
        if there.replace(tzinfo=None) == local and offset not in seen:
            seen.add(offset)
            yield offset


def _offsets_called(abbreviation: str, local: datetime) -> list[timedelta]:
    """The offsets of all zones that call themselves so when their clocks show `local`, easternmost first."""
    wanted = abbreviation.casefold()
    found: set[timedelta] = set()
    for name in _zone_names():
        zone = zone_named(name)
        if zone is None:
            continue
        called = _called(zone, wanted, local)
        found |= called or _called(zone, wanted, local - _HALF_A_YEAR) | _called(zone, wanted, local + _HALF_A_YEAR)
    return sorted(found, reverse=True)


def _called(zone: tzinfo, wanted: str, local: datetime) -> set[timedelta]:
    """The offsets under the name `wanted` at which the zone's clocks showed `local`."""
    offsets = set()
    for offset in _offsets_in(zone, local):
        name = (local - offset).replace(tzinfo=UTC).astimezone(zone).tzname()
        if name is not None and name.casefold() == wanted:
            offsets.add(offset)
    return offsets


def _arguments(local: datetime, offsets: Iterable[timedelta], option: str) -> str:
    return " or ".join(f'{option} "{show_moment(local.replace(tzinfo=timezone(offset)))}"' for offset in offsets)


def _without_zone(text: str, local: datetime, zones: Sequence[Zone], option: str) -> Fault:
    readings = [
        f"{_arguments(local, offsets, option)} ({zone.whose}{f', {zone.name}' if zone.name != zone.whose else ''})"
        for zone in zones
        if (known := zone_named(zone.name)) is not None and (offsets := list(_offsets_in(known, local)))
    ]
    hint = f"say which is meant: {'; or '.join(readings)}" if readings else _FORMS
    return Fault("time-without-zone", f"the time {text!r} has no zone, expected one", hint=hint, time=text)


def _unreadable(text: str, found: str, hint: str = _FORMS) -> Fault:
    return Fault("time-unreadable", f"the time {text!r} {found}", hint=hint, time=text)
