"""Every byte of every object is vouched for: flipped, cut off or exchanged, it is found when it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.header import ObjectType
from pgkeep.format.objects import ClaimInfo, decode_info
from pgkeep.repo import check
from pgkeep.repo.backups import Manifest, read_info, read_manifest
from pgkeep.repo.packreader import PackReader, read_page_lsns
from pgkeep.repo.repository import cluster_of_system, create_repository, open_repository, register_cluster
from pgkeep.store.memory import MemoryStore
from tests.format.samples import BACKUP, CLUSTER, SYSTEM_ID, StepClock, entropy
from tests.repo.made import INCARNATION, SEGMENT, WAL, Made, make

Read = Callable[[Made], object]


def read_backup(made: Made) -> Manifest:
    manifest = read_manifest(made.cluster, BACKUP)
    list(manifest.entries())
    list(manifest.inner.relations)
    return manifest


def read_pack(made: Made) -> None:
    """Without a manifest: header, tail, footer, every frame."""
    found = check.check_pack(made.repository, made.cluster.uuid, made.pack.id)
    if found.damage:
        raise Damaged(found.key, found.damage[0].problem)


def read_pack_of_a_manifest(made: Made) -> None:
    """As `verify` does: the manifest says where the footer lies, and the tail must say the same."""
    found = check.check_pack(made.repository, made.cluster.uuid, made.pack.id, made.pack.footer)
    if found.damage:
        raise Damaged(found.key, found.damage[0].problem)


OBJECTS: dict[str, tuple[Callable[[Made], str], Read]] = {
    "repository": (lambda made: names.REPOSITORY, lambda made: open_repository(made.store)),
    "incarnation": (
        lambda made: names.incarnation(made.cluster.uuid, SYSTEM_ID),
        lambda made: cluster_of_system(made.repository, SYSTEM_ID),
    ),
    "pack": (lambda made: names.pack(made.cluster.uuid, made.pack.id), read_pack),
    "pack of a manifest": (lambda made: names.pack(made.cluster.uuid, made.pack.id), read_pack_of_a_manifest),
    "manifest": (lambda made: names.backup(made.cluster.uuid, BACKUP), read_backup),
    "segment": (
        lambda made: made.archive.key(SEGMENT),
        lambda made: made.archive.read(made.archive.key(SEGMENT), ObjectType.WAL_SEGMENT),
    ),
    "history": (lambda made: made.archive.key("00000002.history"), lambda made: made.archive.history(2)),
    "claim": (lambda made: names.claim(made.cluster.uuid, SYSTEM_ID, 2, 0), lambda made: made.archive.claim(2)),
}


class Editable(MemoryStore):
    """A store whose medium decays."""

    def swap(self, key: str, content: bytes) -> bytes:
        before = self.get(key)
        self.delete(key)
        self.put(key, [content])
        return before


@pytest.fixture(scope="module")
def made() -> Made:
    return make(Editable())


def rotten(made: Made, key: str, content: bytes, read: Read) -> None:
    """`read` fails and names the key while `content` lies under it."""
    store = made.store
    assert isinstance(store, Editable)
    before = store.swap(key, content)
    try:
        with pytest.raises(Fault) as caught:
            read(made)
        assert caught.value.code in ("format-damaged", "format-unsupported")
        assert key in caught.value.message
    finally:
        store.swap(key, before)


@pytest.mark.parametrize("name", OBJECTS)
def test_the_sound_object_is_read(made: Made, name: str) -> None:
    OBJECTS[name][1](made)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_flipped_byte_is_found(made: Made, name: str) -> None:
    find, read = OBJECTS[name]
    data = made.store.get(find(made))
    for at in range(len(data)):
        rotten(made, find(made), data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :], read)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_truncation_is_found(made: Made, name: str) -> None:
    find, read = OBJECTS[name]
    data = made.store.get(find(made))
    for length in range(0, len(data), 7):
        rotten(made, find(made), data[:length], read)
    rotten(made, find(made), data[:-1], read)


@pytest.mark.parametrize("name", [name for name in OBJECTS if name != "repository"])
def test_the_same_object_of_another_repository_is_refused(made: Made, name: str) -> None:
    find, read = OBJECTS[name]
    store = MemoryStore()
    other = create_repository(store, StepClock(), "another", entropy("another"))
    register_cluster(other, INCARNATION, StepClock(), uuid=CLUSTER)
    foreign = bytearray(made.store.get(find(made)))
    assert bytes(foreign[16:32]) == made.repository.id != other.id
    key = find(made)
    if store.list_parts(key.rsplit("/", 1)[0] + "/"):
        store.delete(key)
    store.put(key, [bytes(foreign)])
    cluster = replace(made.cluster, repository=other)
    elsewhere = Made(store, other, cluster, replace(made.archive, cluster=cluster), made.pack, made.entries)
    with pytest.raises(Damaged, match="belongs to repository"):
        read(elsewhere)


def test_objects_that_changed_places_are_refused(made: Made) -> None:
    """Each is whole and of this repository; only the name is another's."""
    second = "000000020000000000000031"
    made.archive.put(second, WAL[::-1], 0x3100000, StepClock())
    first_key, second_key = made.archive.key(SEGMENT), made.archive.key(second)
    for key, other in ((first_key, second_key), (second_key, first_key)):
        content = made.store.get(other)
        rotten(made, key, content, lambda made, key=key: made.archive.read(key, ObjectType.WAL_SEGMENT))  # type: ignore[misc]
    made.store.delete(second_key)


def test_another_pack_under_the_name_is_refused(made: Made) -> None:
    key = names.pack(made.cluster.uuid, made.pack.id)
    other = make(MemoryStore())
    data = bytearray(other.store.get(names.pack(other.cluster.uuid, other.pack.id)))
    data[32] ^= 1
    rotten(made, key, bytes(data), read_pack)


def test_an_object_of_another_type_is_refused(made: Made) -> None:
    key = names.claim(made.cluster.uuid, SYSTEM_ID, 2, 0)
    with pytest.raises(Damaged, match="WAL_CLAIM"):
        made.repository.read(key, ObjectType.INCARNATION)
    assert decode_info(made.repository.read(key, ObjectType.WAL_CLAIM), ClaimInfo, key).host == "db1"


def test_a_manifest_is_bound_to_its_packs_footer(made: Made) -> None:
    """A pack that was exchanged, whole, for another of the same name and size is not the manifest's."""
    place = replace(made.pack.footer, digest=bytes(32))
    for read in (PackReader.open, read_page_lsns):
        with pytest.raises(Damaged, match="footer"):
            read(made.repository, made.cluster.uuid, made.pack.id, place)


def test_a_list_reads_little(made: Made) -> None:
    assert read_info(made.cluster, BACKUP).cluster_name == "main"
