"""Retiring backups, marks, and the manifest's last steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.deletion import CondemnedInfo, PinInfo, encode_condemned
from pgkeep.format.header import ObjectType
from pgkeep.format.limits import MAX_CONDEMNED
from pgkeep.format.manifest import Outer, PackRef
from pgkeep.repo.backups import backup_ids, read_manifest, write_backup
from pgkeep.repo.deleting import (
    condemned_packs,
    damaged_packs,
    mark_damaged,
    mark_retired,
    retire,
    retired_backups,
    still_there,
    unmark_damaged,
)
from pgkeep.repo.features import DELETION
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS, Lease, seen_leases
from pgkeep.repo.pins import drop_pins, holds, pins, put_pin
from pgkeep.repo.repository import Cluster
from pgkeep.store.memory import MemoryStore
from pgkeep.values.ids import BackupId, ObjectId
from tests.format.samples import BACKUP, INFO, INNER, entropy
from tests.repo.made import Made, make
from tests.store.clocks import HandClock

NEXT = BackupId("20260508T112900Z-00000000")
PIN = PinInfo(backup=str(BACKUP), why="before the upgrade", until=None, by="ada", released=False)


class Spied(MemoryStore):
    """Calls `after_put` with the key of each put that is done."""

    after_put: Callable[[str], None] | None = None

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        super().put(key, parts)
        if self.after_put is not None:
            self.after_put(key)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def made(clock: HandClock) -> Made:
    return make(Spied(clock))


def condemn(cluster: Cluster, clock: HandClock, *packs: ObjectId) -> str:
    key = names.condemned(cluster.uuid, ObjectId(entropy("condemned")(16)))
    info = CondemnedInfo(writer="test", created="", lease=LEASE_SECONDS, skew=SKEW_SECONDS)
    header = cluster.repository.header(ObjectType.CONDEMNED, key, clock)
    cluster.repository.store.put(key, encode_condemned(header, info, packs))
    return key


def references(made: Made) -> Sequence[PackRef]:
    return read_manifest(made.cluster, BACKUP).outer.packs


def commit(made: Made, clock: HandClock, packs: Sequence[PackRef], lease: Lease | None = None) -> None:
    write_backup(made.cluster, Outer(replace(INFO, backup=str(NEXT)), [], packs), INNER, [], clock, lease)


def test_a_retired_backup_is_gone_and_its_packs_are_not(made: Made, clock: HandClock) -> None:
    assert retire(made.cluster, BACKUP, "daily: 7", clock)
    assert backup_ids(made.cluster) == []
    assert retired_backups(made.cluster) == {BACKUP}
    assert made.store.stat(names.pack(made.cluster.uuid, made.pack.id)).size == made.pack.footer.object_length
    assert made.store.list_parts(names.FEATURES) == [DELETION]
    assert retire(made.cluster, BACKUP, "again", clock)
    assert seen_leases(made.cluster) == []


def test_a_backup_that_somebody_reads_is_marked_and_stays(made: Made, clock: HandClock) -> None:
    Lease.take(made.cluster, clock, purpose="restore", bases=[BACKUP])
    assert not retire(made.cluster, BACKUP, "", clock)
    assert backup_ids(made.cluster) == [BACKUP]
    assert retired_backups(made.cluster) == {BACKUP}
    assert not still_there(made.cluster, BACKUP)
    clock.seconds += LEASE_SECONDS + SKEW_SECONDS + 1
    assert retire(made.cluster, BACKUP, "", clock)
    assert backup_ids(made.cluster) == []


def test_a_lease_that_names_another_backup_does_not_matter(made: Made, clock: HandClock) -> None:
    Lease.take(made.cluster, clock, purpose="restore", bases=[NEXT])
    assert retire(made.cluster, BACKUP, "", clock)


def test_what_is_held_does_not_leave(made: Made, clock: HandClock) -> None:
    put_pin(made.cluster, PIN, clock)
    with pytest.raises(Fault) as caught:
        retire(made.cluster, BACKUP, "", clock)
    assert caught.value.code == "backup-held"
    assert retired_backups(made.cluster) == frozenset()
    assert still_there(made.cluster, BACKUP)
    clock.seconds += 1
    put_pin(made.cluster, replace(PIN, released=True), clock)
    assert retire(made.cluster, BACKUP, "", clock)
    drop_pins(made.cluster, BACKUP)
    assert pins(made.cluster) == {}


def test_what_is_leaving_cannot_be_held(made: Made, clock: HandClock) -> None:
    mark_retired(made.cluster, BACKUP, "", clock)
    with pytest.raises(Fault) as caught:
        put_pin(made.cluster, PIN, clock)
    assert caught.value.code == "backup-retired"
    assert pins(made.cluster) == {}


def test_a_pin_ends_when_it_says_so(made: Made, clock: HandClock) -> None:
    ends = replace(PIN, until="2026-05-07T12:00:00+00:00")
    put_pin(made.cluster, ends, clock)
    assert holds(pins(made.cluster)[BACKUP], clock.now())
    clock.seconds += 3600
    assert not holds(pins(made.cluster)[BACKUP], clock.now())
    assert holds(replace(PIN, until="whenever"), clock.now())
    assert not holds(None, clock.now())


def test_a_pin_that_cannot_be_read_holds(made: Made, clock: HandClock) -> None:
    made.store.put(names.pin(made.cluster.uuid, BACKUP, ObjectId(bytes(16))), [b"nonsense"])
    assert holds(pins(made.cluster)[BACKUP], clock.now())


def test_marks_of_damage_come_and_go(made: Made, clock: HandClock) -> None:
    for _ in range(2):
        mark_damaged(made.cluster, made.pack.id, "frame 3", clock)
    assert damaged_packs(made.cluster) == {made.pack.id}
    unmark_damaged(made.cluster, made.pack.id)
    assert damaged_packs(made.cluster) == frozenset()


def test_nothing_is_committed_that_names_a_condemned_pack(made: Made, clock: HandClock) -> None:
    key = condemn(made.cluster, clock, made.pack.id)
    assert condemned_packs(made.cluster) == {made.pack.id}
    with pytest.raises(Fault) as caught:
        commit(made, clock, references(made))
    assert caught.value.code == "backup-invalidated"
    assert backup_ids(made.cluster) == [BACKUP]
    made.store.delete(key)
    commit(made, clock, references(made))


@pytest.mark.parametrize("gone", [False, True])
def test_a_condemnation_that_comes_with_the_manifest_withdraws_it(made: Made, clock: HandClock, gone: bool) -> None:
    """Also when the sweep has ended since: then it left a gap instead of its list."""

    def interfere(key: str) -> None:
        if key != names.backup(made.cluster.uuid, NEXT):
            return
        if gone:
            made.store.delete(names.pack(made.cluster.uuid, made.pack.id))
        else:
            condemn(made.cluster, clock, made.pack.id)

    packs = references(made)
    assert isinstance(made.store, Spied)
    made.store.after_put = interfere
    with pytest.raises(Fault) as caught:
        commit(made, clock, packs)
    assert caught.value.code == "backup-invalidated"
    assert backup_ids(made.cluster) == [BACKUP]


def test_a_lease_that_ran_out_commits_nothing(made: Made, clock: HandClock) -> None:
    lease = Lease.take(made.cluster, clock, purpose="backup", seconds=60)
    clock.seconds += 61
    with pytest.raises(Fault) as caught:
        commit(made, clock, references(made), lease)
    assert caught.value.code == "lease-lost"
    assert backup_ids(made.cluster) == [BACKUP]


def test_a_lease_that_runs_out_while_packs_are_looked_at_commits_nothing(made: Made, clock: HandClock) -> None:
    lease = Lease.take(made.cluster, clock, purpose="backup", seconds=60)

    def wait(key: str) -> None:
        if key.startswith(names.leases(made.cluster.uuid)):
            clock.seconds += 61

    packs = references(made)
    assert isinstance(made.store, Spied)
    made.store.after_put = wait
    with pytest.raises(Fault) as caught:
        commit(made, clock, packs, lease)
    assert caught.value.code == "lease-lost"
    assert backup_ids(made.cluster) == [BACKUP]


def test_a_list_of_condemned_packs_that_cannot_be_read_forbids_to_commit(made: Made, clock: HandClock) -> None:
    key = condemn(made.cluster, clock, made.pack.id)
    data = bytearray(made.store.get(key))
    data[-1] ^= 1
    made.store.delete(key)
    made.store.put(key, [bytes(data)])
    with pytest.raises(Damaged, match="condemned"):
        commit(made, clock, references(made))
    assert backup_ids(made.cluster) == [BACKUP]


def test_more_packs_than_one_list_may_hold_are_a_mistake(made: Made, clock: HandClock) -> None:
    packs = [ObjectId(number.to_bytes(16)) for number in range(MAX_CONDEMNED + 1)]
    key = condemn(made.cluster, clock, *packs[1:])
    assert condemned_packs(made.cluster) == frozenset(packs[1:])
    made.store.delete(key)
    with pytest.raises(ValueError, match="limit"):
        condemn(made.cluster, clock, *packs)
