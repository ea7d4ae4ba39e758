"""Leases: whoever reads packs, or writes packs that no manifest names yet, says so for a time (docs/format/order.md).

1. The holder believes in its lease by its own monotonic clock, counted from before the lease was written; everybody
   else by the store's clock, counted from the store's Last-Modified, plus a skew.  So the holder gives up first.
2. A renewal is a new object; nothing is overwritten.  The first one stays until the end: packs that came after it may
   be its holder's.
3. A lease that has run out is never renewed: its packs may have been condemned meanwhile.
4. Whoever reads without a lease (a store that it cannot write) has the time between condemning and deleting.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.deletion import LeaseInfo
from pgkeep.format.header import ObjectType
from pgkeep.format.objects import decode_info, encode_object
from pgkeep.repo.repository import Cluster, Entropy
from pgkeep.store.port import ObjectStat
from pgkeep.values.ids import BackupId, ObjectId

LEASE_SECONDS: Final = 3600
"""Long enough that a store may be away for a while, short enough that a prune of today is done today."""
SKEW_SECONDS: Final = 600
"""What an observer grants besides: the holder's clock may run slower than the store's, and answers may be late."""
_RENEWALS: Final = 3
"""Renewals in the time of a lease: two may fail."""
_ATTEMPTS: Final = 3
_KEPT: Final = 3
"""Renewals that stay in the store: the first and the last two."""


class Lease:
    """A lease that this process holds; a context manager that releases it.  Not for several threads at once."""

    def __init__(
        self, cluster: Cluster, clock: Clock, lease_id: ObjectId, purpose: str, bases: Iterable[BackupId], seconds: int
    ) -> None:
        """Use `take`."""
        self.id = lease_id
        self.seconds = seconds
        self._cluster = cluster
        self._clock = clock
        self._purpose = purpose
        self._bases = tuple(sorted(set(bases)))
        self._number = 0
        self._since = clock.monotonic()
        """When the newest renewal began, by the monotonic clock."""

    @classmethod
    def take(
        cls, cluster: Cluster, clock: Clock, *, purpose: str, bases: Iterable[BackupId] = (),
        seconds: int = LEASE_SECONDS, entropy: Entropy = os.urandom,
    ) -> Self:  # fmt: skip
        """A new lease, durable in the store.  `purpose`: backup, restore, verify, prune, dump, load, ...

        The store's faults.
        """
        lease = cls(cluster, clock, ObjectId(entropy(16)), purpose, bases, seconds)
        try:
            lease._put()
        except Fault as fault:
            if fault.code in ("store-denied", "store-read-only"):
                # A lease is the first thing that a job writes, and no thing that its user has heard of.
                fault.message = f"the {purpose} cannot write to the repository: {fault.message}"
            raise
        return lease

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def bases(self) -> tuple[BackupId, ...]:
        """The backups that it names."""
        return self._bases

    def left(self) -> float:
        """Seconds that it is still good for; 0 or less once it has run out."""
        return self._since + self.seconds - self._clock.monotonic()

    def check(self) -> None:
        """lease-lost once its time is over, by the monotonic clock."""
        if self.left() <= 0:
            raise Fault(
                "lease-lost",
                f"this {self._purpose} was stopped, or the repository was away, for more than the {self.seconds}"
                " seconds of its lease: what it relies on may have been deleted meanwhile",
                hint="run it again; nothing that was stored before is harmed",
            )

    def renew(self) -> None:
        """Its whole time anew, now; lease-lost, the store's faults."""
        self.check()
        self._put()

    def renew_if_due(self) -> None:
        """Renew it when a third of its time has passed; lease-lost.  A store that is away is asked again next time."""
        self.check()
        if self.left() <= self.seconds * (_RENEWALS - 1) / _RENEWALS:
            try:
                self.renew()
            except Fault as fault:
                if fault.code != "store-unreachable":
                    raise

    def name_bases(self, bases: Iterable[BackupId]) -> None:
        """Renew it with other bases.  Only what is looked at *after* this is sure to stay (`deleting.still_there`)."""
        self.check()
        self._bases = tuple(sorted(set(bases)))
        self._put()

    def store_time(self) -> datetime:
        """What time it is by the store's clock: the Last-Modified of a renewal that is written now."""
        self.renew()
        return self._cluster.repository.store.stat(self._key(self._number)).modified

    def release(self) -> None:
        """End it.  What cannot be removed runs out by itself."""
        store = self._cluster.repository.store
        with suppress(Fault):
            for stat in list(store.list(names.leases(self._cluster.uuid) + f"{self.id}/")):
                store.delete(stat.key)

    def _key(self, number: int) -> str:
        return names.lease(self._cluster.uuid, self.id, number)

    def _put(self) -> None:
        began = self._clock.monotonic()
        info = LeaseInfo(
            holder=f"{os.uname().nodename} {os.getpid()}", purpose=self._purpose, bases=[str(b) for b in self._bases],
            seconds=self.seconds,
        )  # fmt: skip
        repository = self._cluster.repository
        for attempt in range(_ATTEMPTS):
            self._number += 1
            key = self._key(self._number)
            try:
                repository.store.put(key, encode_object(repository.header(ObjectType.LEASE, key, self._clock), info))
                break
            except Fault as fault:
                # Our own earlier attempt, whose answer was lost: its time, and perhaps its bases, are older.
                if fault.code != "object-exists" or attempt == _ATTEMPTS - 1:
                    raise
        self._since = began
        # The one before stays: a listing that runs meanwhile could else meet neither.
        if self._number > _KEPT:
            with suppress(Fault):
                repository.store.delete(self._key(self._number - _KEPT + 1))


@dataclass(frozen=True, slots=True)
class SeenLease:
    """Somebody's lease as the store shows it; times are by the store's clock."""

    id: ObjectId
    first: datetime
    """When it was taken: packs that are older are not its holder's."""
    newest: datetime
    info: LeaseInfo | None
    """None when it cannot be read: it is then taken to hold every backup."""
    keys: tuple[str, ...]

    @property
    def seconds(self) -> int:
        """How long each renewal is good."""
        return LEASE_SECONDS if self.info is None else self.info.seconds

    @property
    def until(self) -> datetime:
        """When it is over for everybody, unless its holder renews it before."""
        return self.newest + timedelta(seconds=self.seconds + SKEW_SECONDS)

    def is_live(self, now: datetime) -> bool:
        """Whether its holder may still rely on it.

        One from a far future is not live: the store's clock was set back, and a holder renews.
        """
        good = timedelta(seconds=self.seconds + SKEW_SECONDS)
        return -good <= now - self.newest <= good

    def names_backup(self, backup: BackupId) -> bool:
        """Whether its holder relies on this backup's manifest."""
        return self.info is None or backup in self.info.bases


def seen_leases(cluster: Cluster) -> list[SeenLease]:
    """Every lease in the store, also those that ran out; the store's faults."""
    prefix = names.leases(cluster.uuid)
    found: dict[ObjectId, list[ObjectStat]] = {}
    for stat in cluster.repository.store.list(prefix):
        lease_id, _, number = stat.key[len(prefix) :].partition("/")
        with suppress(ValueError):
            int(number)
            found.setdefault(ObjectId.parse(lease_id), []).append(stat)
    seen = (_read(cluster, lease_id, stats) for lease_id, stats in found.items())
    return [lease for lease in seen if lease is not None]


def _read(cluster: Cluster, lease_id: ObjectId, stats: list[ObjectStat]) -> SeenLease | None:
    """None for a lease that was released since it was listed."""
    while stats:
        key = stats[-1].key
        lease = SeenLease(lease_id, stats[0].modified, stats[-1].modified, None, tuple(stat.key for stat in stats))
        try:
            return replace(lease, info=decode_info(cluster.repository.read(key, ObjectType.LEASE), LeaseInfo, key))
        except Fault as fault:
            if fault.code in ("format-damaged", "format-unsupported"):
                return lease
            if fault.code != "object-missing":
                raise
        # Released, or renewed so often since: an older renewal may name other bases.
        stats = list(cluster.repository.store.list(names.leases(cluster.uuid) + f"{lease_id}/"))
    return None


def live_leases(cluster: Cluster, now: datetime, *, but: Lease | None = None) -> list[SeenLease]:
    """The leases on which somebody may rely at `now` (`Lease.store_time`), without one's own."""
    own = None if but is None else but.id
    return [lease for lease in seen_leases(cluster) if lease.is_live(now) and lease.id != own]
