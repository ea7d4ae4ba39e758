"""Running the real program: in this process (quick), or as the server's account (true)."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pgkeep.cli.main import run
from pgkeep.cli.session import Surroundings
from pgkeep.clock import SystemClock
from pgkeep.pg.account import Account, credentials


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of the program left."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        """The final object's result."""
        last = self.lines[-1]
        assert last["schema"] == 1
        found = last["result"]
        assert isinstance(found, dict)
        return found


Run = Callable[..., Ran]


@pytest.fixture
def pgkeep(tmp_path: Path) -> Run:
    """`pgkeep("list", "--json", PGKEEP_CONFIG=...)` in this process, in an empty directory, with no other variables."""

    def call(*argv: str, **environment: str) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        around = Surroundings(environment, str(tmp_path), str(tmp_path / "home"), SystemClock(), out, err)
        return Ran(run(argv, around), out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def pgkeep_process(server_tmp: Path, server_user: Account, pgkeep_program: tuple[str, ...]) -> Run:
    """`pgkeep_process("wal", "get", ...)`: the real program as the server's account, in `server_tmp`."""

    def call(*argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        who = credentials(server_user)
        done = subprocess.run(
            [*pgkeep_program, *argv],
            cwd=cwd or server_tmp, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
            env={"PATH": os.environ["PATH"], "HOME": str(server_tmp), **(env or {})},
            user=who.user, group=who.group, extra_groups=who.extra_groups,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    return call
