"""When something is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.values.schedule import Schedule, parse_schedule

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 21, 30, tzinfo=UTC)  # a Sunday


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("hourly", "2026-11-22 21:00", "2026-11-22 22:00"),
        ("daily 02:30", "2026-11-22 02:30", "2026-11-23 02:30"),
        ("Daily 21:30", "2026-11-22 21:30", "2026-11-23 21:30"),
        ("weekly sun 22:00", "2026-11-15 22:00", "2026-11-22 22:00"),
        ("weekly Wednesday 3:05", "2026-11-18 03:05", "2026-11-25 03:05"),
        ("monthly 31 04:00", "2026-10-31 04:00", "2026-12-31 04:00"),
        ("*/20 * * * *", "2026-11-22 21:20", "2026-11-22 21:40"),
        ("30 2 * * *", "2026-11-22 02:30", "2026-11-23 02:30"),
        ("0 6,18 * * mon-fri", "2026-11-20 18:00", "2026-11-23 06:00"),
        ("0 0 13 * fri", "2026-11-20 00:00", "2026-11-27 00:00"),  # the 13th, and every Friday
        ("0 0 29 feb *", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("5 4 * * 7", "2026-11-22 04:05", "2026-11-29 04:05"),
        ("0 0 */10 * *", "2026-11-21 00:00", "2026-12-01 00:00"),
        ("10-12/2 1 * * *", "2026-11-22 01:12", "2026-11-23 01:10"),
        ("7/30 1 * * *", "2026-11-22 01:37", "2026-11-23 01:07"),
    ],
)
def test_when_it_was_due_and_will_be(text: str, before: str, after: str) -> None:
    schedule = parse_schedule(text)
    assert schedule.due_before(NOW, UTC) == datetime.fromisoformat(before).replace(tzinfo=UTC)
    assert schedule.due_after(NOW, UTC) == datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert schedule.text == text


@pytest.mark.parametrize(
    "text",
    [
        "", "daily", "daily 24:00", "daily 2:3", "weekly 03:00", "weekly sunny 03:00", "monthly 32 04:00",
        "30 2 * *", "60 2 * * *", "a b c d e", "*/0 * * * *", "5-1 * * * *", "0 0 * 13 *", "0 0 * * 8", "1,,2 * * * *",
        "0 0 31 feb *", "0 0 30 2 *", "² * * * *", "never",
    ],
)  # fmt: skip
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a schedule|never due"):
        parse_schedule(text)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def test_the_hour_that_clocks_leave_out() -> None:
    """On 2026-03-29 Berlin's clocks go from 02:00 to 03:00: what is due at 02:30 comes at 03:30, and once."""
    schedule = parse_schedule("daily 02:30")
    assert schedule.due_before(local("2026-03-29 03:15"), BERLIN) == local("2026-03-28 02:30")
    assert schedule.due_before(local("2026-03-29 03:30"), BERLIN) == local("2026-03-29 03:30")
    assert schedule.due_after(local("2026-03-29 03:30"), BERLIN) == local("2026-03-30 02:30")


def test_the_hour_that_clocks_repeat() -> None:
    """On 2026-10-25 Berlin's clocks show 02:30 twice."""
    schedule = parse_schedule("daily 02:30")
    first, second = (local("2026-10-25 02:30").replace(fold=fold) for fold in (0, 1))
    assert second.astimezone(UTC) - first.astimezone(UTC) == timedelta(hours=1)
    assert schedule.due_before(second.astimezone(UTC), BERLIN) == first.astimezone(UTC)
    assert schedule.due_after(first.astimezone(UTC), BERLIN) == local("2026-10-26 02:30")


schedules = st.builds(
    lambda minute, hour, day, weekday: parse_schedule(f"{minute} {hour} {day} * {weekday}"),
    st.sampled_from(["*", "0", "17", "*/7", "3,40"]), st.sampled_from(["*", "2", "23", "*/5"]),
    st.sampled_from(["*", "1", "29", "*/9"]), st.sampled_from(["*", "0", "1-5", "sat"]),
)  # fmt: skip
moments = st.integers(0, 10 * 366 * 86400).map(lambda seconds: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(0, seconds))


@given(schedules, moments, st.sampled_from([UTC, BERLIN, ZoneInfo("Australia/Lord_Howe")]))
def test_between_two_moments_there_is_none(schedule: Schedule, now: datetime, zone: ZoneInfo) -> None:
    before, after = schedule.due_before(now, zone), schedule.due_after(now, zone)
    assert before is not None
    assert after is not None
    assert before <= now < after
    assert schedule.due_after(before, zone) == after
    assert schedule.due_before(after - timedelta(seconds=1), zone) == before
