"""Open what the configuration names: a cluster in a repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.config.settings import ClusterSettings, Settings
from pgkeep.events import Announce, silent
from pgkeep.repo.repository import Cluster, Repository, cluster_named, open_repository
from pgkeep.store.open import open_store
from pgkeep.store.wrap.patient import patient

APPLICATION: Final = "pgkeep"
"""application_name of every connection."""


@dataclass(frozen=True, slots=True)
class Selection:
    """--cluster and --repo; None means the only one of the file."""

    cluster: str | None = None
    repo: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What a command works on: a cluster of a repository, and the configuration's word on it."""

    settings: ClusterSettings
    repository: Repository
    cluster: Cluster


def open_place(settings: Settings, selection: Selection, clock: Clock, announce: Announce = silent) -> Place:
    """no-repository, cluster-unknown, usage, and the store's faults."""
    chosen = settings.cluster(selection.cluster)
    url = settings.repository(selection.repo).url
    repository = open_repository(patient(open_store(url), clock, announce))
    return Place(chosen, repository, cluster_named(repository, chosen.name))


def available_processors() -> int:
    """Cores that this process may use (a container may have fewer than the machine)."""
    return len(os.sched_getaffinity(0))


def known_ids(settings: Settings, selection: Selection, *, dumps: bool = False) -> tuple[str, ...]:
    """Ids of the cluster's backups, or of these and its dumps, for somebody who waits at a prompt.

    no-repository, cluster-unknown, usage, and the store's faults.
    """
    from pgkeep.repo.backups import backup_ids  # `wal push` imports this file, and must not wait for manifests
    from pgkeep.repo.roots import root_ids

    repository = open_repository(open_store(settings.repository(selection.repo).url))
    cluster = cluster_named(repository, settings.cluster(selection.cluster).name)
    return tuple(str(one) for one in (root_ids(cluster) if dumps else backup_ids(cluster)))
