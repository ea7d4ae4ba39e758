"""Roots: manifests of backups and of dumps.  Writing one makes it; opening one; that its packs are safe.

Steps 4 to 6 of docs/format/order.md are here, for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.header import Header, ObjectType, expect_header
from pgkeep.format.limits import DIRECTORY_HEAD_LENGTH, HEADER_LENGTH
from pgkeep.format.manifest import PackRef
from pgkeep.format.root import RootReader
from pgkeep.format.section import directory_length
from pgkeep.repo.deleting import read_all_condemned
from pgkeep.repo.lease import Lease
from pgkeep.repo.moved import moved_index
from pgkeep.repo.repository import Cluster, refuse_unknown_features
from pgkeep.repo.window import Window
from pgkeep.values.ids import BackupId, DumpId

Encode = Callable[[Header, Sequence[PackRef]], list[bytes]]
"""(header, pack table) -> the parts of the manifest."""
Root = TypeVar("Root", bound=RootReader)


Id = TypeVar("Id", bound=BackupId)


def ids_below(cluster: Cluster, prefix: str, parse: type[Id]) -> list[Id]:
    """The ids of the manifests below a prefix, oldest first; foreign names are passed by."""
    found: list[Id] = []
    for stat in cluster.repository.store.list(prefix):
        with suppress(ValueError):
            found.append(parse(stat.key[len(prefix) :]))
    return found


def root_ids(cluster: Cluster) -> list[BackupId]:
    """Every backup and every dump of the cluster: all that needs packs."""
    backups = ids_below(cluster, names.backups(cluster.uuid), BackupId)
    return [*backups, *ids_below(cluster, names.dumps(cluster.uuid), DumpId)]


def write_root(
    cluster: Cluster, key: str, type_: ObjectType, packs: Sequence[PackRef], encode: Encode, clock: Clock,
    lease: Lease | None, *, purpose: str,
) -> None:  # fmt: skip
    """Create a manifest: from this moment on it exists.  Everything it names must be durable.

    format-unsupported when another pgkeep has since brought rules for writers that this one does not know; lease-lost;
    backup-invalidated when a pack is condemned or has gone meanwhile: then there is no manifest, or it was withdrawn.
    """
    refuse_unknown_features(cluster.repository.store, "write")
    if lease is not None:
        # Not renewed again before the manifest is there: so it is there within one lease of the look at condemnations.
        lease.renew()
    checked = _check_packs(cluster, packs, lease, purpose)
    parts = encode(cluster.repository.header(type_, key, clock), checked)
    if lease is not None:
        lease.check()
    cluster.repository.store.put(key, parts)
    try:
        _check_packs(cluster, checked, lease, purpose)
    except Fault as fault:
        # Only what is certain: after an outage nobody knows, and the lease still protects what was written.
        if fault.code in ("backup-invalidated", "lease-lost", "format-damaged"):
            cluster.repository.store.delete(key)
        raise


def _check_packs(cluster: Cluster, packs: Sequence[PackRef], lease: Lease | None, purpose: str) -> list[PackRef]:
    try:
        return check_packs(cluster, packs, purpose)
    except Fault as fault:
        if fault.code == "backup-invalidated" and lease is not None:
            lease.check()  # the reason, if it ran out
        raise


def check_packs(cluster: Cluster, packs: Sequence[PackRef], purpose: str = "backup") -> list[PackRef]:
    """The packs as a manifest may name them now: those that have moved are flagged as gone.  backup-invalidated.

    Each is there with its size and not condemned, or all that is needed of it has moved to packs of which that holds.
    Condemnations come first: a sweep that has ended since leaves gaps among the sizes.  Those also tell a store that
    was swapped under a running backup.
    """
    condemned = read_all_condemned(cluster)
    index = moved_index(cluster.repository, cluster.uuid)
    moved = index.origins()
    prefix = names.packs(cluster.uuid)
    sizes = {stat.key[len(prefix) :]: stat.size for stat in cluster.repository.store.list(prefix)}

    def is_safe(pack: PackRef) -> bool:
        return pack.id not in condemned and sizes.get(str(pack.id)) == pack.footer.object_length

    checked: list[PackRef] = []
    for pack in packs:
        if is_safe(pack):
            checked.append(replace(pack, gone=False))
            continue
        found = index.pack(pack.id) if pack.id in moved else None
        if found is None or not found.covers(pack.live) or not all(map(is_safe, found.carriers_of(pack.live))):
            raise _invalidated(names.pack(cluster.uuid, pack.id), pack, pack.id in condemned, purpose)
        checked.append(replace(pack, gone=True))
    return checked


_AGAIN = {"backup": "back up again", "dump": "dump again"}


def _invalidated(key: str, pack: PackRef, is_condemned: bool, purpose: str) -> Fault:
    if is_condemned:
        return Fault(
            "backup-invalidated",
            f"{key} was condemned by a prune while the {purpose} ran",
            hint=f"{_AGAIN[purpose]}; a {purpose} that keeps its lease does not meet this",
        )
    return Fault(
        "backup-invalidated",
        f"{key} was written and is not in the store any more with its {pack.footer.object_length} bytes",
        hint=f"check that the repository's file system stayed mounted, then {_AGAIN[purpose]}",
    )


def open_root(cluster: Cluster, key: str, type_: ObjectType, reader: type[Root]) -> Root:
    """Header and directory verified, sections read on demand.  object-missing, Damaged, format-unsupported."""
    repository = cluster.repository
    window = Window(repository.store, key)
    head = bytes(window.get(0, HEADER_LENGTH))
    expect_header(head, key, type_=type_, repository=repository.id, object_=names.object_id(key))
    length = directory_length(window.get(HEADER_LENGTH, DIRECTORY_HEAD_LENGTH), key)
    return reader.open(head, window.get(HEADER_LENGTH, length), window.get, key)


def open_any(cluster: Cluster, root: BackupId) -> RootReader:
    """The manifest of a backup or a dump, for its pack table.  object-missing, Damaged, format-unsupported."""
    type_ = ObjectType.DUMP if isinstance(root, DumpId) else ObjectType.MANIFEST
    return open_root(cluster, names.root(cluster.uuid, root), type_, RootReader)
