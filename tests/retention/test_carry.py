"""Prunes of a repository in memory: what is gone, what is left, and what a killed one leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.deletion import PinInfo, PinWindow
from pgkeep.repo.lease import Lease
from pgkeep.repo.pins import pins, put_pin
from pgkeep.repo.repository import cluster_named, open_repository
from pgkeep.repo.walstock import read_pruned
from pgkeep.retention.gather import gather
from pgkeep.retention.policy import KeepPolicy
from pgkeep.store.memory import MemoryStore
from tests.format.samples import SYSTEM_ID
from tests.retention.lived import BentClock, Lived
from tests.store.faulty import Crash, Effect, FaultyStore

DAY = timedelta(days=1)
LEASE = timedelta(hours=2)
POLICY = KeepPolicy(daily=2, wal=1 * DAY)


def lived(days: int = 5) -> Lived:
    """A backup at the beginning of each day; each changes one of four files."""
    made = Lived()
    for day in range(days):
        made.backup([day % 4])
        made.live(made.clock.at.replace(hour=0, minute=0, second=0, microsecond=0) + DAY)
    return made


def test_what_no_rule_keeps_goes_and_the_rest_is_whole() -> None:
    made = lived()
    names_ = made.backups()
    before, packs = made.segments(), made.packs()
    plan = made.plan(POLICY)
    result = made.prune(POLICY, plan=plan)
    assert result.backups == tuple(names_[:3])
    assert made.backups() == names_[3:]
    assert [one.backup for one in plan.stays] == names_[3:]
    assert made.damage() == []
    # The window began a day before the newest WAL; its base is the backup of the day before that.
    base = gather(made.cluster, made.clock.now()).backups[0]
    assert made.segments() == [number for number in before if number >= base.first_segment]
    assert (result.segments, result.wal_bytes) == (len(before) - len(made.segments()), plan.freed.wal_bytes)
    # The packs are condemned, and go a lease later.
    assert result.sweep is not None
    assert (result.sweep.condemned.packs, result.sweep.condemned.bytes) == (plan.freed.packs, plan.freed.pack_bytes)
    assert made.packs() == packs
    made.clock.at += LEASE
    again = made.prune(POLICY)
    assert (again.backups, again.segments) == ((), 0)
    assert again.sweep is not None
    assert again.sweep.deleted.packs == plan.freed.packs == len(packs - made.packs())
    assert made.damage() == []


def test_what_was_pruned_is_written_down() -> None:
    made = lived()
    before = made.segments()
    made.prune(POLICY)
    after = made.segments()
    assert read_pruned(made.cluster).ranges == {(SYSTEM_ID, 1): [(before[0], after[0] - 1)]}


def test_a_plan_is_idempotent() -> None:
    made = lived(12)
    policy = KeepPolicy(daily=3, weekly=2, last=2, wal=2 * DAY)
    made.prune(policy)
    plan = made.plan(policy)
    assert (plan.goes, plan.wal_goes) == ((), ())


def killed(made: Lived, number: int, effect: Effect, store: MemoryStore) -> bool:
    """Die at one store call of a prune; whether it got that far."""
    try:
        made.prune(POLICY, FaultyStore.dying_at(number, store, effect))
    except Crash:
        return True
    return False


@pytest.mark.parametrize("effect", [Effect.BEFORE, Effect.AFTER])
def test_killed_at_every_store_call_it_leaves_a_valid_repository_and_the_next_goes_on(effect: Effect) -> None:
    made = lived(4)
    whole = made.copy_of_store()
    calls = FaultyStore(made.copy_of_store())
    made.prune(POLICY, calls)
    begin = made.clock.at
    done = _state(made, calls.inner)
    for number in range(1, len(calls.calls) + 1):
        made.clock.at = begin
        made.store = MemoryStore(made.clock)
        made.store._objects = dict(whole._objects)
        made.cluster = cluster_named(open_repository(made.store), made.cluster.name)
        assert killed(made, number, effect, made.store), number
        assert made.damage() == [], number
        made.clock.at += LEASE
        made.prune(POLICY)
        assert made.damage() == [], number
        made.clock.at += LEASE
        made.prune(POLICY)
        assert _state(made, made.store) == done, number


def _state(made: Lived, store: object) -> tuple[list[str], list[str]]:
    """The backups and the WAL that are left."""
    assert isinstance(store, MemoryStore)
    keys = [stat.key for stat in store.list(f"{made.cluster.uuid}/")]
    return [key for key in keys if "/backups/" in key], [key for key in keys if "/wal/" in key]


def test_a_hold_that_came_after_the_plan_is_heard() -> None:
    made = lived()
    held = made.backups()[0]
    plan = made.plan(POLICY)
    pin = PinInfo(backup=str(held), why="wait", until=None, by="somebody", released=False)
    put_pin(made.cluster, pin, made.clock)
    result = made.prune(POLICY, plan=plan)
    assert (result.held, held in made.backups()) == ((held,), True)
    assert made.damage() == []


def test_a_restore_that_came_after_the_plan_keeps_its_backup_and_the_wal_behind_it() -> None:
    made = lived()
    read, before = made.backups()[1], made.segments()
    plan = made.plan(POLICY)
    first = next(one.first_segment for one in gather(made.cluster, made.clock.now()).backups if one.backup == read)
    with Lease.take(made.cluster, made.clock, purpose="restore", bases=[read]):
        result = made.prune(POLICY, plan=plan)
        assert result.in_use == (read,)
        assert read in made.backups()
        assert made.segments() == [number for number in before if number >= first]
        # It is marked: whoever plans now sees that it goes.
        later = made.plan(POLICY)
        assert [(one.backup, one.note) for one in later.goes] == [(read, "an earlier prune has retired it")]
        assert later.wal_goes == ()
    made.prune(POLICY)
    assert read not in made.backups()
    assert made.damage() == []


def test_a_manifest_that_cannot_be_read_forbids_to_delete_packs() -> None:
    made = lived(6)
    torn = made.backups()[2]
    key = names.backup(made.cluster.uuid, torn)
    data = bytearray(made.store.get(key))
    data[700] ^= 1
    made.store.delete(key)
    made.store.put(key, [bytes(data)])
    packs = made.packs()
    plan = made.plan(POLICY)
    assert (plan.freed.packs, plan.freed.pack_bytes) == (None, None)
    result = made.prune(POLICY)
    assert not result.is_whole
    assert torn in made.backups() and len(result.backups) == 3
    made.clock.at += LEASE
    made.prune(POLICY)
    assert made.packs() == packs
    # Once it is put back, everything goes on.
    made.store.delete(key)
    data[700] ^= 1
    made.store.put(key, [bytes(data)])
    made.prune(POLICY)
    made.clock.at += LEASE
    made.prune(POLICY)
    assert made.packs() < packs
    assert made.damage() == []


def test_a_newer_pgkeeps_rules_forbid_everything() -> None:
    made = lived(3)
    made.store.put("features/future.write", [b"x"])
    with pytest.raises(Fault) as caught:
        made.prune(POLICY)
    assert caught.value.code == "format-unsupported"
    assert len(made.backups()) == 3


def test_thirty_days_of_hourly_wal_and_two_backups_a_day() -> None:
    """7 daily, 4 weekly, 12 monthly, 7 days of WAL, pruned every night: the days that must be there are there."""
    made = Lived(clock=_clock("2026-03-01"))
    policy = KeepPolicy(daily=7, weekly=4, monthly=12, wal=7 * DAY)
    for day in range(30):
        made.backup([day % 4])
        made.live(_day("2026-03-01", day) + timedelta(hours=12))
        made.backup([(day + 1) % 4])
        made.live(_day("2026-03-01", day + 1))
        made.prune(policy)
        assert made.damage() == []
    # March 1st is a Sunday.  Second backups of the last 7 days, of the Sundays before, and the bases of the window.
    kept = [name[:11] for name in made.backups()]
    assert kept == [
        "20260315T12", "20260322T12", "20260323T12", "20260324T12", "20260325T12", "20260326T12", "20260327T12",
        "20260328T12", "20260329T12", "20260330T12",
    ]  # fmt: skip
    assert len(made.segments()) < 9 * 24


def _clock(day: str) -> BentClock:
    return BentClock(datetime.fromisoformat(day).replace(tzinfo=UTC))


def _day(first: str, number: int) -> datetime:
    return datetime.fromisoformat(first).replace(tzinfo=UTC) + number * DAY


def test_a_held_span_ends_where_it_ended_also_when_the_backup_that_told_it_is_gone() -> None:
    """Held from noon of day 1 to noon of day 2: the backup of day 3 tells the last segment, and goes."""
    made = lived(6)
    base, behind = made.backups()[1], made.backups()[3]
    before = made.segments()
    numbers = {one.backup: one.first_segment for one in gather(made.cluster, made.clock.now()).backups}
    noon = _day("2026-03-01", 1) + timedelta(hours=12)
    window = PinWindow(begin=noon.isoformat(), end=(noon + DAY).isoformat(), timeline=1, why="the incident")
    pin = PinInfo(backup=str(base), why="", until=None, by="", released=False, windows=[window])
    put_pin(made.cluster, pin, made.clock)
    made.prune(POLICY)
    assert behind not in made.backups() and base in made.backups()
    kept = [number for number in before if numbers[base] <= number <= numbers[behind]]
    assert [number for number in made.segments() if number <= numbers[behind]] == kept
    assert numbers[behind] + 1 not in made.segments()
    assert pins(made.cluster)[base].windows[0].last == numbers[behind]
    made.clock.at += LEASE
    made.prune(POLICY)
    assert set(kept) <= set(made.segments())
    assert made.damage() == []


def test_a_year_of_nights() -> None:
    """7 daily, 4 weekly, 12 monthly, 2 yearly, pruned every Sunday: the days, Sundays and ends of months are there."""
    made = Lived(clock=_clock("2025-11-01"), step=timedelta(hours=8))
    policy = KeepPolicy(daily=7, weekly=4, monthly=12, yearly=2, wal=7 * DAY)
    for day in range(396):
        made.backup([day % 4])
        made.live(_day("2025-11-01", day + 1))
        if day % 7 == 1:
            made.prune(policy)
            made.clock.at = made.clock.at.replace(hour=0, minute=0) + timedelta(minutes=5)
    made.prune(policy)
    kept = [name[:8] for name in made.backups()]
    # Nights begin at 00:00 UTC, the same day in Berlin.  The last is December 1st, 2026, a Tuesday; the window began a
    # few minutes into November 25th, when that night's backup had not ended: the one before is its base.
    assert kept == [
        "20251231",
        "20260131", "20260228", "20260331", "20260430", "20260531", "20260630", "20260731", "20260831", "20260930",
        "20261031", "20261115", "20261122", "20261124", "20261125", "20261126", "20261127", "20261128", "20261129",
        "20261130", "20261201",
    ]  # fmt: skip
    made.clock.at += LEASE
    made.prune(policy)
    assert made.damage() == []
    assert len(made.packs()) < 21 * 4
