"""What archive_command runs for a file that no marker answers for: imports as little as it can."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pgkeep.app.place import available_processors
from pgkeep.clock import SystemClock
from pgkeep.config.load import load
from pgkeep.config.settings import ClusterSettings, Settings
from pgkeep.errors import Fault
from pgkeep.repo.repository import open_repository
from pgkeep.store.open import open_store
from pgkeep.store.wrap.patient import patient
from pgkeep.wal.ahead import Limits
from pgkeep.wal.archiver import Archiver
from pgkeep.wal.marker import Terms
from pgkeep.wal.push import PushOutcome


def wal_push(config: str, environment: Mapping[str, str], repo: str | None, path: str, terms: Terms) -> PushOutcome:
    """Archive the file at `path` of the cluster whose data directory is the working directory, and what waits besides.

    `terms` were taken before this was called.  Faults of `wal.push.push`, of the configuration and of the store.
    """
    settings = load(config, environment)
    clock = SystemClock()
    repository = open_repository(patient(open_store(settings.repository(repo).url), clock))
    return Archiver(repository, clock, terms).serve(path, lambda cluster: _limits(settings, cluster))


def waiting_wal(path: str) -> str:
    """A sentence on the WAL that waits beside the file at `path`; '' when nothing does, or nobody can tell."""
    from pgkeep.wal.backlog import alarm, backlog

    try:
        found = backlog(os.path.dirname(path), SystemClock())
    except Fault:
        return ""
    return alarm(found) if found.files else ""


def _limits(settings: Settings, cluster: str) -> Limits:
    """Of the cluster's table in the file; the defaults when it stands under another name."""
    chosen = next((known for known in settings.clusters if known.name == cluster), ClusterSettings(cluster, ""))
    processes = chosen.processes or available_processors()
    return Limits(chosen.archive_ahead, chosen.archive_ahead_time.total_seconds(), processes)
