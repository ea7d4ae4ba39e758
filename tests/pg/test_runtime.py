"""The server's account really runs this pgkeep, also when the checkout and the interpreter are closed to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.conftest import MakeCluster
from tests.requirements import need_root

import pgkeep
from pgkeep.pg.account import Account, server_account
from pgkeep.pg.programs import run_program
from pgkeep.pg.runtime import DISTRIBUTIONS, command_for, shell_command

CHECKOUT = Path(__file__).parents[2]


def test_the_program_answers_as_the_server_account(pgkeep_program: tuple[str, ...], server_user: Account) -> None:
    output = run_program([*pgkeep_program, "--version"], account=server_user)
    assert output.status == 0, output.stderr
    assert pgkeep.__version__ in output.text()


def test_a_closed_checkout_and_interpreter_are_copied(server_tmp: Path) -> None:
    """As root from a 0700 directory: the package must be copied, and it must then run with nothing of root's."""
    need_root()
    account = server_account()
    closed = server_tmp / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(Path(pgkeep.__file__).parent, closed / "pgkeep")
    reachable = server_tmp / "run"
    reachable.mkdir()
    ask = (
        "import sys; from pathlib import Path; from pgkeep.pg.account import server_account;"
        "from pgkeep.pg.runtime import command_for;"
        "print(*command_for(server_account(), Path(sys.argv[1])), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, str(reachable)],
        env={**os.environ, "PYTHONPATH": str(closed)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = done.stdout.split("\n")[:-1]
    assert str(closed) not in Path(command[0]).read_text()
    output = run_program([*command, "--version"], account=account)
    assert output.status == 0, output.stderr
    assert pgkeep.__version__ in output.text()


def test_an_unreachable_interpreter_is_copied(
    server_tmp: Path, server_user: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no interpreter of this version in any usual place, the running one is copied and works."""
    need_root()
    monkeypatch.setattr(sys, "executable", _closed_interpreter(server_tmp))
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("pgkeep.pg.runtime.USUAL_PLACES", ())
    command = command_for(server_user, server_tmp)
    output = run_program([*command, "--version"], account=server_user)
    assert output.status == 0, output.stderr
    assert str(server_tmp / "python") in Path(command[0]).read_text()


def _closed_interpreter(home: Path) -> str:
    closed = home / "closed-bin"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(Path(sys.executable).resolve())
    return str(closed / "python")


def test_the_copied_distributions_are_those_that_the_project_needs() -> None:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in wanted}  # type: ignore[index]
    assert set(DISTRIBUTIONS) - {"psycopg-binary"} == names


def test_shell_command_survives_the_server(cluster: MakeCluster) -> None:
    """PostgreSQL expands % itself and hands the rest to sh: blanks, quotes and percent signs must arrive."""
    server = cluster(archive_mode="on", wal_level="replica", start=False)
    witness = server.directory("wit ness's 100%p")
    script = witness / "arch.sh"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$1" >> "$(dirname "$0")/seen"\n')
    script.chmod(0o755)
    command = shell_command([str(script)]) + " %f"
    server.configure(archive_command="'" + command.replace("'", "''") + "'")
    server.start()
    segment = server.switch_wal()
    server.run("psql", "-qc", "CHECKPOINT")
    for _ in range(100):
        if server.value("SELECT archived_count + failed_count FROM pg_stat_archiver"):
            break
        server.sql("SELECT pg_sleep(0.05)")
    assert (witness / "seen").read_text().split() == [segment], server.instance.log_tail()
