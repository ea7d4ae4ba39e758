"""Backups made from a plain directory, for tests of restore alone: every place, unit and kind of entry occurs.

Independent of the backup room on purpose: what is restored is compared with the directory itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from pgkeep.clock import SystemClock
from pgkeep.format.extents import HOLE, ExtentMap, encode_extents
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import (
    Attachment,
    Entry,
    EntryType,
    Inner,
    ManifestInfo,
    Outer,
    PackRef,
    Place,
    ServerInfo,
    Tablespace,
    Unit,
    WalNeeds,
    WalRange,
    live_bitmap,
)
from pgkeep.format.objects import IncarnationInfo
from pgkeep.repo.backups import write_backup
from pgkeep.repo.packwriter import PackWriter
from pgkeep.repo.repository import Cluster, create_repository, register_cluster
from pgkeep.store.local import LocalStore
from pgkeep.values.ids import BackupId, ObjectId

PAGE = 8192
SYSTEM = 7_300_000_000_000_000_001
BACKUP = "20260507T112900Z-3f9a01c7"
Placed = tuple[ObjectId, int, int]
"""Pack, first ordinal, number of units."""
_NOWHERE = ObjectId(bytes(16))
LABEL = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"


def new_cluster(where: Path, system_id: int = SYSTEM) -> Cluster:
    """A repository in `where` with one cluster, "main"."""
    clock = SystemClock()
    repository = create_repository(LocalStore.create(where), clock, "test")
    info = IncarnationInfo(
        system_id=system_id, cluster_name="main", server_version=150019, first_seen="2026-05-07T11:00:00+00:00",
        wal_segment_size=16 << 20,
    )  # fmt: skip
    return register_cluster(repository, info, clock)


def info_of(**changes: object) -> ManifestInfo:
    fields: dict[str, object] = {
        "backup": BACKUP, "cluster": "6f1c2f0e-0000-4000-8000-000000000000", "cluster_name": "main", "writer": "test",
        "host": "here",
        "label": "test", "started": "2026-05-07T11:29:00+00:00", "stopped": "2026-05-07T11:30:00+00:00",
        "system_id": SYSTEM, "server_version": 150019, "timeline": 1, "start_timeline": 1, "start_lsn": 0x2000028,
        "stop_lsn": 0x2000130, "wal_segment_size": 16 << 20, "source": "primary", "method": "full",
        "method_reason": "first", "base": None, "base_proof": "", "logical_bytes": 0, "stored_bytes": 0, "pages": 0,
        "pages_changed": 0, "files": 0, "bad_pages": 0,
    }  # fmt: skip
    return ManifestInfo(**(fields | changes))  # type: ignore[arg-type]


def server_info(**changes: object) -> ServerInfo:
    fields: dict[str, object] = {
        "block_size": PAGE, "relation_segment_blocks": 131072, "wal_block_size": 8192, "data_checksum_version": 1,
        "wal_log_hints": False, "full_page_writes": True, "wal_level": "replica", "catalog_version": 202209061,
        "encoding": "UTF8", "timezone": "Europe/Moscow", "data_directory": "/var/lib/postgresql/15/main",
        "config_file": "/var/lib/postgresql/15/main/postgresql.conf",
        "hba_file": "/var/lib/postgresql/15/main/pg_hba.conf",
        "ident_file": "/var/lib/postgresql/15/main/pg_ident.conf", "owner": "postgres", "max_connections": 100,
        "max_worker_processes": 8, "max_wal_senders": 10, "max_prepared_transactions": 0,
        "max_locks_per_transaction": 64, "shared_preload_libraries": "", "track_commit_timestamp": False,
        "snapshot": "740:740:",
    }  # fmt: skip
    return ServerInfo(**(fields | changes))  # type: ignore[arg-type]


@dataclass
class DirectoryBackup:
    """Stores `source` as a backup.  `scatter` cuts every file into extents of that many units, in shuffled order.

    With `holes`, such extents that are all zeros lie nowhere, but for a file's last.
    """

    cluster: Cluster
    source: Path
    pack_target: int = 64 << 20
    scatter: int = 0
    holes: bool = False
    label: bytes = LABEL
    attachments: list[Attachment] = field(default_factory=list)
    server: ServerInfo = field(default_factory=server_info)
    info: dict[str, object] = field(default_factory=dict)

    def write(self) -> BackupId:
        """Make the packs and the manifest."""
        clock = SystemClock()
        writer = PackWriter(
            self.cluster.repository, self.cluster.uuid, clock, page_size=PAGE, pack_target=self.pack_target
        )
        placed: list[tuple[Entry, list[Placed]]] = []
        for path, full in self._walk():
            placed.append(self._entry(writer, path, full))
        numbers: dict[ObjectId, int] = {}
        entries = [self._placed(writer, entry, extents, numbers) for entry, extents in placed]
        known = {pack.id: pack for pack in writer.finish()}
        packs = [
            PackRef(known[pack].id, known[pack].footer, known[pack].frames,
                    live_bitmap(np.ones(known[pack].frames, np.bool_)))
            for pack in numbers
        ]  # fmt: skip
        entries.sort(key=lambda entry: entry.path)
        info = info_of(**{"cluster": str(self.cluster.uuid), **self.info})
        return write_backup(self.cluster, Outer(info, [], packs), self._inner(info), entries, clock)

    def _inner(self, info: ManifestInfo) -> Inner:
        links = [
            Tablespace(oid=int(path.name), name=b"space", location=os.fsencode(path.readlink()))
            for path in (self.source / "pg_tblspc").glob("*")
            if path.is_symlink()
        ]
        segment = info.start_lsn // info.wal_segment_size
        wal = WalNeeds(ranges=[WalRange(timeline=info.timeline, first=segment, last=segment)], history=b"")
        return Inner(self.server, self.label, b"", wal, [], [], [], self.attachments, links, [])

    def _walk(self) -> Iterator[tuple[bytes, str]]:
        """Depth does not matter: entries are sorted at the end."""
        for parent, directories, files in os.walk(self.source):
            for name in [*directories, *files]:
                full = os.path.join(parent, name)
                yield os.fsencode(os.path.relpath(full, self.source)), full
                if os.path.islink(full):
                    yield from self._walk_link(full)

    def _walk_link(self, link: str) -> Iterator[tuple[bytes, str]]:
        target = os.readlink(link)
        for parent, directories, files in os.walk(target):
            for name in [*directories, *files]:
                full = os.path.join(parent, name)
                below = os.path.relpath(full, target)
                yield os.fsencode(os.path.join(os.path.relpath(link, self.source), below)), full

    def _entry(self, writer: PackWriter, path: bytes, full: str) -> tuple[Entry, list[Placed]]:
        found = os.lstat(full)
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            return Entry(path=path, type=EntryType.LINKED_TABLESPACE, mode=0o700, size=0), []
        if stat.S_ISDIR(found.st_mode):
            in_place = os.path.dirname(path) == b"pg_tblspc"
            kind = EntryType.IN_PLACE_TABLESPACE if in_place else EntryType.DIRECTORY
            return Entry(path=path, type=kind, mode=mode, size=0), []
        relation = path.startswith((b"base/", b"pg_tblspc/")) or (
            path.startswith(b"global/") and os.path.basename(path)[:1].isdigit()
        )
        relation = relation and os.path.basename(path)[:1].isdigit()
        unit = Unit.PAGES if relation else Unit.BYTES
        content = Path(full).read_bytes()
        if unit is Unit.PAGES:
            content = content[: len(content) // PAGE * PAGE]
        entry = Entry(path=path, type=EntryType.FILE, mode=mode, size=len(content), unit=unit)
        return entry, self._store(writer, path, unit, memoryview(content))

    def _store(self, writer: PackWriter, path: bytes, unit: Unit, content: memoryview) -> list[Placed]:
        size = PAGE if unit is Unit.PAGES else 1
        # Bytes in larger extents: a file of a megabyte would be a million of them.
        step = (self.scatter or (2 << 20) // size) * (size if unit is Unit.PAGES or not self.scatter else 500)
        starts = list(range(0, len(content), step))
        if self.scatter:
            starts.sort(key=lambda start: (start * 2654435761) % 1000003)
        pieces: dict[int, Placed] = {}
        for start in starts:
            piece = content[start : start + step]
            if self.holes and start + step < len(content) and not any(piece):
                pieces[start] = _NOWHERE, 0, len(piece) // size
            else:
                pieces[start] = self._add(writer, path, start // size, piece, unit)
        return [pieces[start] for start in sorted(pieces)]

    @staticmethod
    def _add(writer: PackWriter, path: bytes, start: int, data: memoryview, unit: Unit) -> Placed:
        if unit is Unit.BYTES:
            return (*writer.add_bytes(path, start, data), len(data))
        halves = np.frombuffer(data, "<u4").reshape(-1, PAGE // 4)[:, :2].astype(np.uint64)
        lsns = halves[:, 0] << np.uint64(32) | halves[:, 1]
        return (*writer.add_pages(path, start, data, lsns), len(data) // PAGE)

    def _placed(self, writer: PackWriter, entry: Entry, extents: list[Placed], numbers: dict[ObjectId, int]) -> Entry:
        if not extents:
            return entry
        merged = [extents[0]]
        for pack, ordinal, count in extents[1:]:
            last = merged[-1]
            if pack == last[0] and ordinal == last[1] + last[2]:
                merged[-1] = (pack, last[1], last[2] + count)
            else:
                merged.append((pack, ordinal, count))
        stored = [extent for extent in merged if extent[0] != _NOWHERE]
        for pack, _, _ in stored:
            numbers.setdefault(pack, len(numbers))
        if len(merged) == 1:
            pack, ordinal, _ = merged[0]
            return replace(entry, place=Place.INLINE, pack=numbers[pack], at=ordinal)
        packs = tuple(dict.fromkeys(pack for pack, _, _ in stored))
        index = {pack: number for number, pack in enumerate(packs)} | {_NOWHERE: HOLE}
        data = encode_extents(
            ExtentMap(
                packs,
                np.array([count for _, _, count in merged], np.uint32),
                np.array([index[pack] for pack, _, _ in merged], np.uint32),
                np.array([ordinal for _, ordinal, _ in merged], np.int64),
            )
        )
        pack, at = writer.add_bytes(entry.path, 0, memoryview(data), FrameKind.MAPS)
        digest = self.cluster.repository.keys.extent_map(data)
        numbers.setdefault(pack, len(numbers))
        return replace(entry, place=Place.MAP, pack=numbers[pack], at=at, length=len(data), hash=digest)


def same_tree(left: Path, right: Path, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Differences between two trees: names, types, permission bits, bytes; link targets are not compared."""
    found = []
    here, there = _tree(left), _tree(right)
    for path in sorted((here.keys() | there.keys()) - ignore):
        if here.get(path) != there.get(path):
            found.append(f"{path}: {_brief(here.get(path))} / {_brief(there.get(path))}")
    return found


def _tree(root: Path) -> dict[str, tuple[str, int, bytes]]:
    found: dict[str, tuple[str, int, bytes]] = {}
    for parent, directories, files in os.walk(root, followlinks=True):
        for name in [*directories, *files]:
            path = Path(parent, name)
            mode = stat.S_IMODE(path.stat().st_mode)
            kind = "link" if path.is_symlink() else "directory" if path.is_dir() else "file"
            found[str(path.relative_to(root))] = (kind, mode, b"" if path.is_dir() else path.read_bytes())
    return found


def _brief(entry: tuple[str, int, bytes] | None) -> str:
    return "absent" if entry is None else f"{entry[0]} {entry[1]:o} {len(entry[2])} bytes"
