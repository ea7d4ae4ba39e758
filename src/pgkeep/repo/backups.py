"""Manifests in the store: write (which makes the backup), list, read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.header import ObjectType
from pgkeep.format.keyed import stored_hash
from pgkeep.format.manifest import (
    Entry,
    Inner,
    ManifestInfo,
    Outer,
    SeenManifest,
    decode_entries,
    decode_info_only,
    decode_inner,
    decode_outer,
    encode_manifest,
)
from pgkeep.repo.repository import Cluster
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


def write_backup(cluster: Cluster, outer: Outer, inner: Inner, entries: Iterable[Entry], clock: Clock) -> BackupId:
    """Create the manifest: from this moment on the backup exists.  Everything it names must be durable."""
    backup = BackupId(outer.info.backup)
    key = names.backup(cluster.uuid, backup)
    header = cluster.repository.header(ObjectType.MANIFEST, key, clock)
    cluster.repository.store.put(key, encode_manifest(header, outer, inner, entries))
    return backup


def read_info(cluster: Cluster, backup: BackupId) -> ManifestInfo:
    """What a list shows.  backup-unknown, Damaged."""
    return decode_info_only(_read(cluster, backup), names.backup(cluster.uuid, backup))


def _read(cluster: Cluster, backup: BackupId) -> bytes:
    key = names.backup(cluster.uuid, backup)
    try:
        return cluster.repository.read(key, ObjectType.MANIFEST)
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        raise Fault(
            "backup-unknown",
            f"there is no backup {backup} of cluster {cluster.name}",
            hint="see the backups with: pgkeep list",
        ) from None


def seen_manifests(cluster: Cluster) -> list[SeenManifest]:
    """(id, hash) of every manifest there is now, for the next one's SEEN section."""
    return [
        SeenManifest(backup=backup, hash=stored_hash(cluster.repository.store.get(names.backup(cluster.uuid, backup))))
        for backup in backup_ids(cluster)
    ]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole manifest, verified; the paths are decoded on demand."""

    key: str
    data: bytes
    outer: Outer
    inner: Inner

    @property
    def info(self) -> ManifestInfo:
        return self.outer.info

    def entries(self) -> Iterator[Entry]:
        """Every path, ascending; Damaged for one that leaves the target."""
        return decode_entries(self.data, self.key, len(self.outer.packs))


def read_manifest(cluster: Cluster, backup: BackupId) -> Manifest:
    """backup-unknown, Damaged, format-unsupported."""
    data = _read(cluster, backup)
    key = names.backup(cluster.uuid, backup)
    return Manifest(key, data, decode_outer(data, key), decode_inner(data, key))
