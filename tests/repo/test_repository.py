"""Create, open, register; what a newer pgkeep made is told from what is damaged."""

from __future__ import annotations

import hashlib
import struct

import pytest
from msgspec.structs import replace

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.limits import MAX_SMALL_OBJECT
from pgkeep.format.record import encode_record
from pgkeep.format.section import SectionType
from pgkeep.repo.repository import (
    Repository,
    cluster_named,
    cluster_of_system,
    clusters,
    create_repository,
    open_repository,
    refuse_unknown_features,
    register_cluster,
)
from pgkeep.store.memory import MemoryStore
from tests.format.forge import reseal
from tests.format.samples import SYSTEM_ID, StepClock, entropy
from tests.repo.made import INCARNATION


@pytest.fixture
def repository() -> Repository:
    return create_repository(MemoryStore(), StepClock(), "pgkeep 0.1", entropy("repository"))


def changed(repository: Repository, content: bytes) -> MemoryStore:
    store = MemoryStore()
    store.put(names.REPOSITORY, [content])
    return store


def test_what_was_created_is_opened(repository: Repository) -> None:
    opened = open_repository(repository.store)
    assert (opened.id, opened.keys) == (repository.id, repository.keys)


def test_a_repository_is_not_made_twice(repository: Repository) -> None:
    with pytest.raises(Fault) as caught:
        create_repository(repository.store, StepClock(), "x")
    assert caught.value.code == "repository-exists"
    assert open_repository(repository.store).id == repository.id


def test_an_empty_place_is_no_repository() -> None:
    with pytest.raises(Fault) as caught:
        open_repository(MemoryStore())
    assert (caught.value.code, caught.value.exit_status) == ("no-repository", 10)


def test_a_newer_format_is_unsupported_and_not_damaged(repository: Repository) -> None:
    data = bytearray(repository.store.get(names.REPOSITORY))
    struct.pack_into("<H", data, 8, 2)
    data[480:512] = hashlib.sha256(data[:480]).digest()
    with pytest.raises(Fault, match="format 2") as caught:
        open_repository(changed(repository, bytes(data)))
    assert caught.value.code == "format-unsupported"


def test_a_feature_that_readers_must_know_closes_the_repository(repository: Repository) -> None:
    for name in ("tomorrow.write", "deletion.write", "moves.read"):
        repository.store.put(names.FEATURES + name, [b""])
    assert open_repository(repository.store).id == repository.id
    with pytest.raises(Fault, match="tomorrow") as caught:
        refuse_unknown_features(repository.store, "write")
    assert caught.value.code == "format-unsupported"
    assert "deletion" not in caught.value.message
    repository.store.put(names.FEATURES + "yesterday.read", [b""])
    with pytest.raises(Fault, match="yesterday"):
        open_repository(repository.store)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", bytes(MAX_SMALL_OBJECT + 1)])
def test_something_else_under_the_name_is_damage(repository: Repository, content: bytes) -> None:
    with pytest.raises(Damaged, match=names.REPOSITORY):
        open_repository(changed(repository, content))


def test_keys_that_are_none_are_damage(repository: Repository) -> None:
    data = repository.store.get(names.REPOSITORY)
    bad = reseal(data, SectionType.CLEAR_KEYS, encode_record({"hash_key": b"short", "metadata_key": bytes(32)}))
    with pytest.raises(Damaged):
        open_repository(changed(repository, bad))


def test_clusters_are_found_by_system_identifier_and_by_name(repository: Repository) -> None:
    cluster = register_cluster(repository, INCARNATION, StepClock())
    assert cluster_of_system(repository, SYSTEM_ID) == cluster == cluster_named(repository, "main")
    with pytest.raises(Fault, match="system identifier 1") as caught:
        cluster_of_system(repository, 1)
    assert caught.value.code == "cluster-unknown"
    with pytest.raises(Fault, match="it holds: main") as caught:
        cluster_named(repository, "other")
    assert caught.value.code == "cluster-unknown"


def test_an_upgraded_cluster_keeps_its_uuid(repository: Repository) -> None:
    first = register_cluster(repository, INCARNATION, StepClock())
    upgraded = replace(INCARNATION, system_id=SYSTEM_ID + 1, server_version=180006, first_seen="2026-06-01T00:00:00")
    assert register_cluster(repository, upgraded, StepClock(), uuid=first.uuid).uuid == first.uuid
    cluster = cluster_of_system(repository, SYSTEM_ID)
    assert [known.system_id for known in cluster.incarnations] == [SYSTEM_ID, SYSTEM_ID + 1]
    assert register_cluster(repository, upgraded, StepClock(), uuid=first.uuid) == cluster


def test_foreign_folders_are_passed_by(repository: Repository) -> None:
    repository.store.put("lost/found", [b"x"])
    assert list(clusters(repository)) == []
