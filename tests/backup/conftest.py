"""A cluster under care, for tests of whole backups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgkeep.pg.page import BLCKSZ
from tests.backup.ground import Ground, quiet
from tests.clusters import Cluster
from tests.keeping import Kept, keep


@pytest.fixture
def kept(cluster: Callable[..., Cluster], server_tmp: Path, pgkeep_program: tuple[str, ...]) -> Callable[..., Kept]:
    """Makes a cluster under care: `kept(checksums=False, wal_segsize=1)`."""

    def make(**options: Any) -> Kept:
        return keep(cluster, server_tmp, pgkeep_program, **options)

    return make


@pytest.fixture
def own(kept: Callable[..., Kept], pg_major: int, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ground]:
    """Makes a quiet server of the test's own: `own(checksums=False, wal_log_hints="on")`.

    Its relations are small; those over 64 pages are shared out among the workers all the same, as large ones are.
    """
    monkeypatch.setattr("pgkeep.backup.tasks.RUN_SIZE", 64 * BLCKSZ)
    monkeypatch.setattr("pgkeep.backup.tasks.HOT", 16 * BLCKSZ)

    def make(**options: Any) -> Ground:
        made = kept(**quiet(pg_major) | {"wal_segsize": 1} | options)
        return Ground(made, made.cluster)

    return make
