"""Adversity: one cluster under care with a past, shared by every test of a worker that only reads it or damages a copy.

    before | backup, row 1 | first | row 2 | second, point 'two' | backup, row 3 | third | the archived WAL ends

`past.kept` and its repository never change: `aside` gives a copy of the repository, with a configuration of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pgkeep.pg.account import Account, give
from pgkeep.pg.instance import Instance
from tests.clusters import Cluster
from tests.conftest import _maker, _server_directory
from tests.keeping import Kept, keep
from tests.servers import NEWEST

Started = Callable[..., AbstractContextManager[Cluster]]
MakeKept = Callable[..., Kept]


@dataclass(frozen=True)
class Past:
    """See the module's docstring; `space` is the directory of production's tablespace."""

    kept: Kept
    space: Path
    first: str
    second: str
    """Ids of the backups."""
    moments: dict[str, datetime]
    lsns: dict[str, str]
    accident: int
    """The xid of row 3."""


@pytest.fixture(scope="session")
def past(server_user: Account, pgkeep_program: tuple[str, ...]) -> Iterator[Past]:
    """The shared cluster; its server runs, and nothing may change it or its repository."""
    home = _server_directory(server_user)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        make = _maker(NEWEST, home, server_user, stack)
        yield _lived(keep(make, home, pgkeep_program, timezone="'Europe/Moscow'", wal_segsize=1))


def _lived(kept: Kept) -> Past:
    server = kept.cluster
    space = server.directory("production space")
    moments: dict[str, datetime] = {}
    lsns: dict[str, str] = {}

    def moment(name: str) -> None:
        server.sql("SELECT pg_sleep(0.01)")
        moments[name], lsns[name] = server.sql("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text")[0]
        server.sql("SELECT pg_sleep(0.01)")

    server.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.sql("CREATE TABLE t (n int)")
    server.sql("CREATE TABLE big TABLESPACE fast AS SELECT g, md5(g::text) FROM generate_series(1, 40000) g")
    moment("before")
    first = kept.backup()
    server.sql("INSERT INTO t VALUES (1)")
    moment("first")
    server.sql("INSERT INTO t VALUES (2)")
    moment("second")
    server.sql("SELECT pg_create_restore_point('two')")
    kept.archive_all()
    second = kept.backup()
    accident = server.sql("INSERT INTO t VALUES (3) RETURNING pg_current_xact_id()::text::bigint")[0][0]
    moment("third")
    kept.archive_all()
    return Past(kept, space, first, second, moments, lsns, accident)


@pytest.fixture
def aside(past: Past, server_tmp: Path) -> Kept:
    """The shared cluster with a copy of its repository, which may be damaged, and a home of the test's own."""
    return copied(past.kept, server_tmp)


def copied(kept: Kept, home: Path) -> Kept:
    """`kept` with a copy of its repository under `home`; the server goes on archiving into the original."""
    subprocess.run(["cp", "-a", kept.repository, home / "repository"], check=True)
    other = Kept(kept.cluster, home, kept.program)
    other.config.write_text(kept.config.read_text().replace(str(kept.repository), str(other.repository)))
    give(kept.account, [other.config])
    return other


@pytest.fixture
def make_kept(cluster: Callable[..., Cluster], server_tmp: Path, pgkeep_program: tuple[str, ...]) -> MakeKept:
    """Makes a cluster under care: `make_kept(checksums=False, wal_segsize=1)`."""

    def make(**options: Any) -> Kept:
        return keep(cluster, server_tmp, pgkeep_program, **options)

    return make


@contextmanager
def started(kept: Kept, directory: Path, *options: str) -> Iterator[Cluster]:
    """`pgkeep restore DIRECTORY --start ...` has succeeded and left this server running; stopped at the end."""
    result = kept.result("restore", str(directory), "--start", *options)["recovered"]
    instance = Instance(
        kept.cluster.programs,
        directory,
        kept.account,
        Path(result["socket_directory"]),
        Path(result["log"]),
        port=result["port"],
    )
    try:
        yield Cluster(instance, directory.parent)
    finally:
        kept.cluster.programs.run("pg_ctl", "stop", "-D", str(directory), "-m", "fast", account=kept.account)


def rows(server: Cluster) -> list[int]:
    """What the past's table holds."""
    return [n for (n,) in server.sql("SELECT n FROM t ORDER BY n")]


def refused(kept: Kept, directory: Path, *options: str, code: str, status: int = 1) -> dict[str, Any]:
    """The JSON error of a restore that was refused before it wrote anything."""
    before = _names(directory)
    error: dict[str, Any] = kept.json("restore", str(directory), *options, status=status)["error"]
    assert error["code"] == code, error
    assert error["hint"], "no way out is shown"
    assert _names(directory) == before
    return error


def _names(directory: Path) -> list[str] | None:
    return sorted(os.listdir(directory)) if directory.is_dir() else None
