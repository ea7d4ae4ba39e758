"""`backup`: the plan that --dry-run shows, and the job."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pgkeep.app.place import APPLICATION, Place, available_processors
from pgkeep.backup.detection import Mode
from pgkeep.backup.job import BackupRequest, BackupResult, run_backup
from pgkeep.backup.source import check_local, check_settings, scan_complete
from pgkeep.backup.tasks import content_length
from pgkeep.clock import Clock
from pgkeep.config.settings import Checkpoint
from pgkeep.errors import Fault
from pgkeep.events import Announce
from pgkeep.pg.entry import EntryType
from pgkeep.pg.server import connect
from pgkeep.store.local import LocalStore
from pgkeep.store.open import open_store

LEFTOVER_AGE: Final = 24 * 3600.0
"""Seconds for which nobody wrote to an unfinished object before it counts as left by a dead process."""


@dataclass(frozen=True, slots=True)
class BackupChoices:
    """What the command line says over the configuration; None leaves the configuration's word."""

    label: str = "pgkeep"
    checkpoint: Checkpoint | None = None
    processes: int | None = None
    archive_timeout: float | None = None
    """Seconds."""
    mode: Mode = "auto"


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """What a backup would read now."""

    request: BackupRequest
    server_version: str
    data_directory: str
    files: int
    bytes: int
    tablespaces: int


def backup_request(place: Place, choices: BackupChoices) -> BackupRequest:
    """The configuration, overruled by the choices."""
    settings = place.settings
    timeout = choices.archive_timeout
    return BackupRequest(
        connection=settings.connection,
        label=choices.label,
        fast_checkpoint=(choices.checkpoint or settings.checkpoint) == "fast",
        processes=choices.processes or settings.processes or available_processors(),
        level=settings.compression_level,
        archive_timeout=settings.archive_timeout.total_seconds() if timeout is None else timeout,
        mode=choices.mode,
    )


def plan_backup(place: Place, choices: BackupChoices) -> BackupPlan:
    """Everything that can be known without starting one; faults as of `run_backup` before its checkpoint."""
    request = backup_request(place, choices)
    with connect(request.connection, APPLICATION) as server:
        facts = server.facts()
        check_settings(facts)
        check_local(facts)
        directory, _ = scan_complete(server, facts.data_directory)
    sizes = [content_length(entry) for entry in directory.entries if entry.type is EntryType.FILE]
    return BackupPlan(
        request, facts.version, facts.data_directory, len(sizes), sum(sizes), len(directory.tablespaces)
    )  # fmt: skip


def backup(place: Place, choices: BackupChoices, clock: Clock, announce: Announce) -> BackupResult:
    """Faults of `run_backup`.  What killed uploads left in the store is taken away first, if that can be done.

    A store that refuses it may be one that cannot be written at all: the backup itself says so.
    """
    store = open_store(place.repository.store.url)
    if isinstance(store, LocalStore):
        with suppress(Fault):
            store.remove_leftovers(LEFTOVER_AGE)
    return run_backup(place.cluster, backup_request(place, choices), clock, announce)
