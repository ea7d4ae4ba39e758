"""The everyday story in three commands over two versions: dump production, create a database, load in parallel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pgkeep.pg.account import Account, credentials
from tests.cli.conftest import Ran
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.logical import proof
from tests.logical.conftest import left_behind
from tests.logical.proof import differences, picture
from tests.logical.test_load import UP, comparable

DOCUMENTED = Path(__file__).parents[2] / "docs/load-a-dump.md"


@dataclass
class Desk:
    """A person's shell: production of 14 under care, a server of 18 of one's own, and the real program."""

    production: Cluster
    local: Cluster
    program: tuple[str, ...]
    account: Account
    home: Path

    def run(self, *argv: str) -> Ran:
        """A command as somebody types it; `pgkeep` is this one, other programs are those of the local server."""
        program = self.program if argv[0] == "pgkeep" else (self.local.programs.path(argv[0]),)
        return self._started([*program, *argv[1:]])

    def _started(self, command: Sequence[str]) -> Ran:
        who = credentials(self.account)
        done = subprocess.run(
            list(command),
            cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
            user=who.user, group=who.group, extra_groups=who.extra_groups,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def desk(cluster: MakeCluster, pgkeep_program: tuple[str, ...], server_user: Account, server_tmp: Path) -> Desk:
    production = cluster("production", major=14, archive_mode="on")
    proof.make(production)
    desk = Desk(production, cluster("local", major=18, wal_level="logical"), pgkeep_program, server_user, server_tmp)
    made = desk.run("pgkeep", "init", "--repository", str(server_tmp / "r"), "--connection", production.conninfo)
    assert made.status == 0, made.err
    return desk


def test_three_commands(desk: Desk) -> None:
    at = f"host={desk.local.instance.socket_dir} port={desk.local.instance.port} user=postgres"
    there = ["--host", str(desk.local.instance.socket_dir), "--username", "postgres"]
    commands = [
        ["pgkeep", "dump", "proof"],
        ["createdb", *there, "proof_local"],
        ["pgkeep", "load", "latest", "--into", "proof_local", "--server", at, "--jobs", "2", "--globals"],
    ]
    for command in commands:
        done = desk.run(*command)
        assert done.status == 0, (command, done.out, done.err)
    programs = desk.local.programs
    expected = comparable(picture(desk.production, "proof", programs))
    found = comparable(picture(desk.local, "proof_local", programs))
    assert [line for line in differences(replace(expected, database=found.database), found) if line not in UP] == []
    passwords = "SELECT rolname, rolpassword, rolconnlimit FROM pg_authid WHERE rolname ~ 'proof|Robert' ORDER BY 1"
    assert desk.local.sql(passwords) == desk.production.sql(passwords)
    for word in ("pgkeep dump shop", "createdb", "pgkeep load latest --into shop", "--jobs"):
        assert word in DOCUMENTED.read_text()


def test_into_a_database_that_load_makes(desk: Desk) -> None:
    """The whole database, with its own settings, owner and rights; in the formats that the repository holds."""
    programs = desk.local.programs
    expected = comparable(picture(desk.production, "proof", programs))
    for form in ("directory", "custom", "plain"):
        done = desk.run("pgkeep", "dump", "proof", "--format", form, "--name", form)
        assert done.status == 0, done.err
        name = f"copy of {form}"
        words = ["load", "latest", "--name", form, "--into", name, "--server", desk.local.conninfo, "--globals"]
        planned = desk.run("pgkeep", *words, "--dry-run", "--json")
        assert planned.status == 0, planned.out
        assert planned.result["plan"]["source"]["kind"] == form
        loaded = desk.run("pgkeep", *words)
        assert loaded.status == 0, loaded.err
        found = comparable(picture(desk.local, name, programs))
        assert [line for line in differences(expected, found) if line not in UP] == [], form
    several = desk.run("pgkeep", "load", "latest", "--into", "x", "--json")
    assert (several.status, several.lines[-1]["error"]["code"]) == (2, "usage")
    unknown = desk.run("pgkeep", "load", "2019", "--into", "x", "--json")
    assert (unknown.status, unknown.lines[-1]["error"]["code"]) == (1, "dump-unknown")
    assert not left_behind()
