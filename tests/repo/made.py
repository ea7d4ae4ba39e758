"""A small repository in memory, made of every kind of object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from pgkeep.format.extents import HOLE, ExtentMap, encode_extents
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import Entry, EntryType, Outer, PackRef, Place, Unit, live_bitmap
from pgkeep.format.objects import ClaimInfo, IncarnationInfo
from pgkeep.repo.backups import seen_manifests, write_backup
from pgkeep.repo.packwriter import PackWriter, WrittenPack
from pgkeep.repo.repository import Cluster, Repository, create_repository, register_cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.port import Store
from tests.format.samples import CLUSTER, INFO, INNER, SEGMENT_SIZE, SYSTEM_ID, StepClock, entropy

PAGE = 8192
PAGES = b"".join(bytes([65 + page]) * 100 + bytes(PAGE - 100) for page in range(3))
LSNS = np.array([0x2000000, 0x2000058, 0], np.uint64)
SEGMENT = "000000020000000000000030"
WAL = b"WAL record " * 1000 + bytes(SEGMENT_SIZE - 11000)
HISTORY = INNER.wal.history
CLAIM = ClaimInfo(token=b"t" * 16, host="db1", data_directory="/srv/pg", claimed="2026-05-07T11:29:00+00:00")
INCARNATION = IncarnationInfo(
    system_id=SYSTEM_ID, cluster_name="main", server_version=170011, first_seen="2026-05-07T11:29:00+00:00",
    wal_segment_size=SEGMENT_SIZE,
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """The repository and what was put into it."""

    store: Store
    repository: Repository
    cluster: Cluster
    archive: WalArchive
    pack: WrittenPack
    entries: list[Entry]


def make(store: Store) -> Made:
    """Header, incarnation, pack, manifest, segment, partial, history, claim: always the same bytes."""
    clock, random = StepClock(), entropy("fixture")
    repository = create_repository(store, clock, "pgkeep 0.1", random)
    cluster = register_cluster(repository, INCARNATION, clock, uuid=CLUSTER)
    pack, entries = _pack(repository, cluster, clock)
    table = [PackRef(pack.id, pack.footer, pack.frames, live_bitmap(np.ones(pack.frames, np.bool_)))]
    write_backup(cluster, Outer(INFO, seen_manifests(cluster), table), INNER, entries, clock)
    archive = WalArchive(cluster, SYSTEM_ID, SEGMENT_SIZE)
    archive.put(SEGMENT, WAL, 0x3000000, clock)
    archive.put("00000002.history", HISTORY, 0, clock)
    archive.put_claim(2, 0, CLAIM, clock)
    return Made(store, repository, cluster, archive, pack, entries)


def _pack(repository: Repository, cluster: Cluster, clock: StepClock) -> tuple[WrittenPack, list[Entry]]:
    """One pack: three pages of a relation that also has a hole, PG_VERSION, and the relation's map."""
    writer = PackWriter(repository, cluster.uuid, clock, page_size=PAGE, entropy=entropy("pack"))
    path = b"base/5/16384"
    pack, ordinal = writer.add_pages(path, 0, memoryview(PAGES), LSNS)
    _, version = writer.add_bytes(b"PG_VERSION", 0, memoryview(b"17\n"))
    extents = ExtentMap(
        (pack,), np.array([2, 5, 1], np.uint32), np.array([0, HOLE, 0], np.uint32),
        np.array([ordinal, 0, ordinal + 2], np.int64),
    )  # fmt: skip
    encoded = encode_extents(extents)
    _, place = writer.add_bytes(path, 0, memoryview(encoded), FrameKind.MAPS)
    file = Entry(path=b"PG_VERSION", type=EntryType.FILE, mode=0o600, size=3, place=Place.INLINE, pack=0, at=version)
    relation = replace(
        file, path=path, size=8 * PAGE, unit=Unit.PAGES, place=Place.MAP, at=place, length=len(encoded),
        hash=repository.keys.extent_map(encoded),
    )  # fmt: skip
    directories = [
        Entry(path=name, type=EntryType.DIRECTORY, mode=0o700, size=0) for name in (b"base", b"base/5")
    ]  # fmt: skip
    return writer.finish()[0], [file, *directories, relation]
