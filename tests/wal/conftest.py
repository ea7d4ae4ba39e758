"""Fixtures of the WAL room's tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.clusters import Cluster
from tests.conftest import _cluster_on, _maker, _programs_or_end, _server_directory
from tests.servers import NEWEST
from tests.walfiles import CLOCK, Failover, copy_instance, make_failover, new_archive

from pgkeep.pg.account import Account
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.local import LocalStore
from pgkeep.wal.push import push


@pytest.fixture(scope="session")
def failover(server_user: Account) -> Iterator[Failover]:
    """WAL files of a failover, made once a worker; nothing may change them."""
    home = _server_directory(server_user)
    with ExitStack() as stack:

        def serve(datadir: Path) -> Cluster:
            made = _cluster_on(datadir, _programs_or_end(NEWEST), server_user, stack, settings={}, env={})
            made.start()
            return made

        stack.callback(shutil.rmtree, home, ignore_errors=True)
        yield make_failover(home, _maker(NEWEST, home, server_user, stack), serve)


@pytest.fixture
def instance(failover: Failover, tmp_path: Path) -> Path:
    """The primary's data directory, as far as archive_command looks at it."""
    return copy_instance(failover.primary, tmp_path / "instance")


@pytest.fixture
def promoted(failover: Failover, tmp_path: Path) -> Path:
    """The promoted server's data directory, likewise."""
    return copy_instance(failover.promoted, tmp_path / "promoted")


@pytest.fixture
def archive(failover: Failover, tmp_path: Path) -> WalArchive:
    """An empty archive of the failover's cluster, in a local store."""
    return new_archive(LocalStore.create(tmp_path / "repository"), failover.control)


@pytest.fixture
def full(failover: Failover, archive: WalArchive, instance: Path, promoted: Path) -> WalArchive:
    """Everything that both servers have archived, but for timeline 1's segments from the switch on."""
    for path in [*failover.common(), *(path for path in failover.old.iterdir() if path.suffix == ".backup")]:
        push(archive.cluster.repository, str(path), CLOCK, data_directory=instance)
    for path in failover.new.iterdir():
        push(archive.cluster.repository, str(path), CLOCK, data_directory=promoted)
    return archive
