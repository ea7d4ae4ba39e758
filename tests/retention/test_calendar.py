"""Days, weeks, months and years, computed by hand: also where clocks change, days are missed and clocks are wrong."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from pgkeep.retention.calendar import slot
from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.ids import BackupId
from tests.retention.made import DAY, World, at, stays, why


def world(*moments: str, zone: str = "UTC", hours: int = 24 * 400) -> tuple[World, list[BackupId]]:
    """Backups at these local times, with all WAL from the first of their year on."""
    made = World(at(f"{moments[0][:4]}-01-01 00:00"), zone)
    names = [made.backup(moment) for moment in moments]
    made.wal(0, hours)
    return made, names


@pytest.mark.parametrize(
    ("period", "moment", "zone", "label"),
    [
        ("daily", "2026-11-20 23:59", "UTC", "2026-11-20"),
        ("daily", "2026-11-20 23:59", "Europe/Berlin", "2026-11-21"),
        ("daily", "2026-11-20 23:59", "America/New_York", "2026-11-20"),
        ("daily", "2026-11-20 03:00", "America/New_York", "2026-11-19"),
        ("weekly", "2026-11-22 12:00", "UTC", "2026-W47"),
        ("weekly", "2026-11-23 00:00", "UTC", "2026-W48"),
        ("weekly", "2027-01-01 12:00", "UTC", "2026-W53"),
        ("weekly", "2024-12-30 12:00", "UTC", "2025-W01"),
        ("monthly", "2026-10-31 23:30", "Europe/Berlin", "2026-11"),
        ("yearly", "2026-12-31 23:30", "Pacific/Auckland", "2027"),
    ],
)
def test_slots(period: str, moment: str, zone: str, label: str) -> None:
    assert slot(period, at(moment), ZoneInfo(zone)).label == label


def test_the_newest_backup_of_a_day_represents_it() -> None:
    made, names = world("2026-05-01 02:00", "2026-05-01 14:00", "2026-05-02 02:00", "2026-05-02 14:00")
    plan = made.plan(KeepPolicy(daily=2))
    assert stays(plan) == [names[1], names[3]]
    assert why(plan, names[1])[0] == "daily 2026-05-01"
    assert why(plan, names[3])[:2] == ["daily 2026-05-02", "newest of its lineage"]
    assert [one.backup for one in plan.goes] == [names[0], names[2]]


def test_missed_days_count_only_where_there_is_a_backup() -> None:
    made, names = world("2026-01-05 02:00", "2026-02-10 02:00", "2026-02-11 02:00", "2026-06-01 02:00")
    plan = made.plan(KeepPolicy(daily=3))
    assert stays(plan) == names[1:]
    assert stays(made.plan(KeepPolicy(daily=7))) == names


def test_a_daily_weekly_monthly_policy_over_five_weeks() -> None:
    """November 2026: the 1st is a Sunday.  Daily backups from Oct 15 to Nov 22 (a Sunday)."""
    moments = [f"2026-10-{day:02} 03:00" for day in range(15, 32)] + [f"2026-11-{day:02} 03:00" for day in range(1, 23)]
    made, names = world(*moments)
    plan = made.plan(KeepPolicy(daily=3, weekly=3, monthly=2))
    days = {name[:8]: name for name in names}
    assert stays(plan) == [days[f"2026{day}"] for day in ("1031", "1108", "1115", "1120", "1121", "1122")]
    assert why(plan, days["20261031"]) == ["monthly 2026-10", "oldest kept backup, where the WAL begins"]
    assert why(plan, days["20261115"]) == ["weekly 2026-W46"]
    assert why(plan, days["20261122"])[:3] == ["daily 2026-11-22", "weekly 2026-W47", "monthly 2026-11"]


def test_last_counts_backups_and_not_days() -> None:
    made, names = world("2026-05-01 02:00", "2026-05-02 01:00", "2026-05-02 02:00", "2026-05-02 03:00")
    plan = made.plan(KeepPolicy(last=3))
    assert stays(plan) == names[1:]
    assert [why(plan, name)[0] for name in names[1:]] == ["last 3 of 3", "last 2 of 3", "last 1 of 3"]


@pytest.mark.parametrize(
    ("zone", "long_day", "moments", "kept"),
    [
        # 25 hours: 00:30 local and 23:30 local are 24 hours apart and the same day.
        ("Europe/Berlin", "2026-10-25", ("2026-10-25 00:30", "2026-10-25 23:30"), 1),
        ("America/New_York", "2026-11-01", ("2026-11-01 00:30", "2026-11-01 23:30"), 1),
        ("Australia/Sydney", "2026-04-05", ("2026-04-05 00:30", "2026-04-05 23:30"), 1),
        ("America/Santiago", "2026-04-04", ("2026-04-04 00:30", "2026-04-04 23:30"), 1),
        # 23 hours: 23:30 and 00:30 two days later are 24 hours apart and leave the short day between them.
        ("Europe/Berlin", "2026-03-29", ("2026-03-28 23:30", "2026-03-29 12:00", "2026-03-30 00:30"), 3),
        ("America/New_York", "2026-03-08", ("2026-03-07 23:30", "2026-03-08 12:00", "2026-03-09 00:30"), 3),
        ("Australia/Sydney", "2026-10-04", ("2026-10-03 23:30", "2026-10-04 12:00", "2026-10-05 00:30"), 3),
        # Half an hour of daylight saving, and a day that begins at 01:00.
        ("Australia/Lord_Howe", "2026-04-05", ("2026-04-05 00:15", "2026-04-05 23:45"), 1),
        ("Africa/Cairo", "2026-04-24", ("2026-04-23 23:30", "2026-04-24 01:30"), 2),
    ],
)
def test_days_of_23_and_25_hours(zone: str, long_day: str, moments: tuple[str, ...], kept: int) -> None:
    made, names = world(*moments, zone=zone)
    plan = made.plan(KeepPolicy(daily=7))
    assert stays(plan) == names[-kept:]
    assert any(f"daily {long_day}" in why(plan, name) for name in names[-kept:])


def test_the_hour_that_happens_twice_is_one_day() -> None:
    """02:30 twice on 2026-10-25 in Berlin: 00:30 and 01:30 in UTC."""
    made = World(at("2026-10-01 00:00"), "Europe/Berlin")
    first, second = made.backup(at("2026-10-25 00:30")), made.backup(at("2026-10-25 01:30"))
    made.wal(0, 800)
    assert stays(made.plan(KeepPolicy(daily=1))) == [second]
    assert first not in stays(made.plan(KeepPolicy(daily=7)))


def test_hourly_backups_over_the_end_of_summer_time() -> None:
    """Every hour from Saturday to Monday: each day keeps its last one, at 23:00 local time."""
    made = World(at("2026-10-01 00:00"), "Europe/Berlin")
    begin = at("2026-10-24 00:00", "Europe/Berlin")
    names = {made.backup(made.moment(made.segment(begin) + hour)): hour for hour in range(24 + 25 + 24)}
    made.wal(0, 800)
    assert [names[name] for name in stays(made.plan(KeepPolicy(daily=3)))] == [23, 48, 72]


def test_a_clean_backup_is_preferred_within_its_day() -> None:
    made = World(at("2026-05-01 00:00"))
    clean = made.backup("2026-05-01 02:00")
    damaged = made.backup("2026-05-01 14:00", bad=3)
    only = made.backup("2026-05-02 02:00", bad=1)
    newest = made.backup("2026-05-03 02:00", bad=1)
    made.wal(0, 100)
    plan = made.plan(KeepPolicy(daily=3))
    assert stays(plan) == [clean, only, newest]
    assert why(plan, clean) == [
        "daily 2026-05-01", "newest of its lineage without damaged pages", "oldest kept backup, where the WAL begins",
    ]  # fmt: skip
    assert [(one.backup, one.note) for one in plan.goes] == [(damaged, "holds 3 damaged pages")]
    # Ten days later every new backup is damaged: the last clean one outlives its day.
    for day in range(4, 14):
        made.backup(f"2026-05-{day:02} 02:00", bad=1)
    made.wal(101, 400)
    plan = made.plan(KeepPolicy(daily=3))
    assert len(stays(plan)) == 4
    assert why(plan, clean)[0] == "newest of its lineage without damaged pages"


def test_a_backup_without_its_wal_makes_no_day_and_yields_to_one_that_has_it() -> None:
    made = World(at("2026-05-01 00:00"))
    first = made.backup("2026-05-01 02:00")
    second = made.backup("2026-05-02 02:00")
    torn = made.backup("2026-05-03 02:00")
    whole = made.backup("2026-05-03 01:00")
    newest = made.backup("2026-05-04 02:00")
    missing = made.segment(at("2026-05-03 03:00"))
    made.wal(0, missing - 1).wal(missing + 1, 200)
    plan = made.plan(KeepPolicy(daily=3))
    assert stays(plan) == [second, whole, newest]
    assert [(one.backup, one.note) for one in plan.goes if one.note] == [
        (torn, "the WAL that makes it consistent is missing: it cannot be restored")
    ]
    assert first not in stays(plan)


def test_a_backup_with_damaged_packs_makes_no_day_and_stays_as_long_as_its_neighbours() -> None:
    """Of ten nights the last but one is damaged: three others are the days, and it stays beside them."""
    made = World(at("2026-05-01 00:00"))
    names = [made.backup(f"2026-05-{day:02} 02:00") for day in range(1, 11)]
    made.wal(0, 239)
    made.damaged = {names[8], names[2]}
    plan = made.plan(KeepPolicy(daily=3))
    assert stays(plan) == names[6:]
    assert why(plan, names[6]) == ["daily 2026-05-07", "oldest kept backup, where the WAL begins"]
    assert [(one.backup, one.note) for one in plan.goes if one.note] == [
        (names[2], "a verify found packs of it damaged: not all of it can be restored")
    ]
    plan = made.plan(KeepPolicy(last=3))
    assert stays(plan) == names[6:]
    assert why(plan, names[8]) == ["damaged, and as new as the last 3"]


def test_a_damaged_backup_does_not_stay_for_a_week_that_does_not_count() -> None:
    """A clock a year behind makes the oldest week that counts older than the damaged one's, which has a sound one."""
    made = World(at("2026-05-01 00:00"))
    damaged, sound = made.backup("2026-05-01 02:00"), made.backup("2026-05-01 03:00")
    behind = made.backup("2026-05-09 02:00", clock=at("2025-05-09 02:00"))
    newest = made.backup("2026-05-16 02:00")
    made.wal(0, 400)
    made.damaged = {damaged}
    assert sorted(stays(made.plan(KeepPolicy(weekly=2)))) == sorted([behind, newest])
    assert sorted(stays(made.plan(KeepPolicy(weekly=3)))) == sorted([sound, behind, newest])


def test_a_backup_with_damaged_packs_yields_to_a_sound_one_of_its_day() -> None:
    made, names = world("2026-05-01 02:00", "2026-05-02 02:00", "2026-05-02 03:00", "2026-05-03 02:00")
    made.damaged = {names[2]}
    assert stays(made.plan(KeepPolicy(daily=2))) == [names[1], names[3]]
    assert stays(made.plan(KeepPolicy(daily=1))) == [names[3]]


def test_the_newest_sound_backup_stays_and_so_does_a_damaged_one_that_is_newer() -> None:
    made, names = world(*(f"2026-05-{day:02} 02:00" for day in range(1, 8)))
    made.damaged = set(names[2:])
    plan = made.plan(KeepPolicy(weekly=1))
    assert [names[1], names[6]] == [name for name in stays(plan) if name in (names[1], names[6])]
    assert "newest of its lineage that can be restored" in why(plan, names[1])


def test_where_all_are_damaged_nothing_goes_that_else_would_stay() -> None:
    """One pack may be in all of them, and may be put back."""
    made, names = world(*(f"2026-05-{day:02} 02:00" for day in range(1, 11)))
    for policy in (KeepPolicy(daily=3), KeepPolicy(last=3), KeepPolicy(daily=2, weekly=2, wal=4 * DAY)):
        made.damaged = set()
        before = set(stays(made.plan(policy)))
        made.damaged = set(names)
        assert before <= set(stays(made.plan(policy)))


def test_the_newest_backup_stays_also_without_its_wal() -> None:
    made = World(at("2026-05-01 00:00"))
    whole = made.backup("2026-05-01 02:00")
    newest = made.backup("2026-05-02 02:00")
    made.wal(0, 20)
    plan = made.plan(KeepPolicy(last=1))
    assert stays(plan) == [whole, newest]
    assert why(plan, newest) == ["newest of its lineage"]
    assert why(plan, whole)[:2] == ["last 1 of 1", "newest of its lineage that can be restored"]


def test_a_clock_that_ran_backwards_does_not_reorder() -> None:
    """The third backup's clock was a year behind, the fourth's a month ahead: the newest are the last in WAL."""
    made = World(at("2026-05-01 00:00"))
    first, second = made.backup("2026-05-01 02:00"), made.backup("2026-05-02 02:00")
    behind = made.backup("2026-05-03 02:00", clock=at("2025-05-03 02:00"))
    ahead = made.backup("2026-05-04 02:00", clock=at("2026-06-04 02:00"))
    newest = made.backup("2026-05-05 02:00")
    made.wal(0, 200)
    plan = made.plan(KeepPolicy(last=3))
    assert sorted(stays(plan)) == sorted([behind, ahead, newest])
    assert "newest of its lineage" in why(plan, newest)
    plan = made.plan(KeepPolicy(daily=4))
    assert sorted(stays(plan)) == sorted([second, behind, ahead, newest])
    assert "daily 2025-05-03" in why(plan, behind)
    assert first not in stays(plan)


def test_without_a_policy_nothing_goes() -> None:
    made, names = world("2026-05-01 02:00", "2026-05-01 03:00")
    plan = made.plan(None)
    assert stays(plan) == names
    assert (plan.goes, plan.wal_goes, plan.freed.wal_bytes) == ((), (), 0)
    assert "nothing is ever deleted" in why(plan, names[0])[0]


def test_no_backups_at_all() -> None:
    made = World(at("2026-05-01 00:00"))
    made.wal(0, 10)
    plan = made.plan(KeepPolicy(daily=1))
    assert (plan.stays, plan.goes, plan.wal_goes) == ((), (), ())
    assert World(at("2026-05-01 00:00")).plan(KeepPolicy(daily=1)).stays == ()


def test_a_day_without_a_backup_that_restores_is_no_day() -> None:
    """Of five days the third has only one whose WAL is lost: the three days are others, and it stays beside them."""
    made = World(at("2026-05-01 00:00"))
    names = [made.backup(f"2026-05-{day:02} 02:00") for day in range(1, 6)]
    missing = made.segment(at("2026-05-03 03:00"))
    made.wal(0, missing - 1).wal(missing + 1, 200)
    plan = made.plan(KeepPolicy(daily=3))
    assert stays(plan) == [names[1], names[2], names[3], names[4]]
    assert why(plan, names[1])[0] == "daily 2026-05-02"
    assert stays(made.plan(KeepPolicy(last=3))) == [names[1], names[3], names[4]]
