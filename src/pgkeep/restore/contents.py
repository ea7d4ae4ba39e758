"""Read single small files out of a backup: its configuration, pg_control."""

from __future__ import annotations

from typing import Final

from pgkeep.errors import Damaged, Fault
from pgkeep.format.extents import HOLE, ExtentMap
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import Entry, EntryType, Place, Unit
from pgkeep.repo.backups import Manifest
from pgkeep.repo.packreader import PackReader, missing_as_damage, read_extents
from pgkeep.repo.repository import Cluster
from pgkeep.restore.layout import units_of
from pgkeep.values.ids import ObjectId

MAX_SIZE: Final = 64 << 20
"""Bytes; what this module reads is held in memory."""


class Contents:
    """Small files of one backup; packs that were opened stay open.  Damaged, and the store's faults."""

    def __init__(self, cluster: Cluster, manifest: Manifest) -> None:
        self._cluster = cluster
        self._manifest = manifest
        self._open: dict[ObjectId, PackReader] = {}

    def find(self, path: bytes) -> Entry | None:
        """The entry of a file; None when the backup has none."""
        for entry in self._manifest.entries():
            if entry.path == path and entry.type is EntryType.FILE:
                return entry
        return None

    def of(self, entry: Entry) -> bytes:
        """The whole content of one file."""
        key = self._manifest.key
        if entry.size > MAX_SIZE:
            raise Damaged(key, f"gives {entry.size} bytes to {entry.path!r}, which is a small file")
        if entry.place is Place.NONE:
            return b""
        units = units_of(entry.size, entry.unit, self._manifest.inner.server.block_size, key)
        kind = FrameKind.PAGES if entry.unit is Unit.PAGES else FrameKind.BYTES
        if entry.place is Place.INLINE:
            return self._numbered(entry.pack).read_units(kind, entry.at, units)
        extents = self._map(entry)
        if extents.total() != units:
            raise Damaged(key, f"finds {extents.total()} units for {entry.path!r}, expected {units}")
        size = entry.size // units
        parts = [
            bytes(int(count) * size)
            if pack == HOLE
            else self._named(extents.packs[int(pack)]).read_units(kind, int(ordinal), int(count))
            for count, pack, ordinal in zip(extents.count, extents.pack, extents.ordinal, strict=True)
        ]
        content = b"".join(parts)
        if len(content) != entry.size:
            raise Damaged(key, f"finds {len(content)} bytes for {entry.path!r}, expected {entry.size}")
        return content

    def _map(self, entry: Entry) -> ExtentMap:
        keys = self._cluster.repository.keys
        return read_extents(self._numbered(entry.pack), entry.at, entry.length, entry.hash, keys)

    def _numbered(self, number: int) -> PackReader:
        pack = self._manifest.outer.packs[number]
        if pack.id not in self._open:
            try:
                reader = PackReader.open(self._cluster.repository, self._cluster.uuid, pack.id, pack.footer)
            except Fault as fault:
                raise missing_as_damage(fault, f"pack {pack.id}") from None
            self._open[pack.id] = reader
        return self._open[pack.id]

    def _named(self, identity: ObjectId) -> PackReader:
        for number, pack in enumerate(self._manifest.outer.packs):
            if pack.id == identity:
                return self._numbered(number)
        raise Damaged(self._manifest.key, f"lacks the pack {identity} in its pack table")
