"""The WAL window, lineages, holds and leases, computed by hand: a segment is an hour (tests/retention/made.py)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pgkeep.errors import Fault
from pgkeep.retention.facts import HeldWindow, Hold, Leased, PackGroup, Unreadable
from pgkeep.retention.plan import RetentionPlan, plan_retention
from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.ids import BackupId
from tests.retention.made import BYTES, DAY, HOUR, SYSTEM, World, at, gone, history, stays, why

EPOCH = at("2026-05-01 00:00")
OTHER = SYSTEM + 1


def daily(days: int, hour: int = 2) -> tuple[World, list[BackupId]]:
    """A backup each day at `hour`, and WAL to the end of the last day."""
    made = World(EPOCH)
    names = [made.backup(EPOCH + day * DAY + hour * HOUR) for day in range(days)]
    return made.wal(0, days * 24 - 1), names


# --- the window


def test_the_window_has_a_base_that_is_older_than_its_start() -> None:
    """Ten days, counted from 0; the window of 3 days begins at the end of day 6: the backup of that day is its base."""
    made, names = daily(10)
    plan = made.plan(KeepPolicy(last=1, wal=3 * DAY))
    assert stays(plan) == [names[6], names[9]]
    assert why(plan, names[6]) == ["base of the WAL window of 3 days"]
    assert gone(plan) == set(range(6 * 24 + 2))
    (window,) = plan.windows
    assert (window.start, window.base, window.is_filled) == (EPOCH + 7 * DAY, names[6], True)
    assert window.first_segment == "000000010000000000000092"
    assert int(window.first_segment, 16) & 0xFF == 6 * 24 + 2
    (run,) = plan.wal_goes
    assert (run.first_name, run.segments, run.bytes) == ("000000010000000000000000", 146, 146 * BYTES)
    assert (plan.freed.segments, plan.freed.wal_bytes) == (146, 146 * BYTES)


def test_a_backup_that_ends_exactly_at_the_start_is_the_base() -> None:
    made, names = daily(10)
    ended = EPOCH + 7 * DAY + 2 * HOUR + timedelta(minutes=30)
    made.now = ended + 2 * DAY
    made.objects[SYSTEM] = [one for one in made.objects[SYSTEM] if one.archived <= made.now + HOUR]
    plan = made.plan(KeepPolicy(last=1, wal=2 * DAY))
    assert plan.windows[0].base == names[7]
    plan = made.plan(KeepPolicy(last=1, wal=2 * DAY + timedelta(seconds=1)))
    assert plan.windows[0].base == names[6]


def test_the_base_of_the_window_is_sound() -> None:
    """The backup of day 6 would be the base; it is damaged, so that of day 5 is, where there is one."""
    made, names = daily(10)
    made.damaged = {names[6]}
    plan = made.plan(KeepPolicy(last=1, wal=3 * DAY))
    assert stays(plan) == [names[5], names[9]]
    assert gone(plan) == set(range(5 * 24 + 2))
    made.damaged = set(names[:7])
    plan = made.plan(KeepPolicy(last=1, wal=3 * DAY))
    assert stays(plan) == [names[6], names[7], names[9]], "its packs may be put back"
    assert why(plan, names[7]) == ["oldest in the WAL window without damaged packs"]


def test_a_window_that_is_not_filled_keeps_its_oldest_backup() -> None:
    """Else a policy of one backup and seven days would never come to have seven days."""
    made, names = daily(3)
    plan = made.plan(KeepPolicy(last=1, wal=7 * DAY))
    assert stays(plan) == [names[0], names[2]]
    assert why(plan, names[0]) == ["base of the WAL window of 7 days, which is not filled yet"]
    assert gone(plan) == {0, 1}  # before the first backup: nothing could use it


def test_older_backups_keep_just_what_makes_them_consistent() -> None:
    made, names = daily(20)
    plan = made.plan(KeepPolicy(daily=1, weekly=3, wal=2 * DAY))
    # 2026-05-01 is a Friday: Sundays are days 2, 9 and 16; the newest of the third week is the last day.
    assert stays(plan) == [names[9], names[16], names[17], names[19]]
    needed = {9 * 24 + 2, 9 * 24 + 3, 16 * 24 + 2, 16 * 24 + 3}
    assert gone(plan) == set(range(17 * 24 + 2)) - needed
    assert [(run.first, run.last) for run in plan.wal_goes] == [
        (0, 9 * 24 + 1), (9 * 24 + 4, 16 * 24 + 1), (16 * 24 + 4, 17 * 24 + 1)
    ]  # fmt: skip


def test_a_window_of_nothing_begins_with_the_newest_backup() -> None:
    made, names = daily(5)
    plan = made.plan(KeepPolicy(last=2, wal=timedelta()))
    assert plan.windows[0].base == names[4]
    assert gone(plan) == set(range(4 * 24 + 2)) - {3 * 24 + 2, 3 * 24 + 3}


def test_a_window_longer_than_time() -> None:
    made, names = daily(5)
    plan = made.plan(KeepPolicy(last=1, wal=timedelta.max))
    assert stays(plan) == [names[0], names[4]]


def test_no_word_on_wal_keeps_all_of_it_from_the_oldest_kept_backup_on() -> None:
    made, names = daily(5)
    plan = made.plan(KeepPolicy(last=2))
    assert why(plan, names[3]) == ["last 2 of 2", "oldest kept backup, where the WAL begins"]
    assert gone(plan) == set(range(3 * 24 + 2))


def test_a_server_that_died_keeps_its_last_days() -> None:
    """Nothing was archived for a year: the window is counted back from the last WAL."""
    made, names = daily(10)
    made.now = EPOCH + 375 * DAY
    plan = made.plan(KeepPolicy(last=1, wal=3 * DAY))
    assert plan.windows[0].start == EPOCH + 7 * DAY
    assert stays(plan) == [names[6], names[9]]


def test_a_pruning_host_whose_clock_is_behind_deletes_less() -> None:
    made, names = daily(10)
    made.now = EPOCH + 2 * DAY
    plan = made.plan(KeepPolicy(last=1, wal=1 * DAY))
    assert plan.windows[0].base == names[0]


def test_a_clock_in_the_future_is_no_base_and_hides_none() -> None:
    made, names = daily(10)
    made.backups[4] = replace(made.backups[4], stopped=at("2099-01-01 00:00"))
    assert made.plan(KeepPolicy(last=1, wal=3 * DAY)).windows[0].base == names[6]
    made.backups[6] = replace(made.backups[6], stopped=at("2099-01-01 00:00"))
    assert made.plan(KeepPolicy(last=1, wal=3 * DAY)).windows[0].base == names[5]


def test_a_clock_in_the_past_does_not_shorten_the_window() -> None:
    """The newest backup says 1970: it is not older than the window for that."""
    made, names = daily(10)
    made.backups[9] = replace(made.backups[9], started=at("1970-01-01 00:00"), stopped=at("1970-01-01 00:30"))
    assert made.plan(KeepPolicy(last=1, wal=3 * DAY)).windows[0].base == names[6]


def test_a_backup_without_its_wal_is_no_base() -> None:
    made, names = daily(10)
    missing = 6 * 24 + 3
    made.objects[SYSTEM] = [one for one in made.objects[SYSTEM] if one.number != missing]
    plan = made.plan(KeepPolicy(last=1, wal=3 * DAY))
    assert plan.windows[0].base == names[5]
    assert names[6] not in stays(plan)


def test_a_backup_that_runs_keeps_the_wal_since_it_began() -> None:
    made, names = daily(5)
    made.leases.append(Leased((names[2],), "an unfinished backup on db1", EPOCH + 3 * DAY))
    plan = made.plan(KeepPolicy(last=1, wal=timedelta()))
    assert why(plan, names[2]) == [
        "needed by an unfinished backup on db1", "base of the WAL window of 0 days",
    ]  # fmt: skip
    assert gone(plan) == set(range(2 * 24 + 2))


def test_a_restore_that_runs_keeps_its_backup_and_the_wal_behind_it() -> None:
    made, names = daily(9)
    made.leases.append(Leased((names[1],), "a restore on db2", EPOCH + 9 * DAY, reads_wal=True))
    plan = made.plan(KeepPolicy(last=1, wal=1 * DAY))
    assert stays(plan) == [names[1], names[7], names[8]]
    assert gone(plan) == set(range(24 + 2))


# --- lineages


def promoted(*, overlap: int = 0) -> tuple[World, list[BackupId]]:
    """Ten days on timeline 1, left in segment 240 for timeline 2, three days more; timeline 1 goes on for `overlap`."""
    made, names = daily(10)
    made.histories[SYSTEM, 2] = history(2, (1, 240))
    made.wal(240, 240 + overlap)
    made.wal(240, 240 + 71, timeline=2)
    names += [made.backup(EPOCH + (10 + day) * DAY + 2 * HOUR, timeline=2) for day in range(3)]
    return made, names


def test_a_promotion_that_everybody_followed_is_one_lineage() -> None:
    made, names = promoted()
    plan = made.plan(KeepPolicy(daily=2, wal=4 * DAY))
    assert stays(plan) == [names[8], names[11], names[12]]
    (window,) = plan.windows
    assert (window.timeline, window.base) == (2, names[8])
    assert gone(plan, 1) == set(range(8 * 24 + 2))
    assert gone(plan, 2) == set()


def test_the_segment_of_a_promotion_stays_on_both_timelines() -> None:
    made, _ = promoted()
    plan = made.plan(KeepPolicy(daily=1, wal=4 * DAY))
    assert 240 not in gone(plan, 1) | gone(plan, 2)
    plan = made.plan(KeepPolicy(daily=1, wal=HOUR))
    assert 240 in gone(plan, 1) & gone(plan, 2)


def test_two_branches_that_both_archive_are_not_told_apart_by_guessing() -> None:
    made, _ = promoted(overlap=60)
    with pytest.raises(Fault) as caught:
        made.plan(KeepPolicy(daily=2, wal=4 * DAY))
    assert caught.value.code == "usage"
    assert "timeline 1, last archived 2026-05-13 13:00:00" in caught.value.message
    assert "timeline 2, last archived 2026-05-14 00:00:00" in caught.value.message
    assert "--timeline N" in caught.value.hint
    for timeline in (1, 2):
        assert made.plan(KeepPolicy(daily=2, wal=4 * DAY), timeline).stays
    with pytest.raises(Fault, match="no branch ends on timeline 3, expected one of: 2, 1"):
        made.plan(KeepPolicy(daily=2), 3)


def test_a_branch_that_ended_before_the_other_began_is_over() -> None:
    """A primary died after a last segment that its successor had not: nobody is asked."""
    made, _ = promoted()
    made.wal(241, 242)
    made.objects[SYSTEM] = [
        replace(one, archived=EPOCH + 10 * DAY) if one.timeline == 1 else one for one in made.objects[SYSTEM]
    ]
    assert [window.timeline for window in made.plan(KeepPolicy(daily=2, wal=4 * DAY)).windows] == [2, 1]
    # A week later its window has passed: its WAL goes, but for what makes kept backups consistent.
    made.wal(312, 312 + 7 * 24, timeline=2)
    plan = made.plan(KeepPolicy(daily=2, wal=4 * DAY))
    assert [window.timeline for window in plan.windows] == [2]
    assert {241, 242} <= gone(plan, 1)


def test_a_branch_that_was_quiet_for_a_week_is_over() -> None:
    made, _ = promoted(overlap=60)
    made.wal(312, 312 + 24 * 7, timeline=2)
    plan = made.plan(KeepPolicy(daily=2, wal=4 * DAY))
    assert plan.windows[0].timeline == 2
    # Also when the one that ended has the higher number: a clone that was tried.
    made, _ = promoted(overlap=60 + 24 * 10)
    plan = made.plan(KeepPolicy(daily=2, wal=4 * DAY))
    assert plan.windows[0].timeline == 1


def test_a_copy_beside_takes_no_day_from_the_cluster() -> None:
    """The copy was backed up every hour: none of the cluster's days goes for it, and its window has a base too."""
    made, names = daily(10)
    made.histories[SYSTEM, 2] = history(2, (1, 100))
    made.wal(100, 239, timeline=2)
    copies = [made.backup(EPOCH + 9 * DAY + hour * HOUR, timeline=2) for hour in range(4, 12)]
    plan = made.plan(KeepPolicy(daily=3, last=4, wal=2 * DAY), 1)
    assert [name for name in stays(plan) if name in names] == [names[4], *names[6:]]
    assert why(plan, names[4]) == ["base of the WAL window of 2 days"]
    assert [name for name in stays(plan) if name in copies] == [copies[7]]
    assert why(plan, copies[7])[:2] == ["daily 2026-05-10", "newest of its lineage"]


def test_the_last_backup_of_an_abandoned_branch_stays_with_its_wal() -> None:
    made, _ = promoted()
    last = made.backup(EPOCH + 10 * DAY + 6 * HOUR, timeline=1)
    made.wal(241, 250)
    made.wal(312, 312 + 60 * 24, timeline=2)
    for day in range(13, 73):
        made.backup(EPOCH + day * DAY + 2 * HOUR, timeline=2)
    plan = made.plan(KeepPolicy(daily=2, wal=4 * DAY))
    assert why(plan, last) == ["newest of its lineage"]
    assert {246, 247, 248, 249, 250}.isdisjoint(gone(plan, 1))
    assert 245 in gone(plan, 1)


def upgraded(days: int) -> tuple[World, list[BackupId], list[BackupId]]:
    """Ten days under one system identifier, then some under another."""
    made, names = daily(10)
    made.wal(0, days * 24 + 239, system=OTHER)
    made.objects[OTHER] = [one for one in made.objects[OTHER] if one.number >= 240]
    later = [made.backup(EPOCH + (10 + day) * DAY + 2 * HOUR, system=OTHER) for day in range(days)]
    return made, names, later


def test_days_are_counted_across_an_upgrade() -> None:
    made, before, after = upgraded(2)
    plan = made.plan(KeepPolicy(daily=5, wal=3 * DAY))
    assert stays(plan) == [*before[7:], *after]
    # The old identifier's window still reaches into the span: its base is older than its start.
    assert [(window.system_id, window.base) for window in plan.windows] == [(OTHER, after[0]), (SYSTEM, before[8])]


def test_long_after_an_upgrade_the_last_backup_before_it_is_left() -> None:
    made, before, after = upgraded(30)
    plan = made.plan(KeepPolicy(daily=5, wal=3 * DAY))
    assert stays(plan) == [before[9], *after[25:]]
    assert why(plan, before[9]) == ["newest of its lineage"]
    assert gone(plan) == set(range(9 * 24 + 2))
    assert set(range(9 * 24 + 2, 240)).isdisjoint(gone(plan))


def test_right_after_an_upgrade_nothing_of_the_new_server_goes() -> None:
    made, before, _ = upgraded(0)
    made.wal(240, 300, system=OTHER)
    plan = made.plan(KeepPolicy(daily=5, wal=3 * DAY))
    assert before[9] in stays(plan)
    assert gone(plan, system=OTHER) == set()


def test_a_backup_of_an_unknown_system_identifier_stays() -> None:
    made, names = daily(3)
    made.backups[0] = replace(made.backups[0], system_id=77)
    facts = replace(made.facts(), archives=made.facts().archives[:1])
    plan = plan_retention(facts, KeepPolicy(last=1), EPOCH.tzinfo, EPOCH + 3 * DAY)  # type: ignore[arg-type]
    assert why(plan, names[0]) == ["the system identifier 77 is not known here"]


def test_wal_of_a_timeline_without_its_history_stays() -> None:
    made, _ = daily(10)
    made.wal(100, 120, timeline=5)
    made.unknown = {SYSTEM: frozenset({5})}
    plan = made.plan(KeepPolicy(daily=1, wal=HOUR))
    assert gone(plan, 5) == set()
    assert "timeline 5" in plan.warnings[0]


# --- what cannot be read, holds, proofs


def test_what_cannot_be_read_stays_with_the_wal_around_it() -> None:
    made, names = daily(10)
    lost = made.backups.pop(3).backup
    made.unreadable.append(Unreadable(lost, "its directory is torn"))
    plan = made.plan(KeepPolicy(daily=2, wal=1 * DAY))
    assert stays(plan) == [lost, names[8], names[9]]
    assert "never deleted" in why(plan, lost)[0]
    around = set(range(2 * 24 + 2, 4 * 24 + 4))
    assert around.isdisjoint(gone(plan))
    assert 2 * 24 + 1 in gone(plan) and 4 * 24 + 4 in gone(plan)
    assert "torn" in plan.warnings[0]


def test_when_nothing_can_be_read_nothing_goes() -> None:
    made, _ = daily(5)
    made.unreadable = [Unreadable(one.backup, "torn") for one in made.backups]
    made.backups = []
    plan = made.plan(KeepPolicy(daily=1, wal=HOUR))
    assert (plan.goes, plan.wal_goes) == ((), ())
    assert len(plan.stays) == 5


def test_a_held_backup_stays() -> None:
    made, names = daily(10)
    made.holds.append(Hold(names[1], "before the migration"))
    plan = made.plan(KeepPolicy(last=1, wal=1 * DAY))
    assert why(plan, names[1]) == ["hold: before the migration"]
    assert {24 + 2, 24 + 3}.isdisjoint(gone(plan)) and {24 + 1, 24 + 4} <= gone(plan)


def held(names: list[BackupId], base: int, begin: str, end: str) -> Hold:
    return Hold(names[base], "the incident", HeldWindow(1, at(begin), at(end)))


def test_a_held_window_keeps_every_moment_of_it() -> None:
    """From noon of May 3 (day 2) to noon of May 5: WAL to the start of the backup of May 6."""
    made, names = daily(20)
    made.holds.append(held(names, 2, "2026-05-03 12:00", "2026-05-05 12:00"))
    plan = made.plan(KeepPolicy(last=1, wal=1 * DAY))
    assert why(plan, names[2]) == ["hold 2026-05-03 12:00+0000 to 2026-05-05 12:00+0000: the incident"]
    assert set(range(2 * 24 + 2, 5 * 24 + 2 + 1)).isdisjoint(gone(plan))
    assert {2 * 24 + 1, 5 * 24 + 3} <= gone(plan)


def test_a_held_window_that_is_not_over_holds_to_the_end() -> None:
    made, names = daily(20)
    made.holds.append(held(names, 2, "2026-05-03 12:00", "2026-06-05 12:00"))
    assert gone(made.plan(KeepPolicy(last=1, wal=1 * DAY))) == set(range(2 * 24 + 2))


def test_a_hold_on_a_backup_that_there_is_not_is_said() -> None:
    made, _ = daily(2)
    made.holds.append(Hold(BackupId("20200101T000000Z-00000000"), "old"))
    assert "there is no such backup" in made.plan(KeepPolicy(last=1)).warnings[0]


def test_the_newest_proven_backup_stays() -> None:
    made, names = daily(10)
    made.proven = {names[1], names[3]}
    plan = made.plan(KeepPolicy(last=1, wal=1 * DAY))
    assert why(plan, names[3]) == ["newest proven of its lineage"]
    assert names[1] not in stays(plan)


# --- what it frees


def test_packs_are_freed_when_all_that_name_them_go() -> None:
    made, names = daily(4)
    a, b, c, d = names
    groups = (
        PackGroup(frozenset({a}), 1, 10), PackGroup(frozenset({a, b}), 2, 200), PackGroup(frozenset({b, c}), 4, 4000),
        PackGroup(frozenset({a, b, c, d}), 8, 80_000),
    )  # fmt: skip
    facts = replace(made.facts(), packs=groups)

    def plan(policy: KeepPolicy) -> RetentionPlan:
        return plan_retention(facts, policy, EPOCH.tzinfo, EPOCH + 4 * DAY)  # type: ignore[arg-type]

    freed = plan(KeepPolicy(last=2)).freed
    assert (freed.packs, freed.pack_bytes) == (3, 210)
    freed = plan(KeepPolicy(last=1)).freed
    assert (freed.packs, freed.pack_bytes) == (7, 4210)
    assert plan(KeepPolicy(last=4)).freed.pack_bytes == 0


def test_what_lies_beside_is_not_counted_although_the_cluster_has_few() -> None:
    """Three of the last backups are asked for, and the cluster's own branch has two: a copy's is none of them."""
    made, names = daily(2)
    made.histories[SYSTEM, 2] = history(2, (1, 30))
    made.wal(30, 47, timeline=2)
    copies = [made.backup(EPOCH + DAY + hour * HOUR, timeline=2) for hour in range(8, 14)]
    plan = made.plan(KeepPolicy(last=3, wal=2 * DAY), 1)
    assert stays(plan) == [*names, copies[-1]]
    assert why(plan, copies[-1]) == ["newest of its lineage"]
