"""Leases: who believes in them, and until when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS, Lease, live_leases, seen_leases
from pgkeep.store.memory import MemoryStore
from tests.format.samples import BACKUP
from tests.repo.made import Made, make
from tests.store.clocks import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def made(clock: HandClock) -> Made:
    return make(MemoryStore(clock))


def test_a_lease_is_seen_with_what_it_names_and_gone_when_it_is_released(made: Made, clock: HandClock) -> None:
    with Lease.take(made.cluster, clock, purpose="backup", bases=[BACKUP]) as lease:
        (seen,) = seen_leases(made.cluster)
        assert seen.id == lease.id
        assert seen.info is not None
        assert (seen.info.purpose, seen.info.bases, seen.seconds) == ("backup", [BACKUP], LEASE_SECONDS)
        assert seen.names_backup(BACKUP)
        assert seen.is_live(clock.now())
        assert live_leases(made.cluster, clock.now(), but=lease) == []
    assert seen_leases(made.cluster) == []


def test_its_holder_gives_up_before_anybody_else_does(made: Made, clock: HandClock) -> None:
    lease = Lease.take(made.cluster, clock, purpose="backup", seconds=60)
    clock.seconds += 59
    lease.check()
    clock.seconds += 1
    for use in (lease.check, lease.renew, lease.renew_if_due, lease.store_time, lambda: lease.name_bases([BACKUP])):
        with pytest.raises(Fault) as caught:
            use()
        assert caught.value.code == "lease-lost"
    (seen,) = live_leases(made.cluster, clock.now())
    clock.seconds += SKEW_SECONDS
    assert seen.is_live(clock.now())
    clock.seconds += 1
    assert live_leases(made.cluster, clock.now()) == []


def test_it_is_renewed_when_a_third_has_passed_and_keeps_its_beginning(made: Made, clock: HandClock) -> None:
    lease = Lease.take(made.cluster, clock, purpose="backup", seconds=60)
    began = clock.now()
    for _ in range(20):
        clock.seconds += 10
        lease.renew_if_due()
    (seen,) = seen_leases(made.cluster)
    assert seen.first == began
    assert clock.now() - seen.newest <= timedelta(seconds=20)
    assert len(seen.keys) == 3
    assert seen.keys[0] == names.lease(made.cluster.uuid, lease.id, 1)


def test_other_bases_are_those_of_the_newest_renewal(made: Made, clock: HandClock) -> None:
    lease = Lease.take(made.cluster, clock, purpose="backup")
    assert not seen_leases(made.cluster)[0].names_backup(BACKUP)
    lease.name_bases([BACKUP])
    assert lease.bases == (BACKUP,)
    assert seen_leases(made.cluster)[0].names_backup(BACKUP)


def test_one_that_cannot_be_read_holds_everything_for_its_time(made: Made, clock: HandClock) -> None:
    Lease.take(made.cluster, clock, purpose="backup")
    key = seen_leases(made.cluster)[0].keys[0]
    made.store.delete(key)
    made.store.put(key, [b"nonsense"])
    (seen,) = live_leases(made.cluster, clock.now())
    assert seen.names_backup(BACKUP)
    assert not seen.is_live(clock.now() + timedelta(seconds=LEASE_SECONDS + SKEW_SECONDS + 1))


class Outage(MemoryStore):
    """Refuses to write while it is away; `lost`: writes, and the answer is lost."""

    away = False
    lost = False

    def put(self, key: str, parts: object) -> None:
        if self.away:
            raise Fault("store-unreachable", "away")
        super().put(key, parts)  # type: ignore[arg-type]
        if self.lost:
            raise Fault("store-unreachable", "the answer was lost")


def test_an_outage_that_is_shorter_than_the_lease_does_no_harm(clock: HandClock) -> None:
    store = Outage(clock)
    made = make(store)
    lease = Lease.take(made.cluster, clock, purpose="backup", seconds=60)
    store.away = True
    clock.seconds += 50
    lease.renew_if_due()
    store.away, store.lost = False, True
    lease.renew_if_due()
    store.lost = False
    lease.renew_if_due()
    assert lease.left() == 60
    assert seen_leases(made.cluster)[0].newest == clock.now()


def test_foreign_names_are_passed_by(made: Made, clock: HandClock) -> None:
    for name in ("notes", "notes/1", f"{'0' * 32}/first"):
        made.store.put(names.leases(made.cluster.uuid) + name + "x", [b"x"])
    assert seen_leases(made.cluster) == []
