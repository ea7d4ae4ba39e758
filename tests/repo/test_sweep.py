"""Sweeps: what they delete, when, and what they spare."""

from __future__ import annotations

import pytest

from pgkeep.errors import Damaged, Fault
from pgkeep.events import silent
from pgkeep.format import names
from pgkeep.repo.backups import backup_ids
from pgkeep.repo.census import take_census
from pgkeep.repo.deleting import condemned_packs, damaged_packs, mark_damaged, mark_retired, retire, retired_backups
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS, Lease, seen_leases
from pgkeep.repo.repository import Cluster
from pgkeep.repo.sweep import Fate, SweepResult, plan_sweep, sweep
from pgkeep.store.memory import MemoryStore
from pgkeep.values.ids import BackupId
from tests.format.samples import entropy
from tests.repo.story import Writer, back_up, content, everything, open_story, read_files, stored_packs
from tests.repo.test_deleting import condemn
from tests.store.clocks import HandClock

WAIT = LEASE_SECONDS + SKEW_SECONDS
A, B, C = b"a", b"b", b"c"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cluster(clock: HandClock) -> Cluster:
    return open_story(MemoryStore(clock), clock)


@pytest.fixture
def two(cluster: Cluster, clock: HandClock) -> tuple[BackupId, BackupId]:
    """The second backup inherits one of the first one's two files."""
    first = back_up(cluster, clock, 1, {A: content("a"), B: content("b")})
    clock.seconds += 1
    second = back_up(cluster, clock, 2, {B: content("b2")}, base=first, same=[A])
    clock.seconds += 1
    return first, second


def swept(cluster: Cluster, clock: HandClock, *, wait: bool = False) -> SweepResult:
    return sweep(cluster, clock, silent, wait=wait)


def test_without_anything_to_delete_nothing_happens(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    result = swept(cluster, clock)
    assert (result.condemned.packs, result.deleted.packs, result.waiting.packs) == (0, 0, 0)
    assert result.needed.packs == 3
    assert condemned_packs(cluster) == frozenset()
    assert seen_leases(cluster) == []


def test_what_only_a_retired_backup_needed_is_condemned_and_deleted_by_the_next_sweep(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    first, second = two
    before = stored_packs(cluster)
    assert retire(cluster, first, "daily: 1", clock)
    result = swept(cluster, clock)
    assert (result.condemned.packs, result.deleted.packs, result.waiting.packs) == (1, 0, 1)
    assert result.ready_in == WAIT
    assert stored_packs(cluster) == before
    assert retired_backups(cluster) == frozenset()
    clock.seconds += WAIT - 1
    result = swept(cluster, clock)
    assert (result.condemned.packs, result.deleted.packs, result.ready_in) == (0, 0, 1)
    clock.seconds += 1
    result = swept(cluster, clock)
    assert (result.deleted.packs, result.waiting.packs) == (1, 0)
    assert stored_packs(cluster) < before
    assert len(stored_packs(cluster)) == 2
    assert read_files(cluster, second) == {A: content("a"), B: content("b2")}
    assert not [key for key in everything(cluster.repository.store) if "condemned" in key or "retired" in key]


def test_one_sweep_can_wait_for_all_of_it(cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]) -> None:
    retire(cluster, two[0], "", clock)
    result = swept(cluster, clock, wait=True)
    assert (result.condemned.packs, result.deleted.packs, result.waiting.packs) == (1, 1, 0)
    assert sum(clock.slept) >= WAIT
    assert len(stored_packs(cluster)) == 2
    assert seen_leases(cluster) == []


def test_packs_of_a_running_backup_are_spared_and_those_of_a_killed_one_are_not(
    cluster: Cluster, clock: HandClock
) -> None:
    lease = Lease.take(cluster, clock, purpose="backup")
    writer = Writer(cluster, clock, 1, entropy("writer"), lease)
    writer.store({A: content("a")})
    result = swept(cluster, clock)
    assert (result.owned.packs, result.condemned.packs) == (1, 0)
    assert [owner.id for owner in result.owners] == [lease.id]
    clock.seconds += LEASE_SECONDS + SKEW_SECONDS + 1
    assert swept(cluster, clock).condemned.packs == 1
    clock.seconds += WAIT
    assert swept(cluster, clock).deleted.packs == 1
    assert stored_packs(cluster) == set()
    with pytest.raises(Fault) as caught:
        writer.commit()
    assert caught.value.code == "lease-lost"


def test_packs_that_are_older_than_any_running_backup_are_not_its_own(cluster: Cluster, clock: HandClock) -> None:
    Writer(cluster, clock, 1, entropy("killed")).store({A: content("a")})
    clock.seconds += SKEW_SECONDS + 1
    Lease.take(cluster, clock, purpose="backup")
    assert swept(cluster, clock).condemned.packs == 1


def test_a_reader_owns_no_packs(cluster: Cluster, clock: HandClock) -> None:
    Lease.take(cluster, clock, purpose="restore")
    Writer(cluster, clock, 1, entropy("killed")).store({A: content("a")})
    assert swept(cluster, clock).condemned.packs == 1


def test_a_backup_that_is_read_leaves_when_its_reader_has_ended(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    with Lease.take(cluster, clock, purpose="restore", bases=[two[0]]):
        assert not retire(cluster, two[0], "", clock)
        result = swept(cluster, clock)
        assert result.leaving == (two[0],)
        assert (result.condemned.packs, result.needed.packs) == (0, 3)
    result = swept(cluster, clock)
    assert (result.leaving, result.condemned.packs) == ((), 1)
    assert backup_ids(cluster) == [two[1]]


def test_a_backup_that_committed_between_census_and_condemnation_keeps_its_packs(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    """The list is there, its pack is needed after all: the next sweep sees that and takes the list away."""
    census = take_census(cluster)
    packs = stored_packs(cluster)
    plan = plan_sweep(census, [], clock.now(), leaving=frozenset(two))
    assert plan.count(Fate.UNNEEDED) == 3

    condemn(cluster, clock, *plan.packs(Fate.UNNEEDED))
    clock.seconds += WAIT
    result = swept(cluster, clock)
    assert (result.deleted.packs, result.waiting.packs) == (0, 0)
    assert stored_packs(cluster) == packs
    assert condemned_packs(cluster) == frozenset()


def test_a_plan_says_why_each_pack_stays_and_what_leaving_would_free(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    first, second = two
    census = take_census(cluster)
    size = int(census.sizes[0])
    assert plan_sweep(census, [], clock.now()).count(Fate.NEEDED) == 3
    assert census.freed_by() == {first: size, second: size}
    leaving = plan_sweep(census, [], clock.now(), leaving=frozenset(two))
    assert (leaving.count(Fate.UNNEEDED), leaving.bytes(Fate.UNNEEDED)) == (3, 3 * size)
    assert stored_packs(cluster) == set(leaving.packs(Fate.UNNEEDED))


def test_nothing_is_deleted_while_a_manifest_cannot_be_read(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    store, key = cluster.repository.store, names.backup(cluster.uuid, two[1])
    data = bytearray(store.get(key))
    data[600] ^= 1
    store.delete(key)
    store.put(key, [bytes(data)])
    retire(cluster, two[0], "", clock)
    with pytest.raises(Damaged) as caught:
        swept(cluster, clock)
    assert key in caught.value.hint
    assert condemned_packs(cluster) == frozenset()
    assert len(stored_packs(cluster)) == 3


def test_a_list_that_cannot_be_read_goes_in_its_time_and_what_it_held_is_condemned_anew(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    retire(cluster, two[0], "", clock)
    swept(cluster, clock)
    store = cluster.repository.store
    (key,) = [stat.key for stat in store.list(names.condemnations(cluster.uuid))]
    store.delete(key)
    store.put(key, [b"nonsense"])
    result = swept(cluster, clock)
    assert result.condemned.packs == 1
    clock.seconds += WAIT
    assert swept(cluster, clock).deleted.packs == 1
    assert list(store.list(names.condemnations(cluster.uuid))) == []


def test_the_store_s_clock_was_set_back(cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]) -> None:
    retire(cluster, two[0], "", clock)
    clock.seconds += 86400
    swept(cluster, clock)
    clock.seconds -= 86400
    result = swept(cluster, clock)
    assert (result.condemned.packs, result.ready_in) == (1, WAIT)
    clock.seconds += WAIT
    assert swept(cluster, clock).deleted.packs == 1


def test_marks_of_damage_go_with_their_packs_and_old_leases_go(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    for pack in stored_packs(cluster):
        mark_damaged(cluster, pack, "frame 0", clock)
    Lease.take(cluster, clock, purpose="restore")
    retire(cluster, two[0], "", clock)
    swept(cluster, clock)
    clock.seconds += WAIT
    swept(cluster, clock)
    assert damaged_packs(cluster) == stored_packs(cluster)
    assert len(seen_leases(cluster)) == 1
    clock.seconds += 86400
    swept(cluster, clock)
    assert seen_leases(cluster) == []


def test_a_mark_alone_is_finished_by_the_next_sweep(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    mark_retired(cluster, two[0], "", clock)
    assert swept(cluster, clock).condemned.packs == 1
    assert backup_ids(cluster) == [two[1]]
    assert retired_backups(cluster) == frozenset()


def test_a_sweep_that_was_stopped_for_too_long_deletes_nothing(
    cluster: Cluster, clock: HandClock, two: tuple[BackupId, BackupId]
) -> None:
    retire(cluster, two[0], "", clock)
    swept(cluster, clock)
    clock.seconds += WAIT
    before = stored_packs(cluster)

    def stop(_event: object) -> None:
        if "delet" in str(_event):
            clock.seconds += LEASE_SECONDS

    with pytest.raises(Fault) as caught:
        sweep(cluster, clock, stop)
    assert caught.value.code == "lease-lost"
    assert stored_packs(cluster) == before


def test_a_repository_of_tomorrow_is_not_swept(cluster: Cluster, clock: HandClock) -> None:
    cluster.repository.store.put(names.FEATURES + "tomorrow.write", [b""])
    with pytest.raises(Fault) as caught:
        swept(cluster, clock)
    assert caught.value.code == "format-unsupported"
