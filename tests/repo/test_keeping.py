"""A lease beside a job that reads."""

from __future__ import annotations

import time

import pytest

from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.events import Event, Warned
from pgkeep.repo.deleting import mark_retired, retire
from pgkeep.repo.keeping import kept
from pgkeep.repo.lease import seen_leases
from pgkeep.repo.repository import Cluster, cluster_named, open_repository
from pgkeep.store.memory import MemoryStore
from pgkeep.store.wrap.read_only import ReadOnlyStore
from tests.format.samples import BACKUP
from tests.repo.made import Made, make


@pytest.fixture
def made() -> Made:
    return make(MemoryStore())


def codes(events: list[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Warned)]


def test_what_is_read_does_not_leave_however_long_it_takes(made: Made) -> None:
    events: list[Event] = []
    with kept(made.cluster, SystemClock(), events.append, purpose="restore", bases=[BACKUP], seconds=3) as lease:
        assert lease is not None
        time.sleep(4)
        assert not retire(made.cluster, BACKUP, "", SystemClock())
        assert lease.left() > 0
    assert retire(made.cluster, BACKUP, "", SystemClock())
    assert codes(events) == []
    assert seen_leases(made.cluster) == []


def test_a_store_that_cannot_be_written_can_be_read(made: Made) -> None:
    read_only = cluster_named(open_repository(ReadOnlyStore(made.store)), "main")
    events: list[Event] = []
    with kept(read_only, SystemClock(), events.append, purpose="restore", bases=[BACKUP]) as lease:
        assert lease is None
    assert codes(events) == ["lease-unwritten"]


def test_a_backup_that_is_leaving_already_is_said(made: Made) -> None:
    mark_retired(made.cluster, BACKUP, "", SystemClock())
    events: list[Event] = []
    with kept(made.cluster, SystemClock(), events.append, purpose="restore", bases=[BACKUP]):
        pass
    assert codes(events) == ["backup-leaving"]


def test_a_lease_that_is_lost_is_said_and_the_job_goes_on(made: Made) -> None:
    events: list[Event] = []
    with kept(_away(made), SystemClock(), events.append, purpose="verify", bases=[BACKUP], seconds=1):
        time.sleep(3)
    assert codes(events) == ["lease-lost"]


class _Away(MemoryStore):
    """Takes the first lease, and then nothing more."""

    puts = 0

    def put(self, key: str, parts: object) -> None:
        self.puts += 1
        if self.puts > 1:
            raise Fault("store-unreachable", "away")
        super().put(key, parts)  # type: ignore[arg-type]


def _away(made: Made) -> Cluster:
    store = _Away()
    store._objects = made.store._objects  # type: ignore[attr-defined]
    return cluster_named(open_repository(store), "main")
