"""Dumps of a real server, taken in this process into a repository of the test's own."""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pgkeep.app.dump import DumpResult, DumpTarget, PreparedDump, dump, prepare_dump
from pgkeep.app.load import LoadChoices, carry_out, prepared
from pgkeep.app.place import Place
from pgkeep.clock import SystemClock
from pgkeep.config.settings import ClusterSettings
from pgkeep.events import Event
from pgkeep.format.objects import IncarnationInfo
from pgkeep.logical.loadjob import LoadResult
from pgkeep.logical.loadrequest import LoadRequest
from pgkeep.logical.request import DumpRequest
from pgkeep.logical.stored import LATEST
from pgkeep.repo.dumps import DumpReader, dump_ids, open_dump
from pgkeep.repo.repository import Cluster as RepositoryCluster
from pgkeep.repo.repository import Repository, create_repository, register_cluster
from pgkeep.store.local import LocalStore
from pgkeep.store.open import create_store
from tests.clusters import Cluster
from tests.logical.away import _aways, away, left_as_found
from tests.logical.sides import _sides, load, sides

__all__ = ["_aways", "_sides", "away", "load", "sides"]
"""Fixtures from elsewhere."""

INTO_REPOSITORY = DumpTarget()


def left_behind() -> list[str]:
    """Directories of dumps in memory that nobody holds any more; other tests' own come and go meanwhile."""
    return [path for path in glob.glob("/dev/shm/pgkeep-dump-*") if not _is_held(path)]


def _is_held(path: str) -> bool:
    """By a dump that lives (logical/scratch.py), or gone by now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return not os.path.exists(path)


@dataclass
class Ground:
    """A server, a repository that knows it, and the events of the dumps that were taken."""

    server: Cluster
    home: Path
    connection: str
    events: list[Event] = field(default_factory=list)
    clock: SystemClock = field(default_factory=SystemClock)
    _place: Place | None = None

    @property
    def settings(self) -> ClusterSettings:
        return ClusterSettings("main", self.connection, bindir=str(self.server.programs.bindir))

    @property
    def place(self) -> Place:
        if self._place is None:
            url = f"file://{self.home}/repository"
            repository: Repository = create_repository(create_store(url), self.clock, "pgkeep 0.1")
            system_id = int(self.server.value("SELECT system_identifier FROM pg_control_system()"))
            info = IncarnationInfo(
                system_id=system_id, cluster_name="main", server_version=self.server.major * 10000,
                first_seen=self.clock.now().isoformat(), wal_segment_size=1 << 24,
            )  # fmt: skip
            self._place = Place(self.settings, repository, register_cluster(repository, info, self.clock))
        return self._place

    @property
    def cluster(self) -> RepositoryCluster:
        return self.place.cluster

    def prepare(self, request: DumpRequest, target: DumpTarget = INTO_REPOSITORY) -> PreparedDump:
        cluster = self.cluster if target.to is None else None
        return prepare_dump(self.settings, request, target, self.clock, cluster)

    def dump(self, request: DumpRequest, target: DumpTarget = INTO_REPOSITORY) -> DumpResult:
        place = self.place if target.to is None else None
        return dump(self.prepare(request, target), place, self.clock, self.events.append)

    def load(self, server: Cluster, name: str, into: str, scratch: str = "", **request: Any) -> LoadResult:
        """The newest dump of that set into a database of another server."""
        choices = LoadChoices(
            LATEST, LoadRequest(into, **request), server.conninfo, set_name=name, scratch=scratch,
            bindir=server.programs.bindir,
        )  # fmt: skip
        with prepared(choices, lambda: self.place, self.clock, self.events.append) as ready:
            return carry_out(ready, self.clock, self.events.append)

    def newest(self) -> DumpReader:
        return open_dump(self.cluster, dump_ids(self.cluster)[-1])

    def fetch(self, into: Path) -> Path:
        """The newest dump's members as files."""
        reader = self.newest()
        for member in reader.members():
            path = into / os.fsdecode(member.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            assert reader.write_to(member, str(path)) == member.size
        return into

    def packs(self) -> list[str]:
        store = self.place.repository.store
        assert isinstance(store, LocalStore)
        return [stat.key for stat in store.list(f"{self.cluster.uuid}/packs/")]

    def restored(self, dbname: str, program: str, *args: str) -> str:
        """A new database into which `program` has loaded; its name."""
        self.server.sql(f'CREATE DATABASE "{dbname}" TEMPLATE template0')
        self.client(program, f"--dbname={dbname}", *args)
        return dbname

    def client(self, program: str, *args: str) -> str:
        """Run a client program of the server's version as this account; what it says."""
        env = {"PGHOST": str(self.server.instance.socket_dir), "PGPORT": str(self.server.instance.port)}
        return self.server.programs.run(program, *args, env=env | {"PGUSER": "postgres"}, timeout=120).text()


@pytest.fixture
def ground(shared_cluster: Cluster, tmp_path: Path) -> Iterator[Ground]:
    """On the shared cluster; databases that a test makes are dropped."""
    tmp_path.chmod(0o755)
    before = {name for (name,) in shared_cluster.sql("SELECT datname FROM pg_database")}
    yield Ground(shared_cluster, tmp_path, shared_cluster.conninfo)
    for (name,) in shared_cluster.sql("SELECT datname FROM pg_database"):
        if name not in before:
            quoted = name.replace('"', '""')
            shared_cluster.sql(f'DROP DATABASE "{quoted}" WITH (FORCE)')


@pytest.fixture
def production(shared_cluster: Cluster, tmp_path: Path) -> Iterator[Ground]:
    """The shared cluster with the database shop; databases, tablespaces and roles that a test makes are dropped."""
    with left_as_found(shared_cluster):
        fill(shared_cluster, "shop", 500)
        tmp_path.chmod(0o755)
        yield Ground(shared_cluster, tmp_path, shared_cluster.conninfo)


Fill = Callable[..., str]


@pytest.fixture
def shop(ground: Ground) -> str:
    """A database with a few tables, large objects and a sequence in use; its name."""
    return fill(ground.server, "shop")


def fill(server: Cluster, name: str, rows: int = 5000) -> str:
    quoted = name.replace('"', '""')
    server.sql(f'CREATE DATABASE "{quoted}"')
    with server.connect(name) as connection:
        for statement in (
            "CREATE SCHEMA sales",
            f"CREATE TABLE sales.orders AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, {rows}) AS i",
            "CREATE TABLE customers (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name text)",
            "INSERT INTO customers (name) SELECT 'customer ' || i FROM generate_series(1, 1000) AS i",
            "CREATE TABLE empty ()",
            "SELECT lo_from_bytea(0, convert_to('large ' || i, 'UTF8')) FROM generate_series(1, 3) AS i",
        ):
            connection.execute(statement.encode())
    return name


def content(server: Cluster, dbname: str) -> dict[str, Any]:
    """What `fill` made, by hash."""
    queries = {
        "orders": "SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM sales.orders AS o",
        "customers": "SELECT md5(string_agg(c::text, ',' ORDER BY id)) FROM customers AS c",
        "next": "SELECT last_value FROM customers_id_seq",
        "empty": "SELECT count(*) FROM empty",
        "large": "SELECT string_agg(convert_from(lo_get(oid), 'UTF8'), ',' ORDER BY oid) FROM pg_largeobject_metadata",
    }
    return {name: server.value(query, dbname=dbname) for name, query in queries.items()}
