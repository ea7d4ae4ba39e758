"""Backups that share packs, in a few calls: for tests of what is deleted and what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_value

import numpy as np
from msgspec.structs import replace

from pgkeep.clock import Clock
from pgkeep.format import names
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import Entry, EntryType, Outer, PackRef, Place, Unit, live_bitmap
from pgkeep.repo.backups import backup_ids, read_manifest, write_backup
from pgkeep.repo.check import check_manifest, check_pack
from pgkeep.repo.lease import Lease
from pgkeep.repo.packreader import PackReader
from pgkeep.repo.packwriter import PackWriter, WrittenPack
from pgkeep.repo.repository import Cluster, create_repository, register_cluster
from pgkeep.store.port import Store
from pgkeep.values.ids import BackupId, ObjectId
from tests.format.samples import CLUSTER, INFO, INNER, entropy
from tests.repo.made import INCARNATION

PAGE = 8192
Files = dict[bytes, bytes]
"""Path -> content, whole pages."""


def open_story(store: Store, clock: Clock) -> Cluster:
    """A new repository with a cluster that has no backup yet."""
    repository = create_repository(store, clock, "pgkeep 0.1", entropy("story"))
    return register_cluster(repository, INCARNATION, clock, uuid=CLUSTER)


def backup_id(number: int) -> BackupId:
    return BackupId(f"20260507T{number // 3600:02d}{number // 60 % 60:02d}{number % 60:02d}Z-{number:08x}")


def content(seed: str, pages: int = 2) -> bytes:
    """Pages that do not compress, and are always the same."""
    return entropy(seed)(pages * PAGE)


@dataclass
class Writer:
    """One backup in the making: add what is new, inherit what is not, commit."""

    cluster: Cluster
    clock: Clock
    number: int
    draw: Callable[[int], bytes]
    lease: Lease | None = None
    together: bool = False
    written: list[WrittenPack] = field(default_factory=list)
    entries: dict[bytes, tuple[Entry, ObjectId]] = field(default_factory=dict)
    references: dict[ObjectId, PackRef] = field(default_factory=dict)
    live: dict[ObjectId, set[int]] = field(default_factory=dict)

    def store(self, files: Files) -> None:
        """Write files, each into a pack of its own unless `together`."""
        groups = [files] if self.together else [{path: data} for path, data in files.items()]
        for group in groups:
            self._store(group)
        self._enliven(list(files))

    def _store(self, files: Files) -> None:
        writer = PackWriter(self.cluster.repository, self.cluster.uuid, self.clock, page_size=PAGE, entropy=self.draw)
        for path, data in files.items():
            pages = len(data) // PAGE
            lsns = np.arange(pages, dtype=np.uint64) + np.uint64(len(self.entries) * 1000)
            pack, at = writer.add_pages(path, 0, memoryview(data), lsns)
            entry = Entry(
                path=path, type=EntryType.FILE, mode=0o600, size=len(data), unit=Unit.PAGES, place=Place.INLINE,
                pack=0, at=at,
            )  # fmt: skip
            self.entries[path] = (entry, pack)
        for done in writer.finish():
            self.written.append(done)
            self.references[done.id] = PackRef(done.id, done.footer, done.frames, b"")

    def inherit(self, base: BackupId, paths: Sequence[bytes]) -> None:
        """Take files over from a base; its packs are named again, with the frames that hold them."""
        manifest = read_manifest(self.cluster, base)
        packs = manifest.outer.packs
        for entry in manifest.entries():
            if entry.path in paths and entry.path not in self.entries:
                self.entries[entry.path] = (entry, packs[entry.pack].id)
                self.references.setdefault(packs[entry.pack].id, packs[entry.pack])
        self._enliven([path for path in paths if path in self.entries])

    def _enliven(self, paths: Sequence[bytes]) -> None:
        for path in paths:
            entry, pack = self.entries[path]
            reader = PackReader.open(
                self.cluster.repository, self.cluster.uuid, pack, self.references[pack].footer
            )  # fmt: skip
            ends = reader.frames.unit_ends(FrameKind.PAGES, PAGE)
            first = int(np.searchsorted(ends, entry.at, side="right"))
            last = int(np.searchsorted(ends, entry.at + entry.size // PAGE - 1, side="right"))
            self.live.setdefault(pack, set()).update(range(first, last + 1))

    def outer_and_entries(self) -> tuple[Outer, list[Entry]]:
        used = {pack for _, pack in self.entries.values()}
        packs = [self.references[pack] for pack in sorted(used)]
        number = {pack.id: at for at, pack in enumerate(packs)}
        rows = []
        for pack in packs:
            bits = np.zeros(pack.frames, np.bool_)
            bits[sorted(self.live[pack.id])] = True
            rows.append(PackRef(pack.id, pack.footer, pack.frames, live_bitmap(bits), pack.gone))
        entries = [replace(entry, pack=number[pack]) for _, (entry, pack) in sorted(self.entries.items())]
        return Outer(replace(INFO, backup=str(backup_id(self.number))), [], rows), entries

    def commit(self) -> BackupId:
        outer, entries = self.outer_and_entries()
        inner = replace_value(INNER, bad_pages=[])
        return write_backup(self.cluster, outer, inner, self._slowly(entries), self.clock, self.lease)

    def _slowly(self, entries: list[Entry]) -> Iterator[Entry]:
        """Encoding a manifest takes time, in which anything may happen: the call is where a test can stop it."""
        self.cluster.repository.store.list_parts("encoding/")
        yield from entries


def back_up(
    cluster: Cluster, clock: Clock, number: int, new: Files, *, base: BackupId | None = None,
    same: Sequence[bytes] = (), draw: Callable[[int], bytes] | None = None, together: bool = False,
) -> BackupId:  # fmt: skip
    """A whole backup, under a lease of its own."""
    random = draw or entropy(f"backup {number}")
    bases = [base] if base is not None else []
    with Lease.take(cluster, clock, purpose="backup", bases=bases, entropy=random) as lease:
        writer = Writer(cluster, clock, number, random, lease, together)
        writer.store(new)
        if base is not None:
            writer.inherit(base, same)
        return writer.commit()


def read_files(cluster: Cluster, backup: BackupId) -> Files:
    """What a restore would write."""
    manifest = read_manifest(cluster, backup)
    found: Files = {}
    for entry in manifest.entries():
        pack = manifest.outer.packs[entry.pack]
        reader = PackReader.open(cluster.repository, cluster.uuid, pack.id, pack.footer)
        found[entry.path] = reader.read_units(FrameKind.PAGES, entry.at, entry.size // PAGE)
    return found


def problems(cluster: Cluster) -> list[str]:
    """What a verify would say of every backup."""
    found: list[str] = []
    for backup in backup_ids(cluster):
        manifest = read_manifest(cluster, backup)
        found += [damage.problem for damage in check_manifest(cluster, manifest)]
        for pack in manifest.outer.packs:
            checked = check_pack(cluster.repository, cluster.uuid, pack.id, pack.footer)
            found += [damage.problem for damage in checked.damage]
    return found


def stored_packs(cluster: Cluster) -> set[ObjectId]:
    prefix = names.packs(cluster.uuid)
    return {ObjectId.parse(stat.key[len(prefix) :]) for stat in cluster.repository.store.list(prefix)}


def everything(store: Store) -> list[str]:
    return [stat.key for stat in store.list("")]
