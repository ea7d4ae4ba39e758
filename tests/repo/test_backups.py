"""Manifests in the store."""

from __future__ import annotations

from dataclasses import replace as replace_value

import pytest
from msgspec.structs import replace

from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import Entry, EntryType, Outer
from pgkeep.repo import check
from pgkeep.repo.backups import backup_ids, read_info, read_manifest, seen_manifests, write_backup
from pgkeep.repo.packreader import PackReader, read_page_lsns
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import ObjectStat
from pgkeep.values.ids import BackupId
from tests.format.samples import BACKUP, INFO, INNER, StepClock
from tests.repo.made import LSNS, PAGES, Made, make

OTHER = BackupId("20260508T112900Z-00000000")


@pytest.fixture
def made() -> Made:
    return make(CountingStore())


class CountingStore(MemoryStore):
    """Counts the bytes that are read."""

    read = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().get(key, start, length)
        self.read += len(data)
        return data

    def stat(self, key: str) -> ObjectStat:
        return super().stat(key)


def test_a_backup_is_what_was_written(made: Made) -> None:
    manifest = read_manifest(made.cluster, BACKUP)
    assert manifest.info == read_info(made.cluster, BACKUP) == INFO
    assert list(manifest.entries()) == made.entries
    assert replace_value(manifest.inner, relations=list(manifest.inner.relations)) == INNER
    assert [pack.id for pack in manifest.outer.packs] == [made.pack.id]
    assert not check.check_manifest(made.cluster, manifest)


def test_its_pages_and_their_lsns_are_in_the_pack(made: Made) -> None:
    reader = PackReader.open(made.repository, made.cluster.uuid, made.pack.id, made.pack.footer)
    assert reader.read_units(FrameKind.PAGES, 0, 3) == PAGES
    assert list(read_page_lsns(made.repository, made.cluster.uuid, made.pack.id, made.pack.footer)) == list(LSNS)


def test_a_backup_that_there_is_not(made: Made) -> None:
    for read in (read_info, read_manifest):
        with pytest.raises(Fault) as caught:
            read(made.cluster, OTHER)
        assert caught.value.code == "backup-unknown"


def test_a_backup_is_written_once(made: Made) -> None:
    with pytest.raises(Fault) as caught:
        write_backup(made.cluster, Outer(INFO, [], []), INNER, [], StepClock())
    assert caught.value.code == "object-exists"


def test_the_next_manifest_names_the_one_before(made: Made) -> None:
    first = seen_manifests(made.cluster)
    assert [seen.backup for seen in first] == [BACKUP]
    outer = Outer(replace(INFO, backup=str(OTHER)), first, [])
    write_backup(made.cluster, outer, INNER, [], StepClock())
    assert backup_ids(made.cluster) == [BACKUP, OTHER]
    assert read_manifest(made.cluster, OTHER).outer.seen == first
    second = seen_manifests(made.cluster)
    assert second[0] == first[0]
    assert second[1].hash != first[0].hash


def test_an_earlier_backups_damage_does_not_forbid_the_next_one(made: Made) -> None:
    key = names.backup(made.cluster.uuid, BACKUP)
    data = bytearray(made.store.get(key))
    data[100] ^= 1
    made.store.delete(key)
    made.store.put(key, [bytes(data)])
    assert seen_manifests(made.cluster) == []
    write_backup(made.cluster, Outer(replace(INFO, backup=str(OTHER)), [], []), INNER, [], StepClock())
    assert [seen.backup for seen in seen_manifests(made.cluster)] == [OTHER]


def test_a_writer_that_does_not_know_the_rules_does_not_commit(made: Made) -> None:
    made.store.put(names.FEATURES + "tomorrow.write", [b""])
    with pytest.raises(Fault) as caught:
        write_backup(made.cluster, Outer(replace(INFO, backup=str(OTHER)), [], []), INNER, [], StepClock())
    assert caught.value.code == "format-unsupported"
    assert backup_ids(made.cluster) == [BACKUP]


def test_a_list_reads_the_beginning_of_a_large_manifest(made: Made) -> None:
    entries = (
        Entry(path=b"base/%09d%d" % (number, number * number), type=EntryType.DIRECTORY, mode=0o700, size=0)
        for number in range(200_000)
    )
    write_backup(made.cluster, Outer(replace(INFO, backup=str(OTHER)), [], []), INNER, entries, StepClock())
    size = made.store.stat(names.backup(made.cluster.uuid, OTHER)).size
    assert size > 500_000
    assert isinstance(made.store, CountingStore)
    made.store.read = 0
    read_info(made.cluster, OTHER)
    assert made.store.read <= 64 << 10
    assert sum(1 for _ in read_manifest(made.cluster, OTHER).entries()) == 200_000


def test_foreign_names_among_the_backups_are_passed_by(made: Made) -> None:
    made.store.put(names.backups(made.cluster.uuid) + "notes.txt", [b"x"])
    assert backup_ids(made.cluster) == [BACKUP]
