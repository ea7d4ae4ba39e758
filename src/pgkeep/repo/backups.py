"""Manifests in the store: write (which makes the backup), list, read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.header import ObjectType, expect_header
from pgkeep.format.limits import DIRECTORY_HEAD_LENGTH, HEADER_LENGTH
from pgkeep.format.manifest import Entry, Inner, ManifestInfo, Outer, PackRef, SeenManifest
from pgkeep.format.manifestcodec import ManifestReader, encode_manifest
from pgkeep.format.section import directory_length
from pgkeep.repo.deleting import read_all_condemned
from pgkeep.repo.lease import Lease
from pgkeep.repo.moved import moved_index
from pgkeep.repo.repository import Cluster, refuse_unknown_features
from pgkeep.repo.window import Window
from pgkeep.values.ids import BackupId


def backup_ids(cluster: Cluster) -> list[BackupId]:
    """Every backup of the cluster, oldest first."""
    prefix = names.backups(cluster.uuid)
    found: list[BackupId] = []
    for stat in cluster.repository.store.list(prefix):
        try:
            found.append(BackupId(stat.key[len(prefix) :]))
        except ValueError:
            continue
    return found


def write_backup(
    cluster: Cluster, outer: Outer, inner: Inner, entries: Iterable[Entry], clock: Clock, lease: Lease | None = None
) -> BackupId:
    """Create the manifest: from this moment on the backup exists.  Everything it names must be durable.

    Steps 4 to 6 of docs/format/order.md.  format-unsupported when another pgkeep has since brought rules for writers
    that this one does not know; lease-lost; backup-invalidated when a pack is condemned or has gone meanwhile: then
    there is no manifest, or it was withdrawn.
    """
    refuse_unknown_features(cluster.repository.store, "write")
    if lease is not None:
        # Not renewed again before the manifest is there: so it is there within one lease of the look at condemnations.
        lease.renew()
    outer = replace(outer, packs=_check_packs(cluster, outer.packs, lease))
    backup = BackupId(outer.info.backup)
    key = names.backup(cluster.uuid, backup)
    header = cluster.repository.header(ObjectType.MANIFEST, key, clock)
    parts = encode_manifest(header, outer, inner, entries)
    if lease is not None:
        lease.check()
    cluster.repository.store.put(key, parts)
    try:
        _check_packs(cluster, outer.packs, lease)
    except Fault as fault:
        # Only what is certain: after an outage nobody knows, and the lease still protects what was written.
        if fault.code in ("backup-invalidated", "lease-lost", "format-damaged"):
            cluster.repository.store.delete(key)
        raise
    return backup


def _check_packs(cluster: Cluster, packs: Sequence[PackRef], lease: Lease | None) -> list[PackRef]:
    try:
        return check_packs(cluster, packs)
    except Fault as fault:
        if fault.code == "backup-invalidated" and lease is not None:
            lease.check()  # the reason, if it ran out
        raise


def check_packs(cluster: Cluster, packs: Sequence[PackRef]) -> list[PackRef]:
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
            raise _invalidated(names.pack(cluster.uuid, pack.id), pack, pack.id in condemned)
        checked.append(replace(pack, gone=True))
    return checked


def _invalidated(key: str, pack: PackRef, is_condemned: bool) -> Fault:
    if is_condemned:
        return Fault(
            "backup-invalidated",
            f"{key} was condemned by a prune while the backup ran",
            hint="back up again; a backup that keeps its lease does not meet this",
        )
    return Fault(
        "backup-invalidated",
        f"{key} was written and is not in the store any more with its {pack.footer.object_length} bytes",
        hint="check that the repository's file system stayed mounted, then back up again",
    )


def read_info(cluster: Cluster, backup: BackupId) -> ManifestInfo:
    """What a list shows, by one small range read.  backup-unknown, Damaged, format-unsupported."""
    return open_manifest(cluster, backup).info()


def open_manifest(cluster: Cluster, backup: BackupId) -> ManifestReader:
    """Header and directory verified, sections read on demand.  backup-unknown, Damaged, format-unsupported."""
    key = names.backup(cluster.uuid, backup)
    repository = cluster.repository
    window = Window(repository.store, key)
    try:
        head = bytes(window.get(0, HEADER_LENGTH))
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        raise Fault(
            "backup-unknown",
            f"there is no backup {backup} of cluster {cluster.name}",
            hint="see the backups with: pgkeep list",
        ) from None
    owner = names.object_id(key)
    expect_header(head, key, type_=ObjectType.MANIFEST, repository=repository.id, object_=owner)
    length = directory_length(window.get(HEADER_LENGTH, DIRECTORY_HEAD_LENGTH), key)
    return ManifestReader.open(head, window.get(HEADER_LENGTH, length), window.get, key)


def seen_manifests(cluster: Cluster) -> list[SeenManifest]:
    """(id, digest) of every manifest there is now, for the next one's SEEN section.

    Without those that cannot be read: an earlier backup's damage must not forbid the next one.
    """
    seen: list[SeenManifest] = []
    for backup in backup_ids(cluster):
        try:
            seen.append(SeenManifest(backup=backup, hash=open_manifest(cluster, backup).directory.digest))
        except Fault as fault:
            if fault.code not in ("format-damaged", "format-unsupported", "backup-unknown"):
                raise
    return seen


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest, its outer and inner part verified; paths and relations are read and verified on demand."""

    key: str
    reader: ManifestReader
    outer: Outer
    inner: Inner

    @property
    def info(self) -> ManifestInfo:
        return self.outer.info

    def entries(self) -> Iterator[Entry]:
        """Every path, ascending; Damaged for one that leaves the target."""
        return self.reader.entries()


def read_manifest(cluster: Cluster, backup: BackupId) -> Manifest:
    """backup-unknown, Damaged, format-unsupported."""
    reader = open_manifest(cluster, backup)
    return Manifest(reader.obj, reader, reader.outer(), reader.inner())
