"""The repository of format 1 that is kept for ever can be read, and is still what pgkeep writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from pgkeep.format import names
from pgkeep.format.extents import HOLE
from pgkeep.format.frame import FrameKind
from pgkeep.format.header import ObjectType
from pgkeep.format.limits import HEADER_LENGTH
from pgkeep.format.manifest import Place
from pgkeep.format.section import read_sections
from pgkeep.repo import check
from pgkeep.repo.backups import read_manifest
from pgkeep.repo.checkdump import check_dump
from pgkeep.repo.dumps import dump_ids, open_dump
from pgkeep.repo.packreader import PackReader
from pgkeep.repo.repository import Repository, cluster_named, open_repository
from pgkeep.repo.walarchive import archive_of
from pgkeep.store.memory import MemoryStore
from tests.format.samples import BACKUP, CLUSTER, INFO, INNER, SYSTEM_ID
from tests.repo.dumped import FACTS, MEMBERS
from tests.repo.made import CLAIM, HISTORY, INCARNATION, LSNS, PAGES, SEGMENT, WAL, make

V1 = Path(__file__).parent / "fixtures" / "v1"
V1_DUMP = V1.parent / "v1-dump"
ZSTD = (1, 5, 7)
"""The library that wrote the fixture."""


def stored(root: Path = V1) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def repository() -> Repository:
    store = MemoryStore()
    for key, content in stored().items():
        store.put(key, [content])
    return open_repository(store)


def test_it_holds_every_kind_of_object_that_is_written() -> None:
    types = {ObjectType(int.from_bytes(content[12:14], "little")) for content in stored().values()}
    assert types == {
        ObjectType.REPOSITORY, ObjectType.INCARNATION, ObjectType.PACK, ObjectType.MANIFEST, ObjectType.WAL_SEGMENT,
        ObjectType.WAL_HISTORY, ObjectType.WAL_CLAIM,
    }  # fmt: skip
    assert sum(map(len, stored().values())) < 20_000


def test_its_backup_can_be_read(repository: Repository) -> None:
    cluster = cluster_named(repository, "main")
    assert (cluster.uuid, cluster.incarnations) == (CLUSTER, (INCARNATION,))
    manifest = read_manifest(cluster, BACKUP)
    assert manifest.info == INFO
    assert replace(manifest.inner, relations=list(manifest.inner.relations)) == INNER
    assert [entry.path for entry in manifest.entries()] == [b"PG_VERSION", b"base", b"base/5", b"base/5/16384"]
    assert check.check_manifest(cluster, manifest) == []


def test_its_pages_can_be_read(repository: Repository) -> None:
    manifest = read_manifest(cluster_named(repository, "main"), BACKUP)
    pack = manifest.outer.packs[0]
    reader = PackReader.open(repository, CLUSTER, pack.id, pack.footer, lsns=True, hashes=True)
    assert reader.read_units(FrameKind.PAGES, 0, 3) == PAGES
    assert reader.read_units(FrameKind.BYTES, 0, 3) == b"17\n"
    assert reader.footer.lsns is not None
    assert list(reader.footer.lsns) == list(LSNS)
    assert check.check_pack(repository, CLUSTER, pack.id, pack.footer).damage == ()
    entry = next(entry for entry in manifest.entries() if entry.place is Place.MAP)
    extents = check.read_map(reader, entry, repository.keys)
    assert (list(extents.count), list(extents.pack)) == ([2, 5, 1], [0, HOLE, 0])


def test_a_dump_can_be_read() -> None:
    store = MemoryStore()
    for key, content in stored(V1_DUMP).items():
        store.put(key, [content])
    cluster = cluster_named(open_repository(store), "main")
    (dump,) = dump_ids(cluster)
    reader = open_dump(cluster, dump)
    assert {member.name: b"".join(reader.read(member)) for member in reader.members()} == MEMBERS
    assert (reader.info.name, reader.info.host, reader.info.system_id) == ("shop", "db1", SYSTEM_ID)
    assert (reader.dumped.databases, reader.dumped.options) == (FACTS.databases, FACTS.options)
    assert check_dump(cluster, dump) == []
    assert names.feature("dumps.write") in stored(V1_DUMP)
    assert sum(map(len, stored(V1_DUMP).values())) < 30_000


def test_its_wal_can_be_read(repository: Repository) -> None:
    archive = archive_of(repository, SYSTEM_ID)
    assert archive.read(archive.key(SEGMENT), ObjectType.WAL_SEGMENT) == WAL
    assert archive.history(2) == HISTORY
    assert archive.claim(2) == (0, CLAIM)
    assert archive.listing().segments == {2: [0x30]}


def test_it_is_still_what_is_written() -> None:
    """Byte for byte with the same zstd; with another, the clear headers and what the sections hold."""
    store = MemoryStore()
    make(store)
    written = {stat.key: store.get(stat.key) for stat in store.list()}
    assert written.keys() == stored().keys()
    for key, content in stored().items():
        if zstandard.ZSTD_VERSION == ZSTD:
            assert written[key] == content, key
        assert written[key][:HEADER_LENGTH] == content[:HEADER_LENGTH], key
        if not key.startswith((f"{CLUSTER}/packs/", f"{CLUSTER}/wal/", f"{CLUSTER}/backups/")) or "claim" in key:
            assert sections_of(written[key]) == sections_of(content), key


def sections_of(data: bytes) -> list[tuple[int, bytes]]:
    found = read_sections(memoryview(data)[HEADER_LENGTH:], data[:HEADER_LENGTH], "x")
    return [(section.type, section.content) for section in found]
