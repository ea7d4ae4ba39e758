"""What restore_command runs, once a segment (archive_command: `push`): imports as little as it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from pgkeep.clock import SystemClock
from pgkeep.config.load import load
from pgkeep.errors import Fault
from pgkeep.repo.repository import Repository, open_repository
from pgkeep.store.open import open_store
from pgkeep.store.wrap.patient import patient
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.wal.spool import Spool

if TYPE_CHECKING:
    from pgkeep.wal.get import GetOutcome


class Served(NamedTuple):
    """The answer of `wal get`, and whether somebody should begin to fetch what follows."""

    outcome: GetOutcome
    fetch_ahead: bool


_LINEAGE_HINT = "restore again, or correct --lineage in restore_command"


class Access(NamedTuple):
    """Which repository: the configuration's path, PGKEEP_* of the environment, and --repo."""

    config: str
    environment: Mapping[str, str]
    repo: str | None = None

    def open(self) -> Repository:
        settings = load(self.config, self.environment).repository(self.repo)
        return open_repository(patient(open_store(settings.url), SystemClock()))


def wal_get(access: Access, name: str, destination: str, lineage: str | None, spool: str | None = None) -> Served:
    """Write the WAL file `name` to `destination`; `lineage` is the path of a restore's RecoveryLineage, `spool` where
    the segments behind it may be fetched ahead.

    Faults of `wal.get.get`, of the configuration and of the store.
    """
    from pgkeep.wal.get import find_archive, get

    plan = _lineage(lineage) if lineage is not None else None
    archive = find_archive(access.open(), plan)
    outcome = get(archive, name, destination, plan)
    place = Spool(spool) if spool is not None else None
    if place is None or outcome.segment is None or not place.belongs_to("."):
        return Served(outcome, False)
    from pgkeep.wal.prefetchplan import is_worth_while

    return Served(outcome, is_worth_while(archive, place, plan, outcome.segment))


def wal_prefetch(access: Access, spool: str, lineage: str | None) -> None:
    """Keep `spool` filled as long as the recovery lasts in whose session this process runs; see `wal.prefetch`."""
    from pgkeep.wal.get import find_archive
    from pgkeep.wal.prefetch import fill

    plan = _lineage(lineage) if lineage is not None else None
    fill(find_archive(access.open(), plan), Spool(spool), plan, SystemClock())


def _lineage(path: str) -> RecoveryLineage:
    try:
        with open(path, encoding="utf-8") as file:
            return RecoveryLineage.decode(file.read())
    except OSError as error:
        raise Fault("io", f"{path} could not be read: {error.strerror}", hint=_LINEAGE_HINT) from error
    except ValueError as error:
        raise Fault("io", f"{path} does not say which WAL this restore may read: {error}", hint=_LINEAGE_HINT) from None
