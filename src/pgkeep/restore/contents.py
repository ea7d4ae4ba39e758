"""Read single small files out of a backup: its configuration, pg_control."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pgkeep.errors import Damaged, Fault
from pgkeep.format.extents import ExtentMap, decode_extents
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import Entry, EntryType, Place, Unit
from pgkeep.repo.backups import Manifest
from pgkeep.repo.packreader import PackReader, missing_as_damage
from pgkeep.repo.repository import Cluster
from pgkeep.restore.layout import units_of
from pgkeep.values.ids import ObjectId

MAX_SIZE: Final = 64 << 20
"""Bytes; what this module reads is held in memory."""


def file_contents(cluster: Cluster, manifest: Manifest, wanted: Collection[bytes]) -> dict[bytes, tuple[Entry, bytes]]:
    """The entries of those paths that the backup has, with their content.  Damaged, store-unreachable."""
    found: dict[bytes, tuple[Entry, bytes]] = {}
    for entry in manifest.entries():
        if entry.path in wanted and entry.type is EntryType.FILE:
            found[entry.path] = entry, entry_content(cluster, manifest, entry)
    return found


def entry_content(cluster: Cluster, manifest: Manifest, entry: Entry) -> bytes:
    """The whole content of one file."""
    if entry.size > MAX_SIZE:
        raise Damaged(manifest.key, f"gives {entry.size} bytes to {entry.path!r}, which is a small file")
    if entry.place is Place.NONE:
        return b""
    readers = _Readers(cluster, manifest)
    page_size = manifest.inner.server.block_size
    units = units_of(entry.size, entry.unit, page_size, manifest.key)
    kind = FrameKind.PAGES if entry.unit is Unit.PAGES else FrameKind.BYTES
    if entry.place is Place.INLINE:
        return readers.numbered(entry.pack).read_units(kind, entry.at, units)
    extents = _read_map(cluster, readers, entry)
    parts = [
        readers.named(extents.packs[int(pack)]).read_units(kind, int(ordinal), int(count))
        for count, pack, ordinal in zip(extents.count, extents.pack, extents.ordinal, strict=True)
    ]
    content = b"".join(parts)
    if len(content) != entry.size:
        raise Damaged(manifest.key, f"finds {len(content)} bytes for {entry.path!r}, expected {entry.size}")
    return content


def _read_map(cluster: Cluster, readers: _Readers, entry: Entry) -> ExtentMap:
    reader = readers.numbered(entry.pack)
    data = reader.read_units(FrameKind.MAPS, entry.at, entry.length)
    if cluster.repository.keys.extent_map(data) != entry.hash:
        raise Damaged(reader.key, f"holds another extent map than the manifest names for {entry.path!r}")
    return decode_extents(data, reader.key)


class _Readers:
    """Packs by their number in the manifest, or by their id."""

    def __init__(self, cluster: Cluster, manifest: Manifest) -> None:
        self._cluster = cluster
        self._manifest = manifest
        self._open: dict[ObjectId, PackReader] = {}

    def numbered(self, number: int) -> PackReader:
        pack = self._manifest.outer.packs[number]
        if pack.id not in self._open:
            try:
                reader = PackReader.open(self._cluster.repository, self._cluster.uuid, pack.id, pack.footer)
            except Fault as fault:
                raise missing_as_damage(fault, f"pack {pack.id}") from None
            self._open[pack.id] = reader
        return self._open[pack.id]

    def named(self, identity: ObjectId) -> PackReader:
        for number, pack in enumerate(self._manifest.outer.packs):
            if pack.id == identity:
                return self.numbered(number)
        raise Damaged(self._manifest.key, f"lacks the pack {identity} in its pack table")
