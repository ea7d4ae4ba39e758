"""Fixtures and rules that hold for every test: see docs/testing.md.

1. No variable of libpq, of a cloud or of pgkeep itself reaches a test, so none can touch a server that the
   test did not start.
2. `pg_major` is the version a test runs on; `@pg_versions("oldest", "newest")` (tests/servers.py) runs it
   once for each, and `@pytest.mark.pg(">=17")` limits it.
3. What is not to be had is skipped aloud, or fails when $PGKEEP_REQUIRE promises it (tests/requirements.py).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings as hypothesis_settings

from pgkeep.pg.account import Account, give, give_tree, server_account
from pgkeep.pg.instance import InitOptions, Instance, initdb, socket_directory
from pgkeep.pg.programs import Programs
from pgkeep.pg.runtime import command_for
from tests import requirements, servers
from tests.clusters import QUICK_SETTINGS, Cluster

_FOREIGN = re.compile(r"PG(?!KEEP_(CACHE|REQUIRE)$)|AWS_|GOOGLE_|AZURE_|GCS_|S3_")
_SPEC = re.compile(r"\s*(>=|<=|==|>|<)?\s*(\d+)\s*")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "==": lambda a, b: a == b,
}

hypothesis_settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True)
hypothesis_settings.register_profile("campaign", parent=hypothesis_settings.get_profile("ci"), max_examples=2000)


# --- the session


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="of random tests: what a failure printed repeats it")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of everything that the test draws; printed, and given by --seed."""
    given: int | None = request.config.getoption("--seed")
    chosen = random.randrange(1 << 30) if given is None else given
    print(f"--seed {chosen}")
    return chosen


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if _FOREIGN.match(name)]:
        del os.environ[name]
    try:
        requirements.required()
    except requirements.UnknownRequirementError as error:
        raise pytest.UsageError(str(error)) from error
    if not config.getoption("--hypothesis-profile", None):
        hypothesis_settings.load_profile("ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A run that selects no markers leaves the campaign out."""
    if config.getoption("markexpr"):
        return
    long = [item for item in items if item.get_closest_marker("campaign")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("campaign")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked pg(...) that was parametrized with a version outside its mark does not apply there."""
    major = getattr(item, "callspec", None) and item.callspec.params.get("pg_major")  # type: ignore[attr-defined]
    if major is not None and major not in _versions_for(item):
        pytest.skip(f"does not apply to PostgreSQL {major}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    ]
    missing = [reason for reason in skipped if not reason.startswith("does not apply")]
    if missing:
        terminalreporter.section("not tested on this machine")
        for line in requirements.summary(missing):
            terminalreporter.line(line)


# --- PostgreSQL by version


@pytest.fixture
def pg_major(request: pytest.FixtureRequest) -> int:
    """The version that this test runs on: the newest that its pg marks allow, unless pg_versions says."""
    return max(_versions_for(request.node))


@pytest.fixture
def pg_programs(pg_major: int) -> Programs:
    """The programs of `pg_major`; without them the test is skipped, or fails when they are required."""
    return _programs_or_end(pg_major)


def _programs_or_end(major: int) -> Programs:
    found = servers.programs_of(major)
    if isinstance(found, str):
        requirements.need(f"pg{major}", found)
    return found


def _versions_for(item: pytest.Item) -> frozenset[int]:
    """The versions that the test's pg marks allow."""
    allowed = set(servers.VERSIONS)
    for marker in item.iter_markers("pg"):
        for part in str(marker.args[0]).split(","):
            match = _SPEC.fullmatch(part)
            if match is None:
                raise pytest.UsageError(f"{item.nodeid}: not a version: {part!r} (expected a form like '>=17')")
            compare = _COMPARE[match[1] or "=="]
            allowed &= {major for major in servers.VERSIONS if compare(major, int(match[2]))}
    if not allowed:
        raise pytest.UsageError(f"{item.nodeid}: no supported version of PostgreSQL fits its marks")
    return frozenset(allowed)


# --- clusters


@pytest.fixture(scope="session")
def server_user() -> Account:
    """The account that runs test servers: this one, or for root `postgres` or `nobody`."""
    return server_account()


@pytest.fixture
def server_tmp(server_user: Account) -> Iterator[Path]:
    """A temporary directory with a short path that the server's account owns; removed afterwards."""
    path = _server_directory(server_user)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _server_directory(account: Account) -> Path:
    path = Path(tempfile.mkdtemp(prefix="pgk-test-", dir="/tmp")).resolve()
    give(account, [path])
    return path


@pytest.fixture(scope="session")
def pgkeep_program(server_user: Account) -> Iterator[tuple[str, ...]]:
    """How the server's account (and this one) runs the real program: `[*pgkeep_program, "wal", "push", ...]`.

    It has been executed as that account.  pgkeep.pg.runtime.shell_command makes an archive_command of it.
    """
    home = _server_directory(server_user)
    home.chmod(0o755)
    yield command_for(server_user, home)
    shutil.rmtree(home, ignore_errors=True)


class MakeCluster(Protocol):
    """See the fixture `cluster`."""

    def __call__(
        self,
        name: str = ...,
        *,
        major: int | None = ...,
        start: bool = ...,
        checksums: bool = ...,
        wal_segsize: int | None = ...,
        encoding: str = ...,
        initdb_args: tuple[str, ...] = ...,
        env: dict[str, str] | None = ...,
        **conf: str,
    ) -> Cluster: ...


@pytest.fixture
def cluster(pg_major: int, server_tmp: Path, server_user: Account) -> Iterator[MakeCluster]:
    """Makes clusters: `cluster("main", wal_level="replica", archive_mode="on", archive_command="'...'")`.

    Keywords other than initdb's options are lines of postgresql.conf, values as written there.  Each cluster
    is initdb'ed anew (so each has its own system identifier), listens on a socket alone, and is stopped at
    the end.
    """
    with ExitStack() as stack:
        yield _maker(pg_major, server_tmp, server_user, stack)


@pytest.fixture(scope="session")
def _shared_clusters(server_user: Account) -> Iterator[Callable[[int], Cluster]]:
    home = _server_directory(server_user)
    made: dict[int, Cluster] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)

        def get(major: int) -> Cluster:
            if major not in made:
                make = _maker(major, home, server_user, stack)
                made[major] = make(f"shared{major}", wal_level="logical", max_prepared_transactions="5")
            return made[major]

        yield get


@pytest.fixture
def shared_cluster(pg_major: int, _shared_clusters: Callable[[int], Cluster]) -> Cluster:
    """One running cluster of `pg_major` for all tests of a worker.

    For tests that only ask, or that work in a database of their own: never stop, restart or reconfigure it.
    """
    return _shared_clusters(pg_major)


def _maker(pg_major: int, home: Path, server_user: Account, stack: ExitStack) -> MakeCluster:
    def make(
        name: str = "main",
        *,
        major: int | None = None,
        start: bool = True,
        checksums: bool = True,
        wal_segsize: int | None = None,
        encoding: str = "UTF8",
        initdb_args: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        **conf: str,
    ) -> Cluster:
        programs = _programs_or_end(major or pg_major)
        options = InitOptions(
            checksums=checksums, wal_segsize=wal_segsize, encoding=encoding, sync=False, extra=initdb_args
        )
        datadir = home / name
        initdb(programs, datadir, server_user, options)
        made = _cluster_on(datadir, programs, server_user, stack, settings={}, env=env or {})
        made.configure(**(QUICK_SETTINGS | conf))
        if start:
            made.start()
        return made

    return make


class Serve(Protocol):
    """See the fixture `serve`."""

    def __call__(
        self,
        datadir: Path,
        *,
        major: int | None = ...,
        start: bool = ...,
        env: dict[str, str] | None = ...,
        **conf: str,
    ) -> Cluster: ...


@pytest.fixture
def serve(pg_major: int, server_user: Account) -> Iterator[Serve]:
    """Runs a server on a data directory that exists (a restored one): `serve(path, hot_standby="on")`.

    The directory is given to the server's account first; keywords are settings on the server's command line
    (plain values, without quotes).  With start=False only the Cluster is made.  Stopped at the end.
    """
    with ExitStack() as stack:

        def run(
            datadir: Path,
            *,
            major: int | None = None,
            start: bool = True,
            env: dict[str, str] | None = None,
            **conf: str,
        ) -> Cluster:
            give_tree(server_user, datadir)
            datadir.chmod(0o700)
            programs = _programs_or_end(major or int((datadir / "PG_VERSION").read_text()))
            made = _cluster_on(datadir, programs, server_user, stack, settings=conf, env=env or {})
            if start:
                made.start()
            return made

        yield run


class MakeStandby(Protocol):
    """See the fixture `standby_of`."""

    def __call__(self, primary: Cluster, name: str = ...) -> Cluster: ...


@pytest.fixture
def standby_of(serve: Serve) -> MakeStandby:
    """Makes a hot standby that streams from a running cluster: `standby_of(primary)`; stopped at the end."""

    def make(primary: Cluster, name: str = "standby") -> Cluster:
        datadir = primary.home / name
        primary.run("pg_basebackup", "-D", str(datadir), "-X", "stream", "-c", "fast", "--write-recovery-conf")
        standby = serve(datadir)
        for _ in range(600):
            if standby.value("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"):
                return standby
            time.sleep(0.05)
        raise AssertionError(f"the standby does not stream; its log ends: {standby.instance.log_tail()}")

    return make


def _cluster_on(
    datadir: Path,
    programs: Programs,
    account: Account,
    stack: ExitStack,
    *,
    settings: dict[str, str],
    env: dict[str, str],
) -> Cluster:
    sockets = stack.enter_context(socket_directory(account))
    log = datadir.parent / f"{datadir.name}.log"
    surroundings = servers.library_path(programs) | env
    instance = Instance(programs, datadir, account, sockets, log, settings=settings, env=surroundings)
    stack.callback(instance.stop, "immediate")
    return Cluster(instance, datadir.parent)
