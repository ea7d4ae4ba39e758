"""Round trips of the proof schema: over versions, formats and ways; what differs afterwards is named and reviewed."""

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
from tests.logical.proof import Picture, differences, picture

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
        words = ["load", *argv, "--to", server.conninfo, "--bindir", str(server.programs.bindir)]
        return Ran(run(words, around), out.getvalue(), err.getvalue())

    return call


def assert_same(side: Side, dbname: str, expected: Picture, reviewed: tuple[str, ...] = ()) -> None:
    """`reviewed` are the beginnings of lines that may differ, each with its reason where it stands."""
    found = differences(expected, side.picture(dbname))
    unexplained = [line for line in found if not line.startswith(reviewed)]
    assert not unexplained, "\n".join(unexplained)


@pytest.mark.parametrize("major", [OLD, NEW])
@pytest.mark.parametrize("kind", ["directory", "custom", "tar", "plain"])
def test_every_format_into_a_new_database(sides: Sides, load: Load, kind: str, major: int) -> None:
    side = sides.side(major)
    done = load(side.server, str(sides.archive(kind, major)), "--into", "copy", "--jobs", "2", "--json")
    assert done.status == 0, done.out
    assert done.result["plan"]["jobs"] == (2 if kind in {"directory", "custom"} else 1)
    expected = side.expected
    if kind == "plain":  # a script without what belongs to the database: pgkeep dump saves that beside it
        expected = Picture(
            expected.schema, expected.rows, expected.blobs, expected.sequences, side.picture("copy").database
        )
    assert_same(side, "copy", expected)
