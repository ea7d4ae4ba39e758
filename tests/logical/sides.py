"""Two servers with the proof schema, of the oldest and the newest version, and the program that loads into them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgkeep.cli.main import run
from pgkeep.cli.session import Surroundings
from pgkeep.clock import SystemClock
from pgkeep.pg.account import Account
from tests.cli.conftest import Ran
from tests.clusters import Cluster
from tests.conftest import _maker, _server_directory
from tests.logical import proof
from tests.logical.proof import Picture, picture

OLD, NEW = 14, 18


@dataclass
class Side:
    """A server with the proof schema in its database `proof`, and its picture."""

    server: Cluster
    expected: Picture

    def picture(self, dbname: str) -> Picture:
        return picture(self.server, dbname, self.server.programs)


@dataclass
class Sides:
    """Both versions; `archives` are dumps of `proof` by format and version."""

    old: Side
    new: Side
    home: Path

    def side(self, major: int) -> Side:
        return self.old if major == OLD else self.new

    def archive(self, kind: str, major: int) -> Path:
        """A dump of that version's `proof` by its own pg_dump, made once."""
        path = self.home / f"{kind}-{major}"
        if not path.exists():
            options = {"directory": ["-Fd", "-j2"], "custom": ["-Fc"], "tar": ["-Ft"], "plain": ["-Fp"]}[kind]
            run_client(self.side(major).server, "pg_dump", *options, "-f", str(path), "proof")
        return path


def run_client(server: Cluster, program: str, *args: str) -> bytes:
    """A client program of the server's version as this account."""
    env = {"PGHOST": str(server.instance.socket_dir), "PGPORT": str(server.instance.port), "PGUSER": "postgres"}
    return server.programs.run(program, *args, env=env, timeout=120).stdout


@pytest.fixture(scope="session")
def _sides(server_user: Account) -> Iterator[Sides]:
    home = _server_directory(server_user)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        found = []
        for major in (OLD, NEW):
            server = _maker(major, home, server_user, stack)(f"proof{major}", wal_level="logical")
            proof.make(server)
            found.append(Side(server, picture(server, "proof", server.programs)))
        yield Sides(found[0], found[1], home)


@pytest.fixture
def sides(_sides: Sides) -> Iterator[Sides]:
    """Databases that a test makes are dropped; the `proof` of each side never changes."""
    yield _sides
    for side in (_sides.old, _sides.new):
        for (name,) in side.server.sql("SELECT datname FROM pg_database WHERE NOT datistemplate"):
            if name not in {"postgres", "proof"}:
                quoted = name.replace('"', '""')
                side.server.sql(f'DROP DATABASE "{quoted}" WITH (FORCE)')


Load = Callable[..., Ran]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(server, "dump", "--into", "x")`: the program in this process, without a configuration."""

    def call(server: Cluster, *argv: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        around = Surroundings({}, str(tmp_path), str(tmp_path), SystemClock(), out, err)
        words = ["load", "--server", server.conninfo, "--bindir", str(server.programs.bindir), *argv]
        return Ran(run(words, around), out.getvalue(), err.getvalue())

    return call


def databases(server: Cluster) -> list[str]:
    return sorted(name for (name,) in server.sql("SELECT datname FROM pg_database"))
