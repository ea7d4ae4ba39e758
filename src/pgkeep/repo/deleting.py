"""What is leaving the repository: retired backups, condemned packs; and packs that a verify found damaged.

Seen from a crash (docs/format/order.md): a retired mark alone deletes nothing; without its manifest a backup's packs
are only unreferenced; condemned packs are all still there.  `sweep` goes on wherever somebody stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from pgkeep.clock import Clock
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.deletion import DamagedInfo, RetiredInfo, decode_condemned
from pgkeep.format.header import ObjectType
from pgkeep.format.objects import encode_object
from pgkeep.repo.features import DELETION, WRITER, announce_feature
from pgkeep.repo.lease import Lease, live_leases
from pgkeep.repo.moved import moved_index
from pgkeep.repo.pins import holds, is_marked, pins
from pgkeep.repo.repository import Cluster
from pgkeep.store.port import ObjectStat
from pgkeep.values.ids import BackupId, DumpId, ObjectId

T = TypeVar("T")


def retired_backups(cluster: Cluster) -> frozenset[BackupId]:
    """Backups and dumps with the mark that they are leaving: no base, and listed as leaving.  The store's faults."""
    found = frozenset(name for name, _ in _named(cluster, names.retired_marks(cluster.uuid), BackupId))
    if not found:
        return found
    dumps = {dump for dump, _ in _named(cluster, names.dumps(cluster.uuid), DumpId)}
    # The mark does not say which of the two it is of.
    return frozenset(DumpId(name) if name in dumps else name for name in found)


def damaged_packs(cluster: Cluster) -> frozenset[ObjectId]:
    """Packs that the last verify to read them found damaged: nobody inherits from them.  The store's faults."""
    return frozenset(found for found, _ in _named(cluster, names.damaged_marks(cluster.uuid), ObjectId.parse))


def condemned_packs(cluster: Cluster) -> frozenset[ObjectId]:
    """Packs from which nobody inherits because they are about to be deleted.

    Not those whose frames have moved: they can be named as before.  Damaged when a list cannot be read: what it
    condemns is not known, so nothing may be inherited or committed.
    """
    condemned = read_all_condemned(cluster)
    if not condemned:
        return condemned
    index = moved_index(cluster.repository, cluster.uuid)
    moved = {
        origin
        for origin in condemned & index.origins()
        if (pack := index.pack(origin)) is not None
        and not any(carrier.id in condemned for carrier in pack.used_carriers())
    }
    return condemned - moved


def read_all_condemned(cluster: Cluster) -> frozenset[ObjectId]:
    """Every pack on any list.  Damaged when one cannot be read."""
    found: set[ObjectId] = set()
    for _, stat in _named(cluster, names.condemnations(cluster.uuid), ObjectId.parse):
        found.update(read_condemned(cluster, stat.key))
    return frozenset(found)


def read_condemned(cluster: Cluster, key: str) -> frozenset[ObjectId]:
    """The packs of one list; none when a sweep has finished it meanwhile.  Damaged."""
    try:
        return frozenset(decode_condemned(cluster.repository.read(key, ObjectType.CONDEMNED), key)[1])
    except Damaged as damage:
        damage.hint = "pgkeep prune condemns anew what this list held, and removes it"
        raise
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        return frozenset()


def _named(cluster: Cluster, prefix: str, parse: Callable[[str], T]) -> Iterator[tuple[T, ObjectStat]]:
    """The objects below `prefix` whose name is one of ours, and what the name says."""
    for stat in cluster.repository.store.list(prefix):
        with suppress(ValueError):
            yield parse(stat.key[len(prefix) :]), stat


def retire(cluster: Cluster, backup: BackupId, why: str, clock: Clock, lease: Lease | None = None) -> bool:
    """Let a backup or a dump leave: True when its manifest is gone, False when somebody reads it now.

    A later sweep goes on then.  `lease` is the caller's (purpose `prune`).  backup-held for one that is pinned, the
    store's faults.  Its packs stay until a sweep: others may need them.
    """
    announce_feature(cluster.repository, DELETION, clock)
    if lease is None:
        with Lease.take(cluster, clock, purpose="prune") as own:
            return retire(cluster, backup, why, clock, own)
    mark_retired(cluster, backup, why, clock)
    return finish_retired(cluster, backup, lease)


def mark_retired(cluster: Cluster, backup: BackupId, why: str, clock: Clock) -> None:
    """The mark: from now on nobody new relies on the backup."""
    key = names.retired(cluster.uuid, backup)
    info = RetiredInfo(backup=str(backup), why=why, writer=WRITER, created=clock.now().isoformat())
    try:
        header = cluster.repository.header(ObjectType.RETIRED, key, clock)
        cluster.repository.store.put(key, encode_object(header, info))
    except Fault as fault:
        if fault.code != "object-exists":
            raise


def finish_retired(cluster: Cluster, backup: BackupId, lease: Lease) -> bool:
    """Delete a marked backup's manifest, unless it is held (then the mark goes: backup-held), or read now (False).

    Marks come first and leases and pins are looked at then; whoever takes a lease or pins looks for marks after it.
    So of any two that meet, one sees the other.
    """
    now = lease.store_time()
    if holds(pins(cluster).get(backup), now):
        cluster.repository.store.delete(names.retired(cluster.uuid, backup))
        raise Fault(
            "backup-held",
            f"the {backup.noun} {backup} is held",
            hint=f"release it with: pgkeep hold --release {backup}",
        )
    if any(seen.names_backup(backup) for seen in live_leases(cluster, now, but=lease)):
        return False
    lease.check()
    cluster.repository.store.delete(names.root(cluster.uuid, backup))
    return True


def still_there(cluster: Cluster, backup: BackupId) -> bool:
    """Whether the manifest is there and not leaving: asked *after* a lease that names it is durable."""
    if is_marked(cluster, backup):
        return False
    try:
        cluster.repository.store.stat(names.root(cluster.uuid, backup))
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        return False
    return True


def mark_damaged(cluster: Cluster, pack: ObjectId, problem: str, clock: Clock) -> None:
    """Remember that a pack is damaged; the store's faults (a verify of a read-only store must expect them)."""
    key = names.damaged(cluster.uuid, pack)
    info = DamagedInfo(pack=str(pack), problem=problem, writer=WRITER, created=clock.now().isoformat())
    try:
        header = cluster.repository.header(ObjectType.DAMAGED, key, clock)
        cluster.repository.store.put(key, encode_object(header, info))
    except Fault as fault:
        if fault.code != "object-exists":
            raise


def unmark_damaged(cluster: Cluster, pack: ObjectId) -> None:
    """A later verify found the pack sound (it was put back from a copy), or it is gone."""
    cluster.repository.store.delete(names.damaged(cluster.uuid, pack))
