"""The protocol of deletion under any order of events, and what must hold of it: a model for hypothesis and for scripts.

Two regimes.  *Honest*: the store's clock runs; then every manifest's packs are there at every moment, wherever jobs are
stopped, killed or resumed, and a backup that kept its lease does not fail.  *Jumping*: the store's clock may jump, so
that leases and lists look older or younger than they are; then every manifest's packs are there once its writer has
ended, unless that writer was killed in its last steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from pgkeep.errors import Fault
from pgkeep.events import silent
from pgkeep.format import names
from pgkeep.format.limits import FRAME_DATA
from pgkeep.format.manifest import PackRef
from pgkeep.repo import deleting, sweep
from pgkeep.repo.backups import backup_ids, read_manifest
from pgkeep.repo.deleting import condemned_packs, retired_backups
from pgkeep.repo.dumps import dump_ids, open_dump
from pgkeep.repo.dumpwriter import DumpWriter
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS, Lease
from pgkeep.repo.moved import moved_index
from pgkeep.repo.packreader import PackReader
from pgkeep.repo.repack import Budget
from pgkeep.repo.repository import Cluster
from pgkeep.repo.roots import open_any, root_ids
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.values.ids import BackupId, DumpId, ObjectId
from tests.format.samples import entropy
from tests.repo.dumped import FACTS
from tests.repo.interleaved import Actor
from tests.repo.story import PAGE, Files, Writer, back_up, backup_id, content, open_story, read_files, stored_packs

WAIT = LEASE_SECONDS + SKEW_SECONDS
PATHS = (b"a", b"b", b"c")
_REPACKING = Budget(worth=1)
_BEGAN = datetime(2026, 5, 7, 11, 29, tzinfo=UTC)


def fresh(number: int, path: bytes) -> bytes:
    """What a backup stores anew: one frame, so that a pack of several can be under half live."""
    return content(f"{number} {path!r}", FRAME_DATA // PAGE)


@dataclass
class Time:
    """Seconds since the beginning, and by how much the store's clock is ahead."""

    seconds: float = 0.0
    ahead: float = 0.0


@dataclass(frozen=True)
class HostClock:
    time: Time

    def now(self) -> datetime:
        return _BEGAN + timedelta(seconds=self.time.seconds)

    def monotonic(self) -> float:
        return self.time.seconds

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


@dataclass(frozen=True)
class StoreClock(HostClock):
    def now(self) -> datetime:
        return _BEGAN + timedelta(seconds=self.time.seconds + self.time.ahead)


class Lost(AssertionError):
    """A manifest names a pack that is not there."""


class Needless(AssertionError):
    """A job failed that should not have."""


@dataclass
class World:
    """A repository, its actors, and what each backup must hold."""

    time: Time = field(default_factory=Time)
    actors: list[Actor] = field(default_factory=list)
    expected: dict[BackupId, Files] = field(default_factory=dict)
    jumped: bool = False
    count: int = 0
    dumped: dict[DumpId, Files] = field(default_factory=dict)
    _packs: dict[str, tuple[PackRef, ...]] = field(default_factory=dict)
    _roots: dict[str, str] = field(default_factory=dict)
    """By the name of an actor the manifest that it will put."""

    def __post_init__(self) -> None:
        self.clock = HostClock(self.time)
        self.store = MemoryStore(StoreClock(self.time))
        self.cluster = open_story(self.store, self.clock)
        for number in (1, 2):
            self.count = number
            files = {path: fresh(number, path) for path in (PATHS if number == 1 else PATHS[:1])}
            base = backup_id(1) if number == 2 else None
            made = back_up(self.cluster, self.clock, number, files, base=base, same=PATHS, together=True)
            self.expected[made] = read_files(self.cluster, made)
            self.time.seconds += 86400

    def through(self, store: Store) -> Cluster:
        return replace(self.cluster, repository=replace(self.cluster.repository, store=store))

    # ---- what actors do

    def start_backup(self, changed: tuple[bytes, ...] = PATHS[:1]) -> Actor:
        self.count += 1
        number = self.count
        self._roots[f"backup {number}"] = names.backup(self.cluster.uuid, backup_id(number))
        return self._start(f"backup {number}", lambda store: self._back_up(self.through(store), number, changed))

    def _back_up(self, cluster: Cluster, number: int, changed: tuple[bytes, ...]) -> None:
        random_bytes = entropy(f"backup {number}")
        with Lease.take(cluster, self.clock, purpose="backup", entropy=random_bytes) as lease:
            base = self._base(cluster, lease)
            taken = self._inheritable(cluster, base, changed)
            writer = Writer(cluster, self.clock, number, random_bytes, lease, together=True)
            writer.store({path: fresh(number, path) for path in PATHS if path not in taken})
            if base is not None:
                writer.inherit(base, taken)
            old = self.expected[base] if base is not None else {}
            self.expected[backup_id(number)] = {
                path: old[path] if path in taken else fresh(number, path) for path in PATHS
            }
            writer.commit()

    def _base(self, cluster: Cluster, lease: Lease) -> BackupId | None:
        leaving = retired_backups(cluster)
        known = [backup for backup in backup_ids(cluster) if backup not in leaving]
        if not known:
            return None
        lease.name_bases(known[-1:])
        return known[-1] if deleting.still_there(cluster, known[-1]) else None

    def _inheritable(self, cluster: Cluster, base: BackupId | None, changed: tuple[bytes, ...]) -> list[bytes]:
        if base is None:
            return []
        bad = condemned_packs(cluster)
        manifest = read_manifest(cluster, base)
        packs = manifest.outer.packs
        return [e.path for e in manifest.entries() if packs[e.pack].id not in bad and e.path not in changed]

    def start_dump(self) -> Actor:
        self.count += 1
        number = self.count
        return self._start(f"dump {number}", lambda store: self._dump(self.through(store), number))

    def _dump(self, cluster: Cluster, number: int) -> None:
        draw = entropy(f"dump {number}")
        members = {path: fresh(number, path) for path in PATHS}
        with DumpWriter(cluster, self.clock, entropy=draw, ahead=False) as writer:
            self._roots[f"dump {number}"] = names.dump(cluster.uuid, writer.id)
            self.dumped[writer.id] = members
            for path, data in members.items():
                with writer.member(path) as member:
                    member.write(data)
                cluster.repository.store.list_parts("encoding/")
            writer.commit(FACTS)

    def start_sweep(self) -> Actor:
        self.count += 1
        draw = entropy(f"sweep {self.count}")
        name = f"sweep {self.count}"
        return self._start(name, lambda store: _sweep(self.through(store), self.clock, draw))

    def start_retire(self, backup: BackupId) -> Actor:
        return self._start(f"retire {backup}", lambda store: self._retire(self.through(store), backup))

    def _retire(self, cluster: Cluster, backup: BackupId) -> None:
        deleting.retire(cluster, backup, "", self.clock)

    def start_reader(self, backup: BackupId, *, leased: bool) -> Actor:
        """A restore; without a lease (it cannot write) it must be done within the time of one."""
        name = f"restore {backup}{'' if leased else ' without a lease'}"
        return self._start(name, lambda store: self._read(self.through(store), backup, leased=leased))

    def _read(self, cluster: Cluster, backup: BackupId, *, leased: bool) -> None:
        began = self.time.seconds
        lease = Lease.take(cluster, self.clock, purpose="restore", bases=[backup]) if leased else None
        if lease is not None and not deleting.still_there(cluster, backup):
            return
        try:
            packs = self._packs_in_order(cluster, backup)
        except Fault:
            return
        for pack in packs:
            try:
                PackReader.open(cluster.repository, cluster.uuid, pack.id, pack.footer)
            except Fault as fault:
                limit = lease.left() > 0 if lease is not None else self.time.seconds - began < LEASE_SECONDS
                if limit and not self.jumped:
                    raise Needless(f"a restore did not find {fault.message}") from fault
                return
            if lease is not None and lease.left() > 0:
                lease.renew_if_due()

    def _packs_in_order(self, cluster: Cluster, root: BackupId) -> list[PackRef]:
        """As a restore or a load needs them."""
        if isinstance(root, DumpId):
            return list(open_any(cluster, root).packs())
        manifest = read_manifest(cluster, root)
        return [manifest.outer.packs[entry.pack] for entry in manifest.entries()]

    def _start(self, name: str, job: object) -> Actor:
        actor = Actor(name, self.store, job)  # type: ignore[arg-type]
        self.actors.append(actor)
        return actor

    # ---- what happens

    def step(self, actor: Actor, calls: int = 1) -> None:
        for _ in range(calls):
            actor.step()
            self.check()
        if not actor.is_running and actor in self.actors:
            self.actors.remove(actor)
            self._check_end(actor)

    def until(self, actor: Actor, operation: str, part: str) -> None:
        """Let it run up to the call of this kind on a key that holds `part`."""
        while actor.waits_for is None or actor.waits_for[0] != operation or part not in actor.waits_for[1]:
            assert actor.is_running, f"{actor.name} ended before {operation} {part}: {actor.fault}"
            self.step(actor)

    def run(self, actor: Actor) -> None:
        while actor in self.actors:
            self.step(actor)

    def kill(self, actor: Actor) -> None:
        if self.jumped and self._is_committing(actor):
            actor.run()
        else:
            actor.kill()
        self.actors.remove(actor)
        self.check()

    def wait(self, seconds: float) -> None:
        """Time passes.  A manifest is put within the skew of the last look at its lease (docs/format/order.md)."""
        putting = any(a.waits_for is not None and self._is_manifest(a.waits_for) for a in self.actors)
        self.time.seconds += min(seconds, SKEW_SECONDS / 4) if putting else seconds

    def jump(self, seconds: float) -> None:
        """The store's clock is set."""
        self.jumped = True
        self.time.ahead += seconds

    def _is_manifest(self, call: tuple[str, str]) -> bool:
        return call[0] == "put" and call[1].startswith(
            (names.backups(self.cluster.uuid), names.dumps(self.cluster.uuid))
        )

    def _is_committing(self, actor: Actor) -> bool:
        """From the put of the manifest to the end of what follows it."""
        key = self._roots.get(actor.name)
        if key is None or actor.waits_for is None:
            return False
        return self._is_manifest(actor.waits_for) or any(stat.key == key for stat in self.store.list(key))

    # ---- what must hold

    def check(self) -> None:
        """Every manifest's packs are there."""
        there = stored_packs(self.cluster)
        committing = [self._roots[a.name] for a in self.actors if self.jumped and self._is_committing(a)]
        for root in root_ids(self.cluster):
            key = names.root(self.cluster.uuid, root)
            if key in committing:
                continue
            if key not in self._packs:
                self._packs[key] = tuple(open_any(self.cluster, root).packs())
            missing = [pack.id for pack in self._packs[key] if not self._places(pack, there) <= there]
            if missing:
                raise Lost(f"{root} names {missing}")

    def _places(self, pack: PackRef, there: set[ObjectId]) -> set[ObjectId]:
        """The packs where what a manifest needs of one lies: itself, or where it has moved to."""
        if pack.id in there:
            return {pack.id}
        moved = moved_index(self.cluster.repository, self.cluster.uuid).pack(pack.id)
        if moved is None or not moved.covers(pack.live):
            return {pack.id}
        return {carrier.id for carrier in moved.carriers_of(pack.live)}

    def _check_end(self, actor: Actor) -> None:
        fault = actor.fault
        allowed = {"lease-lost", "backup-unknown"}
        if self.jumped:
            allowed |= {"backup-invalidated"}
        if fault is not None and fault.code not in allowed:
            raise Needless(f"{actor.name}: {fault.message}")

    def finish(self) -> None:
        """Everything that runs ends; then the sweeps leave what is needed, and every backup is what it was."""
        for actor in list(self.actors):
            self.kill(actor)
        self.time.ahead = 0.0
        for _ in range(3):
            self.time.seconds += 2 * 86400
            _sweep(self.cluster, self.clock, entropy(f"last {self.time.seconds}"))
        self.check()
        there = stored_packs(self.cluster)
        references = [pack for root in root_ids(self.cluster) for pack in open_any(self.cluster, root).packs()]
        needed = {place for pack in references for place in self._places(pack, there)}
        assert there == needed, "packs that nobody needs were left"
        assert condemned_packs(self.cluster) == frozenset()
        for backup in backup_ids(self.cluster):
            assert read_files(self.cluster, backup) == self.expected[backup]
        for dump in dump_ids(self.cluster):
            reader = open_dump(self.cluster, dump)
            assert {one.name: b"".join(reader.read(one)) for one in reader.members()} == self.dumped[dump]


def _sweep(cluster: Cluster, clock: HostClock, draw: object) -> None:
    sweep.sweep(cluster, clock, silent, entropy=draw, budget=_REPACKING)  # type: ignore[arg-type]


def walk(seed: int, events: int = 60, *, jumps: bool = False) -> None:
    """One random run; raises Lost or Needless."""
    chance = random.Random(seed)
    world = World()
    try:
        for _ in range(events):
            act(world, chance, jumps=jumps)
        world.finish()
    finally:
        for actor in world.actors:
            actor.kill()


def act(world: World, chance: random.Random, *, jumps: bool) -> None:
    """One random event."""
    kind = chance.random()
    if kind < 0.12 and len(world.actors) < 4:
        begin(world, chance)
    elif kind < 0.2:
        world.wait(chance.choice([1, LEASE_SECONDS / 2, LEASE_SECONDS, WAIT, 2 * WAIT]))
    elif kind < 0.23 and world.actors:
        world.kill(chance.choice(world.actors))
    elif kind < 0.27 and jumps:
        world.jump(chance.choice([-1, 1]) * chance.choice([SKEW_SECONDS, WAIT, 2 * WAIT]))
    elif world.actors:
        world.step(chance.choice(world.actors), chance.choice([1, 1, 2, 3, 5, 8, 20, 100]))


def begin(world: World, chance: random.Random) -> None:
    known = root_ids(world.cluster)
    kind = chance.choice(["backup", "backup", "dump", "sweep", "sweep", "retire", "retire", "reader"])
    if kind == "dump":
        world.start_dump()
    elif kind == "backup":
        world.start_backup(tuple(path for path in PATHS if chance.random() < 0.5))
    elif kind == "sweep":
        world.start_sweep()
    elif known and kind == "retire":
        world.start_retire(chance.choice(known))
    elif known:
        world.start_reader(chance.choice(known), leased=chance.random() < 0.5)
