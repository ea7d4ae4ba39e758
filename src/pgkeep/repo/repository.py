"""The repository itself and the clusters in it: create, open, register, find."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.header import Header, ObjectType, expect_header
from pgkeep.format.keyed import HashKeys
from pgkeep.format.limits import MAX_SMALL_OBJECT
from pgkeep.format.objects import (
    ClearKeys,
    IncarnationInfo,
    RepositoryInfo,
    decode_contents,
    decode_incarnation,
    encode_object,
    required,
)
from pgkeep.format.record import decode_record
from pgkeep.format.section import SectionType
from pgkeep.store.port import Store
from pgkeep.values.ids import ClusterUuid, ObjectId

Entropy = Callable[[int], bytes]
KEY_LENGTH = 32
KNOWN_FEATURES: Final = frozenset({"deletion.write", "moves.read", "dumps.write"})
"""What this version knows beyond format version 1."""


@dataclass(frozen=True, slots=True)
class Repository:
    """An open repository: where it is, who it is, and its hash keys."""

    store: Store
    id: ObjectId
    keys: HashKeys

    def header(self, type_: ObjectType, key: str, clock: Clock, specific: bytes = bytes(64)) -> Header:
        """The header of a new object that is identified by its key."""
        return Header(type_, self.id, names.object_id(key), microseconds(clock), specific)

    def read(self, key: str, type_: ObjectType) -> bytes:
        """A whole small object, its header checked; object-missing, Damaged."""
        data = read_small(self.store, key)
        expect_header(data, key, type_=type_, repository=self.id, object_=names.object_id(key))
        return data


def read_small(store: Store, key: str) -> bytes:
    """The bytes of an object that the format keeps small; Damaged when it is not."""
    data = store.get(key, 0, MAX_SMALL_OBJECT + 1)
    if len(data) > MAX_SMALL_OBJECT:
        raise Damaged(key, f"is larger than the {MAX_SMALL_OBJECT} bytes that such an object may have")
    return data


def microseconds(clock: Clock) -> int:
    """Microseconds since 1970-01-01 UTC."""
    return int(clock.now().timestamp() * 1_000_000)


def create_repository(store: Store, clock: Clock, writer: str, entropy: Entropy = os.urandom) -> Repository:
    """Make a new repository in an empty place; repository-exists when there is one."""
    repository = Repository(store, ObjectId(entropy(16)), HashKeys(entropy(KEY_LENGTH)))
    keys = ClearKeys(hash_key=repository.keys.root, metadata_key=entropy(KEY_LENGTH))
    info = RepositoryInfo(created=clock.now().isoformat(), writer=writer)
    header = repository.header(ObjectType.REPOSITORY, names.REPOSITORY, clock)
    try:
        store.put(names.REPOSITORY, encode_object(header, info, clear_keys=keys))
    except Fault as fault:
        if fault.code != "object-exists":
            raise
        raise Fault("repository-exists", f"there is a pgkeep repository in {store.url} already") from None
    return repository


def open_repository(store: Store) -> Repository:
    """no-repository when there is none; format-unsupported when a newer pgkeep made it; Damaged."""
    try:
        data = read_small(store, names.REPOSITORY)
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        raise Fault(
            "no-repository",
            f"there is no pgkeep repository in {store.url}",
            hint="check [repository] url in the configuration, or make one with: pgkeep init",
        ) from None
    obj = names.REPOSITORY
    contents = decode_contents(data, obj)
    header = expect_header(
        data,
        obj,
        type_=ObjectType.REPOSITORY,
        repository=ObjectId(data[16:32]),
        object_=names.object_id(obj),
    )
    refuse_unknown_features(store, "read")
    keys = decode_record(required(contents, SectionType.CLEAR_KEYS, obj), ClearKeys, obj)
    return Repository(store, header.repository, HashKeys(keys.hash_key))


def refuse_unknown_features(store: Store, what: str) -> None:
    """format-unsupported when a newer pgkeep has changed what one must know to 'read' or 'write' here.

    Sections have their critical bit; this is the same for whole objects, such as the lists of what is being deleted.
    """
    there = store.list_parts(names.FEATURES)
    unknown = [part for part in there if part.endswith(f".{what}") and part not in KNOWN_FEATURES]
    if unknown:
        raise Fault(
            "format-unsupported",
            f"{store.url} has features that this pgkeep must know to {what} there: {', '.join(unknown)}",
            hint="use a newer pgkeep",
        )


@dataclass(frozen=True, slots=True)
class DamagedIncarnation:
    """An incarnation object that cannot be read, and why: Damaged or format-unsupported."""

    key: str
    fault: Fault

    def is_of(self, system_id: int) -> bool:
        """Whether its key is the one of this system identifier."""
        return self.key.endswith(f"/{system_id}")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of a repository.  Its uuid stays when pg_upgrade or an adoption adds a system identifier."""

    repository: Repository
    uuid: ClusterUuid
    incarnations: tuple[IncarnationInfo, ...]
    """In order of their system identifiers' first appearance."""
    damaged: tuple[DamagedIncarnation, ...] = ()
    """Their WAL and backups are out of reach, the others' are not."""

    @property
    def name(self) -> str:
        return self.incarnations[-1].cluster_name

    def incarnation(self, system_id: int) -> IncarnationInfo | None:
        return next((known for known in self.incarnations if known.system_id == system_id), None)


def clusters(repository: Repository) -> Iterator[Cluster]:
    """Every cluster of which at least one incarnation can be read; foreign folders are ignored."""
    for uuid in _uuids(repository):
        cluster = _cluster(repository, uuid)
        if cluster.incarnations:
            yield cluster


def damaged_incarnations(repository: Repository) -> list[DamagedIncarnation]:
    """The incarnations of any cluster that cannot be read."""
    return [one for uuid in _uuids(repository) for one in _cluster(repository, uuid).damaged]


def _uuids(repository: Repository) -> Iterator[ClusterUuid]:
    for part in repository.store.list_parts(""):
        with suppress(ValueError):
            yield ClusterUuid(part.removesuffix("/"))


def _cluster(repository: Repository, uuid: ClusterUuid) -> Cluster:
    """One damaged object must not hide the others: it is part of the answer."""
    known: list[IncarnationInfo] = []
    damaged: list[DamagedIncarnation] = []
    for stat in repository.store.list(names.incarnations(uuid)):
        try:
            known.append(decode_incarnation(repository.read(stat.key, ObjectType.INCARNATION), stat.key))
        except Fault as fault:
            if fault.code not in ("format-damaged", "format-unsupported"):
                raise
            damaged.append(DamagedIncarnation(stat.key, fault))
    return Cluster(repository, uuid, tuple(sorted(known, key=lambda info: info.first_seen)), tuple(damaged))


def cluster_of_system(repository: Repository, system_id: int) -> Cluster:
    """The cluster that a server belongs to; cluster-unknown, or what is wrong with its incarnation if it is damaged."""
    for cluster in clusters(repository):
        if cluster.incarnation(system_id):
            return cluster
    refuse_damaged(repository, system_id)
    raise Fault(
        "cluster-unknown",
        f"{repository.store.url} does not know the cluster with system identifier {system_id}",
        hint="register it with: pgkeep init (new) or pgkeep init --adopt (the same one, restored or upgraded)",
    )


def refuse_damaged(repository: Repository, system_id: int) -> None:
    """Raise what is wrong with the incarnation of this system identifier, if there is one that cannot be read.

    Its server is not unknown: registered anew it would be two clusters, each with half of the backups.
    """
    for one in damaged_incarnations(repository):
        if one.is_of(system_id):
            raise one.fault


def cluster_named(repository: Repository, name: str) -> Cluster:
    """The cluster registered under a configuration's name; cluster-unknown; Damaged when it may be a damaged one."""
    known = list(clusters(repository))
    for cluster in known:
        if cluster.name == name:
            return cluster
    for one in damaged_incarnations(repository):
        raise one.fault
    listed = ", ".join(sorted(cluster.name for cluster in known)) or "none"
    raise Fault(
        "cluster-unknown",
        f"the repository {repository.store.url} holds no cluster named {name!r} (it holds: {listed})",
        hint="name one of them with --cluster, or register this one with: pgkeep init",
    )


def register_cluster(
    repository: Repository, info: IncarnationInfo, clock: Clock, *, uuid: ClusterUuid | None = None,
    entropy: Entropy = os.urandom,
) -> Cluster:  # fmt: skip
    """Add a system identifier: of a new cluster, or (`uuid`) of a known one.  Repeating it is harmless.

    Damaged when the system identifier's object is there and cannot be read.
    """
    refuse_damaged(repository, info.system_id)
    owner = uuid or ClusterUuid.make(entropy(16))
    key = names.incarnation(owner, info.system_id)
    header = repository.header(ObjectType.INCARNATION, key, clock)
    try:
        repository.store.put(key, encode_object(header, info))
    except Fault as fault:
        if fault.code != "object-exists":
            raise
    return cluster_of_system(repository, info.system_id)
