"""Sweep: delete the packs that no backup needs, in two phases, without a lock (docs/format/order.md).

First the packs are condemned, then, at least one lease and the skew later, those that are still not needed are deleted.
Nobody has to wait in between: what one sweep condemned, the next one deletes, whoever runs it and wherever.

1. A list of condemned packs stays until each of its packs is gone, or needed by a backup.  So no pack that some sweep
   may still delete can be named by a new manifest.
2. Ages are those of the store: the Last-Modified of what is looked at, against that of something written now.
3. A sweep has a lease too, and deletes nothing once it has run out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Progress, Warned
from pgkeep.format import names
from pgkeep.format.deletion import CondemnedInfo, decode_condemned, encode_condemned
from pgkeep.format.header import ObjectType
from pgkeep.format.limits import MAX_CONDEMNED
from pgkeep.format.packtable import object_ids
from pgkeep.repo.census import Census, take_census
from pgkeep.repo.deleting import damaged_packs, finish_retired, retired_backups, unmark_damaged
from pgkeep.repo.features import DELETION, WRITER, announce_feature
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS, Lease, SeenLease
from pgkeep.repo.pins import drop_pins
from pgkeep.repo.repack import Budget, Repacked, repack
from pgkeep.repo.repository import Cluster, Entropy, refuse_unknown_features
from pgkeep.values.ids import BackupId, ObjectId

READERS: Final = frozenset({"restore", "verify", "load", "sandbox", "drill"})
"""Purposes of leases whose holders write no packs."""
_NAP: Final = 5.0
_OLD: Final = timedelta(days=1)
"""How long after it ran out a lease is removed: until then people may wonder whose it was."""


class Fate(IntEnum):
    """What a sweep does with a pack, and why it spares it."""

    NEEDED = 0
    """A backup needs it."""
    OWNED = 1
    """A job that runs may have written it: it is no older than that job's lease."""
    CONDEMNED = 2
    """It is on a list, and will be deleted when the list is old enough."""
    UNNEEDED = 3
    """Nobody needs it: to be condemned."""
    DOOMED = 4
    """It is on a list that is old enough: to be deleted."""


@dataclass(frozen=True, slots=True)
class CondemnedList:
    """A list of condemned packs in the store."""

    key: str
    packs: frozenset[ObjectId]
    written: datetime
    """By the store's clock."""
    wait: int
    """Seconds from then until its packs may be deleted."""

    def is_ripe(self, now: datetime) -> bool:
        return now - self.written >= timedelta(seconds=self.wait)


@dataclass(frozen=True, slots=True, eq=False)
class SweepPlan:
    """The fate of every pack of a census."""

    census: Census
    now: datetime
    """By the store's clock, before the census."""
    fate: npt.NDArray[np.uint8]

    def count(self, fate: Fate) -> int:
        """How many packs."""
        return int((self.fate == fate).sum())

    def bytes(self, fate: Fate) -> int:
        """Their bytes in the store."""
        return int(self.census.sizes[self.fate == fate].sum())

    def packs(self, fate: Fate) -> list[ObjectId]:
        """Their ids, ascending."""
        return object_ids(self.census.ids[self.fate == fate])


@dataclass(frozen=True, slots=True)
class Swept:
    """Packs and bytes."""

    packs: int = 0
    bytes: int = 0

    def plus(self, other: Swept) -> Swept:
        return Swept(self.packs + other.packs, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep did, and what it left."""

    condemned: Swept
    """Newly condemned."""
    deleted: Swept
    waiting: Swept
    """Condemned by this sweep or an earlier one, and not yet deleted."""
    ready_in: float
    """Seconds until the first of those may be deleted; 0 when nothing waits."""
    owned: Swept
    """Not needed by any backup, and perhaps a running job's."""
    needed: Swept
    leaving: tuple[BackupId, ...]
    """Backups that were retired, and are still being read."""
    repacked: Repacked = field(default_factory=Repacked)
    owners: tuple[SeenLease, ...] = ()
    """Whose leases spare what is `owned`: jobs that run, or that were killed not long ago."""


def plan_sweep(
    census: Census, lists: Iterable[CondemnedList], now: datetime, *,
    leaving: frozenset[BackupId] = frozenset(), own: ObjectId | None = None,
) -> SweepPlan:  # fmt: skip
    """Decide (pure).  `now` is the store's; `own` is the sweep's own lease; `leaving` are taken for gone."""
    fate = np.full(len(census.ids), Fate.UNNEEDED, np.uint8)
    for condemned in lists:
        places = census.places(condemned.packs)
        # A pack may be on two lists: the older one decides.
        fate[places] = np.maximum(_on_a_list(fate[places]), Fate.DOOMED if condemned.is_ripe(now) else Fate.CONDEMNED)
    since = _owned_since(census.leases, now, own)
    if since is not None:
        young = census.modified >= since
        fate[young & (fate != Fate.CONDEMNED) & (fate != Fate.DOOMED)] = Fate.OWNED
        fate[young & (fate == Fate.DOOMED)] = Fate.CONDEMNED
    fate[census.users(leaving) > 0] = Fate.NEEDED
    return SweepPlan(census, now, fate)


def _on_a_list(fate: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.where(fate == Fate.UNNEEDED, np.uint8(0), fate)


def _owned_since(leases: Iterable[SeenLease], now: datetime, own: ObjectId | None) -> float | None:
    """Packs that are no older may be of somebody who runs; None when nobody does."""
    first = min((lease.first for lease in _writers(leases, now, own)), default=None)
    return None if first is None else first.timestamp() - SKEW_SECONDS


def _writers(leases: Iterable[SeenLease], now: datetime, own: ObjectId | None) -> Iterator[SeenLease]:
    """The leases of others that may still write packs."""
    for lease in leases:
        is_writer = lease.info is None or lease.info.purpose not in READERS
        if is_writer and lease.id != own and lease.is_live(now):
            yield lease


def read_lists(cluster: Cluster, longest: int, announce: Announce) -> list[CondemnedList]:
    """Every list of condemned packs.  `longest` is the longest lease of which the caller knows, in seconds.

    One that cannot be read has no packs: it goes when it is ripe, and what it held is condemned anew.
    """
    found: list[CondemnedList] = []
    for stat in cluster.repository.store.list(names.condemnations(cluster.uuid)):
        lease, skew, packs = longest, SKEW_SECONDS, frozenset[ObjectId]()
        try:
            info, ids = decode_condemned(cluster.repository.read(stat.key, ObjectType.CONDEMNED), stat.key)
            lease, skew, packs = max(longest, info.lease), max(skew, info.skew), frozenset(ids)
        except Fault as fault:
            if fault.code == "object-missing":
                continue
            if fault.code != "format-damaged":
                raise
            announce(Warned("condemned-damaged", fault.message, "what it held is condemned anew"))
        found.append(CondemnedList(stat.key, packs, stat.modified, lease + skew))
    return found


def sweep(
    cluster: Cluster, clock: Clock, announce: Announce, *, wait: bool = False, seconds: int = LEASE_SECONDS,
    budget: Budget | None = None, entropy: Entropy = os.urandom,
) -> SweepResult:  # fmt: skip
    """Finish what earlier sweeps began, condemn what is not needed; with `wait` stay until that is deleted too.

    With a `budget`, packs under half live are repacked, and what they were is condemned.  `seconds` is the lease's.
    lease-lost, Damaged (a manifest that cannot be read), format-unsupported, the store's faults; wherever it ends, the
    repository is valid and the next sweep goes on.
    """
    refuse_unknown_features(cluster.repository.store, "write")
    announce_feature(cluster.repository, DELETION, clock)
    with Lease.take(cluster, clock, purpose="sweep", seconds=seconds, entropy=entropy) as lease:
        run = _Sweep(cluster, clock, announce, lease, entropy)
        result = run.once()
        if budget is not None and run.repack(budget):
            result = run.once()
        while wait and result.waiting.packs:
            run.rest(result.ready_in)
            result = run.once()
        return result


@dataclass
class _Sweep:
    """A sweep under way."""

    cluster: Cluster
    clock: Clock
    announce: Announce
    lease: Lease
    entropy: Entropy
    condemned: Swept = Swept()
    deleted: Swept = Swept()
    repacked: Repacked = field(default_factory=Repacked)

    def repack(self, budget: Budget) -> bool:
        """Move what is needed of sparse packs; whether anything was moved."""
        prefix = names.packs(self.cluster.uuid)
        sizes: dict[ObjectId, int] = {}
        for stat in self.cluster.repository.store.list(prefix):
            with suppress(ValueError):
                sizes[ObjectId.parse(stat.key[len(prefix) :])] = stat.size
        self.repacked = repack(self.cluster, sizes, self.clock, self.announce, self.lease, budget, self.entropy)
        return self.repacked.packs > 0

    def once(self) -> SweepResult:
        """Look, decide, act."""
        self.announce(Phase("sweep", "looking for packs that no backup needs"))
        leaving = self._finish_retired()
        # Time and lists before the census: what it finds unneeded is so when their time is over.
        now = self.lease.store_time()
        lists = self._lists()
        # The store's clock was set back since: nobody knows their age, so what they hold is condemned anew.
        undated = [each for each in lists if each.written - now > timedelta(seconds=SKEW_SECONDS)]
        dated = [each for each in lists if each not in undated]
        plan = plan_sweep(self._look(), dated, now, own=self.lease.id)
        self._delete(plan)
        self._drop_lists(dated, plan)
        self._condemn(plan)
        for each in undated:
            self._delete_object(each.key)
        self._tidy(plan)
        return self._result(plan, leaving)

    def _look(self) -> Census:
        return take_census(self.cluster, self.lease.renew_if_due)

    def rest(self, seconds: float) -> None:
        """Wait by the monotonic clock, keeping the lease."""
        self.announce(Phase("wait", f"waiting {seconds:.0f} seconds until what was condemned may be deleted"))
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 0:
            self.clock.sleep(min(left, _NAP, self.lease.seconds / 10))
            self.lease.renew_if_due()

    def _finish_retired(self) -> tuple[BackupId, ...]:
        """Marks whose manifest is gone go; those whose manifest is still read stay."""
        leaving: list[BackupId] = []
        for backup in sorted(retired_backups(self.cluster)):
            try:
                done = finish_retired(self.cluster, backup, self.lease)
            except Fault as fault:
                if fault.code != "backup-held":
                    raise
                continue
            if not done:
                leaving.append(backup)
                continue
            drop_pins(self.cluster, backup)
            self._delete_object(names.retired(self.cluster.uuid, backup))
        return tuple(leaving)

    def _lists(self) -> list[CondemnedList]:
        return read_lists(self.cluster, max(LEASE_SECONDS, self.lease.seconds), self.announce)

    def _delete(self, plan: SweepPlan) -> None:
        doomed = plan.packs(Fate.DOOMED)
        if not doomed:
            return
        self.announce(Phase("delete", f"deleting {len(doomed)} packs that were condemned before"))
        sizes = plan.census.sizes[plan.fate == Fate.DOOMED].tolist()
        for done, (pack, size) in enumerate(zip(doomed, sizes, strict=True), 1):
            self._delete_object(names.pack(self.cluster.uuid, pack))
            self.deleted = self.deleted.plus(Swept(1, size))
            self.announce(Progress(done, len(doomed), self.deleted.bytes, "objects"))

    def _drop_lists(self, lists: list[CondemnedList], plan: SweepPlan) -> None:
        """Lists of which every pack is gone, or needed (rule 1)."""
        for condemned in lists:
            fates = plan.fate[plan.census.places(condemned.packs)]
            if condemned.is_ripe(plan.now) and bool(((fates == Fate.NEEDED) | (fates == Fate.DOOMED)).all()):
                self._delete_object(condemned.key)

    def _condemn(self, plan: SweepPlan) -> None:
        """Packs that nobody needs, on as many lists as it takes."""
        packs = plan.packs(Fate.UNNEEDED)
        longest = max([LEASE_SECONDS, self.lease.seconds, *(lease.seconds for lease in plan.census.leases)])
        info = CondemnedInfo(
            writer=WRITER, created=self.clock.now().isoformat(), lease=longest, skew=SKEW_SECONDS
        )  # fmt: skip
        repository = self.cluster.repository
        for part in _chunks(packs):
            self.lease.renew_if_due()
            key = names.condemned(self.cluster.uuid, ObjectId(self.entropy(16)))
            header = repository.header(ObjectType.CONDEMNED, key, self.clock)
            repository.store.put(key, encode_condemned(header, info, part))
        self.condemned = self.condemned.plus(Swept(len(packs), plan.bytes(Fate.UNNEEDED)))

    def _tidy(self, plan: SweepPlan) -> None:
        """Leases that ran out long ago, and marks of damage of packs that are gone."""
        for lease in plan.census.leases:
            if abs(plan.now - lease.newest) >= _OLD + timedelta(seconds=lease.seconds + SKEW_SECONDS):
                for key in lease.keys:
                    self._delete_object(key)
        self._drop_moves(plan.census)
        deleted = frozenset(plan.packs(Fate.DOOMED))
        for pack in damaged_packs(self.cluster):
            if pack in deleted or not len(plan.census.places(frozenset({pack}))):
                unmark_damaged(self.cluster, pack)

    def _drop_moves(self, census: Census) -> None:
        """Moves of which every carrier was gone before this look, and none was needed."""
        for key, moves in census.moves.objects.items():
            packs = frozenset(carrier.id for carrier in moves.carriers)
            if not len(census.places(packs)) and not packs & census.carriers:
                self._delete_object(key)

    def _delete_object(self, key: str) -> None:
        self.lease.renew_if_due()
        self.cluster.repository.store.delete(key)

    def _result(self, plan: SweepPlan, leaving: tuple[BackupId, ...]) -> SweepResult:
        now = self.lease.store_time()
        waiting = frozenset[ObjectId]()
        ready = float("inf")
        for condemned in self._lists():
            if len(plan.census.places(condemned.packs)):
                waiting |= condemned.packs
                left = condemned.written + timedelta(seconds=condemned.wait) - now
                ready = min(ready, max(left.total_seconds(), 0.0))
        places = plan.census.places(waiting)
        owners = _writers(plan.census.leases, plan.now, self.lease.id) if plan.count(Fate.OWNED) else ()
        return SweepResult(
            condemned=self.condemned,
            deleted=self.deleted,
            waiting=Swept(len(places), int(plan.census.sizes[places].sum())),
            ready_in=ready if len(places) else 0.0,
            owned=Swept(plan.count(Fate.OWNED), plan.bytes(Fate.OWNED)),
            needed=Swept(plan.count(Fate.NEEDED), plan.bytes(Fate.NEEDED)),
            leaving=leaving,
            repacked=self.repacked,
            owners=tuple(owners),
        )


def _chunks(packs: list[ObjectId]) -> Iterator[list[ObjectId]]:
    for at in range(0, len(packs), MAX_CONDEMNED):
        yield packs[at : at + MAX_CONDEMNED]
