"""Retire, sweep and repack while the store fails, or the process dies, at each of their calls, one run for each.

After each: every backup that was not retired restores bit for bit, verify finds nothing, and the next sweeps leave
exactly what is needed.  The same while a restore reads, of a backup that stays or of one that is retired: it finds all
that it needs for as long as it keeps its lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from pgkeep.errors import Fault
from pgkeep.events import silent
from pgkeep.repo.backups import backup_ids, read_manifest
from pgkeep.repo.deleting import condemned_packs, retire, retired_backups
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS, Lease, seen_leases
from pgkeep.repo.moved import moved_index
from pgkeep.repo.repack import Budget
from pgkeep.repo.repository import Cluster
from pgkeep.repo.sweep import sweep
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.values.ids import BackupId, ObjectId
from tests.format.samples import entropy
from tests.repo.interleaved import Actor, Between
from tests.repo.story import Files, back_up, content, open_story, problems, read_files, stored_packs
from tests.store.clocks import HandClock
from tests.store.faulty import Crash, Effect, FaultyStore, Strike

WAIT = LEASE_SECONDS + SKEW_SECONDS
PATHS = [b"f%d" % number for number in range(6)]
BUDGET = Budget(worth=1)
EFFECTS = (Effect.BEFORE, Effect.AFTER, Effect.TORN)


class Stage:
    """Three backups; the first is retired: its packs are unneeded, or sparse, or (the third's) needed."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.store = MemoryStore(self.clock)
        self.cluster = open_story(self.store, self.clock)
        files = {path: content(path.decode(), 16) for path in PATHS}
        self.first = back_up(self.cluster, self.clock, 1, files, together=True)
        alone = {b"alone": content("alone", 1), b"shared": content("shared", 1)}
        self.second = back_up(self.cluster, self.clock, 2, alone, base=self.first, same=PATHS[2:4])
        new = {b"new": content("new", 1)}
        self.third = back_up(self.cluster, self.clock, 3, new, base=self.second, same=[*PATHS[2:4], b"shared"])
        self.kept: dict[BackupId, Files] = {self.third: read_files(self.cluster, self.third)}
        self.clock.seconds += 86400

    def through(self, store: Store) -> Cluster:
        return replace(self.cluster, repository=replace(self.cluster.repository, store=store))

    def prune(self, store: Store, name: str, wait: Callable[[], None] | None = None) -> None:
        """Retire two backups, sweep with repacking, and sweep again when it may be deleted."""
        cluster, draw = self.through(store), entropy(name)
        for backup in (self.first, self.second):
            retire(cluster, backup, "", self.clock)
        sweep(cluster, self.clock, silent, budget=BUDGET, entropy=draw)
        (wait or self.wait)()
        sweep(cluster, self.clock, silent, budget=BUDGET, entropy=draw)

    def wait(self) -> None:
        self.clock.seconds += WAIT

    def check(self) -> None:
        for backup in backup_ids(self.cluster):
            expected = self.kept.get(backup)
            assert expected is None or read_files(self.cluster, backup) == expected
        assert self.third in backup_ids(self.cluster)
        assert problems(self.cluster) == []

    def finish(self) -> None:
        """The next prunes."""
        for number in range(4):
            self.clock.seconds += 2 * 86400
            self.prune(self.store, f"again {number}")
            self.check()
        assert backup_ids(self.cluster) == [self.third]
        assert stored_packs(self.cluster) == self._needed()
        assert not condemned_packs(self.cluster) and not retired_backups(self.cluster)
        assert seen_leases(self.cluster) == []

    def _needed(self) -> set[ObjectId]:
        index = moved_index(self.cluster.repository, self.cluster.uuid)
        needed: set[ObjectId] = set()
        for pack in read_manifest(self.cluster, self.third).outer.packs:
            moved = index.pack(pack.id)
            needed |= {c.id for c in moved.carriers_of(pack.live)} if moved is not None else {pack.id}
        return needed


def calls() -> int:
    stage = Stage()
    counting = FaultyStore(stage.store)
    stage.prune(counting, "count")
    stage.check()
    stage.finish()
    return len(counting.calls)


def test_the_story_is_whole_and_repacks() -> None:
    stage = Stage()
    stage.prune(stage.store, "whole")
    assert moved_index(stage.cluster.repository, stage.cluster.uuid).objects
    assert backup_ids(stage.cluster) == [stage.third]
    stage.check()
    stage.finish()


def fail_at(number: int, effect: Effect, *, dies: bool) -> None:
    stage = Stage()
    store = (
        FaultyStore.dying_at(number, stage.store, effect)
        if dies
        else FaultyStore(stage.store, Strike(effect, nth=number))
    )
    with suppress(Fault, Crash):
        stage.prune(store, f"fails at {number}")
    stage.check()
    stage.finish()


class Reading:
    """A restore that reads all of a backup again and again, a store call of its own for each of the prune's."""

    def __init__(self, stage: Stage, backup: BackupId) -> None:
        self._stage = stage
        self._backup = backup
        self._expected = read_files(stage.cluster, backup)
        self._over = False
        self.lease = Lease.take(stage.cluster, stage.clock, purpose="restore", bases=[backup])
        self.actor = Actor(f"restore of {backup}", stage.store, self._read)

    def _read(self, store: Store) -> None:
        while not self._over:
            assert read_files(self._stage.through(store), self._backup) == self._expected

    def beside(self, store: Store) -> Store:
        """The store of the prune; each of its calls lets the restore make one."""
        return Between(store, lambda *_: self.actor.step())

    def wait(self) -> None:
        """Until what was condemned may be deleted; a restore renews its lease all the time."""
        for _ in range(8):
            self._stage.clock.seconds += WAIT / 8
            self.actor.step(5)
            self.lease.renew_if_due()

    def end(self) -> None:
        """It has read everything once more, after the prune has ended or died."""
        self._over = True
        self.actor.run()
        assert self.actor.fault is None
        self.lease.release()


def fail_beside(number: int, effect: Effect, *, dies: bool, leaves: bool) -> None:
    """A prune that fails while a restore reads a backup that stays, or (`leaves`) one that the prune retires."""
    stage = Stage()
    reading = Reading(stage, stage.second if leaves else stage.third)
    inner = reading.beside(stage.store)
    store = FaultyStore.dying_at(number, inner, effect) if dies else FaultyStore(inner, Strike(effect, nth=number))
    with suppress(Fault, Crash):
        stage.prune(store, f"fails at {number}", reading.wait)
    reading.end()
    stage.check()
    stage.finish()


def calls_beside(*, leaves: bool) -> int:
    stage = Stage()
    reading = Reading(stage, stage.second if leaves else stage.third)
    counting = FaultyStore(reading.beside(stage.store))
    stage.prune(counting, "count", reading.wait)
    reading.end()
    assert stage.second in backup_ids(stage.cluster) or not leaves
    stage.finish()
    return len(counting.calls)


def ways() -> Iterator[tuple[Effect, bool]]:
    for effect in EFFECTS:
        for dies in (False, True):
            yield effect, dies


@pytest.mark.parametrize(("effect", "dies"), list(ways()), ids=str)
def test_at_every_seventh_call(effect: Effect, dies: bool) -> None:
    for number in range(1 + 2 * EFFECTS.index(effect) + dies, calls() + 1, 7):
        print(f"call {number}")
        fail_at(number, effect, dies=dies)


@pytest.mark.campaign
@pytest.mark.parametrize(("effect", "dies"), list(ways()), ids=str)
def test_at_every_call(effect: Effect, dies: bool) -> None:
    for number in range(1, calls() + 1):
        print(f"call {number}")
        fail_at(number, effect, dies=dies)


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_while_a_restore_reads_at_sampled_calls(leaves: bool) -> None:
    last = calls_beside(leaves=leaves)
    for turn, (effect, dies) in enumerate(ways()):
        for number in range(1 + turn, last + 1, 41):
            print(f"call {number}, {effect}, {dies}")
            fail_beside(number, effect, dies=dies, leaves=leaves)


@pytest.mark.campaign
@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
@pytest.mark.parametrize(("effect", "dies"), list(ways()), ids=str)
def test_while_a_restore_reads_at_every_call(effect: Effect, dies: bool, leaves: bool) -> None:
    for number in range(1, calls_beside(leaves=leaves) + 1):
        print(f"call {number}")
        fail_beside(number, effect, dies=dies, leaves=leaves)


@pytest.mark.campaign
@pytest.mark.parametrize("effect", EFFECTS, ids=str)
def test_a_backup_that_fails_at_every_call(effect: Effect) -> None:
    """Its packs are swept, or it exists."""
    stage = Stage()
    counting = FaultyStore(stage.store)
    _back_up_through(stage, counting)
    for number in range(1, len(counting.calls) + 1):
        print(f"call {number}")
        stage = Stage()
        with suppress(Fault, Crash):
            _back_up_through(stage, FaultyStore.dying_at(number, stage.store, effect))
        stage.check()
        if len(backup_ids(stage.cluster)) == 4:
            retire(stage.cluster, backup_ids(stage.cluster)[-1], "", stage.clock)
        stage.finish()


def _back_up_through(stage: Stage, store: Store) -> None:
    new = {b"four": content("four", 1)}
    back_up(stage.through(store), stage.clock, 4, new, base=stage.third, same=PATHS[2:4])
