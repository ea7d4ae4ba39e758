"""What archive_command and restore_command run, once a segment: imports as little as it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from pgkeep.app.place import patient
from pgkeep.clock import SystemClock
from pgkeep.config.load import load
from pgkeep.errors import Fault
from pgkeep.repo.repository import Repository, open_repository
from pgkeep.store.open import open_store
from pgkeep.values.recovery import RecoveryLineage

if TYPE_CHECKING:
    from pgkeep.wal.get import GetOutcome
    from pgkeep.wal.push import PushOutcome

_LINEAGE_HINT = "restore again, or correct --lineage in restore_command"


class Access(NamedTuple):
    """Which repository: the configuration's path, PGKEEP_* of the environment, and --repo."""

    config: str
    environment: Mapping[str, str]
    repo: str | None = None

    def open(self) -> Repository:
        settings = load(self.config, self.environment).repository(self.repo)
        return open_repository(patient(open_store(settings.url), SystemClock()))


def wal_push(access: Access, path: str) -> PushOutcome:
    """Archive the file at `path` of the cluster whose data directory is the working directory.

    Faults of `wal.push.push`, of the configuration and of the store.
    """
    from pgkeep.wal.push import push

    return push(access.open(), path, SystemClock())


def wal_get(access: Access, name: str, destination: str, lineage: str | None) -> GetOutcome:
    """Write the WAL file `name` to `destination`; `lineage` is the path of a restore's RecoveryLineage.

    Faults of `wal.get.get`, of the configuration and of the store.
    """
    from pgkeep.wal.get import get

    plan = _lineage(lineage) if lineage is not None else None
    return get(access.open(), name, destination, plan)


def _lineage(path: str) -> RecoveryLineage:
    try:
        with open(path, encoding="utf-8") as file:
            return RecoveryLineage.decode(file.read())
    except OSError as error:
        raise Fault("io", f"{path} could not be read: {error.strerror}", hint=_LINEAGE_HINT) from error
    except ValueError as error:
        raise Fault("io", f"{path} does not say which WAL this restore may read: {error}", hint=_LINEAGE_HINT) from None
