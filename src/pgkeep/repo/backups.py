"""Manifests in the store: write (which makes the backup), list, read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.header import Header, ObjectType
from pgkeep.format.manifest import Entry, Inner, ManifestInfo, Outer, PackRef, SeenManifest
from pgkeep.format.manifestcodec import ManifestReader, encode_manifest
from pgkeep.repo.lease import Lease
from pgkeep.repo.repository import Cluster
from pgkeep.repo.roots import ids_below, open_root, write_root
from pgkeep.values.ids import BackupId


def backup_ids(cluster: Cluster) -> list[BackupId]:
    """Every backup of the cluster, oldest first."""
    return ids_below(cluster, names.backups(cluster.uuid), BackupId)


def write_backup(
    cluster: Cluster, outer: Outer, inner: Inner, entries: Iterable[Entry], clock: Clock, lease: Lease | None = None
) -> BackupId:
    """Create the manifest: from this moment on the backup exists.  Everything it names must be durable.

    Steps 4 to 6 of docs/format/order.md.  format-unsupported when another pgkeep has since brought rules for writers
    that this one does not know; lease-lost; backup-invalidated when a pack is condemned or has gone meanwhile: then
    there is no manifest, or it was withdrawn.
    """
    backup = BackupId(outer.info.backup)

    def encode(header: Header, packs: Sequence[PackRef]) -> list[bytes]:
        return encode_manifest(header, replace(outer, packs=packs), inner, entries)

    key = names.backup(cluster.uuid, backup)
    write_root(cluster, key, ObjectType.MANIFEST, outer.packs, encode, clock, lease, purpose="backup")
    return backup


def read_info(cluster: Cluster, backup: BackupId) -> ManifestInfo:
    """What a list shows, by one small range read.  backup-unknown, Damaged, format-unsupported."""
    return open_manifest(cluster, backup).info()


def open_manifest(cluster: Cluster, backup: BackupId) -> ManifestReader:
    """Header and directory verified, sections read on demand.  backup-unknown, Damaged, format-unsupported."""
    try:
        return open_root(cluster, names.backup(cluster.uuid, backup), ObjectType.MANIFEST, ManifestReader)
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        raise Fault(
            "backup-unknown",
            f"there is no backup {backup} of cluster {cluster.name}",
            hint="see the backups with: pgkeep list",
        ) from None


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
