"""A dump while the store fails, or the process dies, at each of its calls, one run for each.

After each: the dump exists and is whole, or there is none; everything else is what it was; and the next sweeps leave
exactly what is needed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from pgkeep.errors import Fault
from pgkeep.events import silent
from pgkeep.repo.checkdump import check_dump
from pgkeep.repo.dumps import dump_ids, open_dump
from pgkeep.repo.dumpwriter import DumpWriter
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS, seen_leases
from pgkeep.repo.repository import Cluster
from pgkeep.repo.roots import open_any, root_ids
from pgkeep.repo.sweep import sweep
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.values.ids import BackupId, DumpId
from tests.format.samples import entropy
from tests.repo.dumped import FACTS, add_dump
from tests.repo.story import Files, back_up, content, open_story, read_files, stored_packs
from tests.store.clocks import HandClock
from tests.store.faulty import Crash, Effect, FaultyStore, Strike

WAIT = LEASE_SECONDS + SKEW_SECONDS
EFFECTS = (Effect.BEFORE, Effect.AFTER, Effect.TORN)
MEMBERS = {
    b"globals.sql": b"roles",
    b"toc.dat": entropy("toc")(300_000),
    b"1.dat": entropy("1")(900_000),
    b"2.dat": b"",
}


@dataclass
class Stage:
    """A backup and a dump that are there, and a dump that is made."""

    clock: HandClock = field(default_factory=HandClock)
    backup: BackupId = field(init=False)
    files: Files = field(init=False)
    first: DumpId = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.cluster = open_story(self.store, self.clock)
        self.backup = back_up(self.cluster, self.clock, 1, {b"a": content("a")})
        self.files = read_files(self.cluster, self.backup)
        self.first = add_dump(self.cluster, members=MEMBERS, clock=self.clock)
        self.clock.seconds += 86400

    def through(self, store: Store) -> Cluster:
        return replace(self.cluster, repository=replace(self.cluster.repository, store=store))

    def dump(self, store: Store) -> None:
        with DumpWriter(self.through(store), self.clock, entropy=entropy("second"), ahead=False) as writer:
            writer._packs._target = 1 << 18
            for name, data in MEMBERS.items():
                with writer.member(name) as member:
                    for at in range(0, len(data), 1 << 17):
                        member.write(data[at : at + (1 << 17)])
            writer.commit(FACTS)

    def check(self) -> None:
        assert read_files(self.cluster, self.backup) == self.files
        assert self.first in dump_ids(self.cluster)
        for dump in dump_ids(self.cluster):
            reader = open_dump(self.cluster, dump)
            assert {one.name: b"".join(reader.read(one)) for one in reader.members()} == MEMBERS
            assert check_dump(self.cluster, dump) == []

    def finish(self) -> None:
        """The next sweeps."""
        for number in range(3):
            self.clock.seconds += 2 * 86400
            sweep(self.cluster, self.clock, silent, entropy=entropy(f"sweep {number}"))
            self.check()
        needed = {pack.id for root in root_ids(self.cluster) for pack in open_any(self.cluster, root).packs()}
        assert stored_packs(self.cluster) == needed
        assert seen_leases(self.cluster) == []


def calls() -> int:
    stage = Stage()
    counting = FaultyStore(stage.store)
    stage.dump(counting)
    stage.check()
    assert len(dump_ids(stage.cluster)) == 2
    stage.finish()
    return len(counting.calls)


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("effect", EFFECTS)
def test_at_every_call(effect: Effect, dies: bool) -> None:
    for number in range(1, calls() + 1):
        print(f"call {number}")
        stage = Stage()
        inner = stage.store
        store = FaultyStore.dying_at(number, inner, effect) if dies else FaultyStore(inner, Strike(effect, nth=number))
        with suppress(Fault, Crash):
            stage.dump(store)
        stage.check()
        stage.finish()


def test_a_fault_leaves_no_pack_behind() -> None:
    """What the store refuses while members are written: their packs are given back at once.

    Not once the manifest may be on its way: then nobody knows, and a sweep will.
    """
    stage = Stage()
    before = stored_packs(stage.cluster)
    counting = FaultyStore(Stage().store)
    stage.dump(counting)
    last = max(call.number for call in counting.calls if call.operation == "put" and "/packs/" in call.key)
    assert last > 5
    for number in range(1, last + 1):
        with pytest.raises(Fault):
            stage.dump(FaultyStore(stage.store, Strike(Effect.BEFORE, nth=number)))
        assert stored_packs(stage.cluster) == before, f"call {number}"


def test_a_dump_that_was_stopped_for_longer_than_its_lease_is_none() -> None:
    stage = Stage()
    before = stored_packs(stage.cluster)
    with pytest.raises(Fault) as caught, DumpWriter(stage.cluster, stage.clock, ahead=False) as writer:
        writer._packs._target = 1 << 18
        with writer.member(b"1.dat") as member:
            member.write(MEMBERS[b"1.dat"])
        stage.clock.seconds += WAIT + timedelta(hours=1).total_seconds()
        sweep(stage.cluster, stage.clock, silent)
        writer.commit(FACTS)
    assert caught.value.code == "lease-lost"
    assert dump_ids(stage.cluster) == [stage.first]
    assert stored_packs(stage.cluster) == before
