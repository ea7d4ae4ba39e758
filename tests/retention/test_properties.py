"""What holds for every policy and every history of a cluster: drawn at random."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from pgkeep.retention.facts import HeldWindow, Hold, RetentionFacts, Unreadable
from pgkeep.retention.plan import RetentionPlan, plan_retention
from pgkeep.retention.policy import KeepPolicy
from tests.retention.made import DAY, HOUR, SYSTEM, World, at, gone, history

EPOCH = at("2026-01-01 00:00")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Auckland")
counts = st.integers(0, 6)
policies = st.builds(
    KeepPolicy, daily=counts, weekly=counts, monthly=counts, yearly=st.integers(0, 2), last=counts,
    wal=st.none() | st.integers(0, 60 * 24).map(lambda hours: hours * HOUR),
).filter(lambda policy: policy.keeps_backups)  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn, *, orderly: bool = False) -> World:
    """Up to sixty days: backups of any hour, damaged ones of either kind, lost segments, wrong clocks, a promotion.

    `orderly`: clocks are right and no WAL is lost.
    """
    days = draw(st.integers(1, 60))
    made = World(EPOCH, draw(st.sampled_from(ZONES)))
    hours = days * 24
    promoted = draw(st.none() | st.integers(1, hours))
    if promoted is not None:
        made.histories[SYSTEM, 2] = history(2, (1, promoted))
    begun = sorted(draw(st.sets(st.integers(0, hours - 2), max_size=25)))
    for hour in begun:
        if promoted is not None and hour < promoted <= hour + 1:
            continue  # a promotion ends a backup
        timeline = 2 if promoted is not None and hour >= promoted else 1
        wrong = None if orderly else draw(st.none() | st.none() | st.none() | st.integers(-400, 400))
        clock = None if wrong is None else EPOCH + hour * HOUR + wrong * DAY
        made.backup(EPOCH + hour * HOUR, clock=clock, timeline=timeline, bad=draw(st.sampled_from((0, 0, 0, 2))))
    lost = set() if orderly else draw(st.sets(st.integers(0, hours), max_size=3))
    for number in range(hours):
        if number not in lost:
            made.wal(number, number, 1 if promoted is None or number < promoted else 2)
    if made.backups:
        made.damaged = {one.backup for one in draw(st.sets(st.sampled_from(made.backups), max_size=8))}
    held = draw(st.integers(0, 50))
    if held < len(made.backups):
        made.holds.append(Hold(made.backups[held].backup, "held"))
    return made


def facts_without(facts: RetentionFacts, plan: RetentionPlan) -> RetentionFacts:
    """What is left after the plan was carried out."""
    goes = {one.backup for one in plan.goes}
    dropped = {(run.system_id, one.name) for run in plan.wal_goes for one in run.objects}
    archives = tuple(
        type(archive)(
            archive.system_id, archive.segment_size, archive.histories,
            tuple(one for one in archive.objects if (archive.system_id, one.name) not in dropped), archive.unknown,
        )
        for archive in facts.archives
    )  # fmt: skip
    return replace(facts, archives=archives, backups=tuple(one for one in facts.backups if one.backup not in goes))


@given(worlds(), policies)
def test_safety(made: World, policy: KeepPolicy) -> None:
    """The newest stays, so does the newest whole one; all that is whole stays whole; what is held stays."""
    facts = made.facts()
    plan = made.plan(policy)
    goes = {one.backup for one in plan.goes}
    assert goes | {one.backup for one in plan.stays} == {one.backup for one in made.backups}
    assert goes.isdisjoint(one.backup for one in plan.stays)
    assert all(one.reasons for one in plan.stays)
    if not made.backups:
        assert not plan.wal_goes
        return
    by_position = sorted(made.backups, key=lambda one: one.stop_lsn)
    assert by_position[-1].backup not in goes
    whole = [one for one in by_position if facts.is_consistent(one)]
    whole = [one for one in whole if one.backup not in facts.damaged] or whole
    after = facts_without(facts, plan)
    if whole:
        assert whole[-1].backup not in goes
        clean = [one for one in whole if not one.bad_pages and one.backup not in facts.damaged]
        assert not clean or clean[-1].backup not in goes
        # Behind the newest whole one everything that was there is there.
        newest = {one.name for one in facts.archives[0].objects if one.number >= whole[-1].first_segment}
        assert newest <= {one.name for one in after.archives[0].objects}
    for one in after.backups:
        assert after.is_consistent(one) == facts.is_consistent(one)
    assert {hold.backup for hold in made.holds}.isdisjoint(goes)


@given(worlds(orderly=True), policies)
def test_every_moment_of_the_window_can_be_recovered_to(made: World, policy: KeepPolicy) -> None:
    """Each moment of the span that could be recovered to before, can be after."""
    facts = made.facts()
    after = facts_without(facts, made.plan(policy))
    numbers = {one.number for one in after.archives[0].objects} if after.archives else set()
    end = max((one.number for one in facts.archives[0].objects), default=0) if facts.archives else 0
    span = policy.wal if policy.wal is not None else timedelta()
    start = made.moment(end + 1) - span
    for hour in range(max(made.segment(start), 0), end + 1):
        moment = made.moment(hour) + timedelta(minutes=45)
        if moment < start or not any(one.stopped <= moment for one in facts.backups):
            continue
        base = max((one for one in after.backups if one.stopped <= moment), key=lambda one: one.stop_lsn)
        assert set(range(base.first_segment, hour + 1)) <= numbers
        sound = [one for one in after.backups if one.stopped <= moment and one.backup not in facts.damaged]
        if any(one.stopped <= moment and one.backup not in facts.damaged for one in facts.backups):
            base = max(sound, key=lambda one: one.stop_lsn)
            assert set(range(base.first_segment, hour + 1)) <= numbers, "from one whose packs are sound"


@given(worlds(orderly=True), policies)
def test_carried_out_it_leaves_nothing_to_do(made: World, policy: KeepPolicy) -> None:
    facts = made.facts()
    plan = made.plan(policy)
    now = made.moment(10_000)
    again = plan_retention(facts_without(facts, plan), policy, ZoneInfo(made.zone), now)
    assert (again.goes, again.wal_goes) == ((), ())
    assert {one.backup for one in again.stays} == {one.backup for one in plan.stays}


@given(worlds(), policies, st.randoms(use_true_random=False))
def test_the_order_of_the_facts_does_not_matter(made: World, policy: KeepPolicy, chance: random.Random) -> None:
    facts = made.facts()
    backups = list(facts.backups)
    chance.shuffle(backups)
    zone, now = ZoneInfo(made.zone), made.moment(10_000)
    shuffled = replace(facts, backups=tuple(backups))
    assert plan_retention(shuffled, policy, zone, now) == plan_retention(facts, policy, zone, now)


@given(worlds(), policies, st.sampled_from(("daily", "weekly", "monthly", "yearly", "last")), st.integers(1, 5))
def test_a_larger_number_keeps_all_that_a_smaller_one_does(
    made: World, policy: KeepPolicy, which: str, more: int
) -> None:  # fmt: skip
    larger: Any = {which: getattr(policy, which) + more}
    generous = replace(policy, **larger)
    fewer, all_ = made.plan(policy), made.plan(generous)
    if policy.wal is not None:
        assert {one.backup for one in fewer.stays} <= {one.backup for one in all_.stays}
        assert gone(all_) <= gone(fewer)


@given(worlds(orderly=True), policies.filter(lambda policy: policy.wal is not None), st.integers(0, 500))
def test_a_longer_window_keeps_all_the_wal_of_a_shorter_one(made: World, policy: KeepPolicy, hours: int) -> None:
    """Not all backups: the base of the longer one is another."""
    assert policy.wal is not None
    longer = replace(policy, wal=policy.wal + hours * HOUR)
    kept_alone = {
        number
        for one in made.plan(policy).stays
        if one.facts is not None and all(reason.kind == "window" for reason in one.reasons)
        for number in range(one.facts.first_segment, one.facts.last_segment + 1)
    }
    for timeline in (1, 2):
        assert gone(made.plan(longer), timeline) - kept_alone <= gone(made.plan(policy), timeline)


@given(worlds(), policies, st.data())
def test_what_cannot_be_read_changes_nothing_but_that_more_stays(
    made: World, policy: KeepPolicy, data: st.DataObject
) -> None:  # fmt: skip
    if not made.backups:
        return
    lost = data.draw(st.sampled_from(made.backups))
    made.backups.remove(lost)
    before = made.plan(policy)
    made.unreadable.append(Unreadable(lost.backup, "torn"))
    after = made.plan(policy)
    assert {one.backup for one in after.stays} == {one.backup for one in before.stays} | {lost.backup}
    assert after.goes == before.goes
    for timeline in (1, 2):
        assert gone(after, timeline) <= gone(before, timeline)


@given(worlds(orderly=True), policies, st.integers(0, 60 * 24), st.integers(1, 10 * 24))
def test_a_held_span_is_whole(made: World, policy: KeepPolicy, begin: int, hours: int) -> None:
    """Every segment from its base to its end stays, whatever the policy says."""
    start = EPOCH + begin * HOUR + timedelta(minutes=45)
    bases = [one for one in made.backups if one.stopped <= start]
    if not bases:
        return
    base = max(bases, key=lambda one: one.stop_lsn)
    newest = max(one.timeline for one in made.backups)
    made.holds.append(Hold(base.backup, "span", HeldWindow(newest, start, start + hours * HOUR)))
    plan = made.plan(policy)
    assert base.backup in {one.backup for one in plan.stays}
    segments = set(range(base.first_segment, made.segment(start + hours * HOUR) + 1))
    assert segments.isdisjoint(gone(plan, 1) | gone(plan, 2))
