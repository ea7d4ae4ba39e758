"""Signals in the first tenths of a second, while the program still imports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pgkeep.cli import early
from pgkeep.errors import EXIT_INTERRUPTED

_SIGNALLED = """
import os, sys

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, AtImport())
sys.argv = ["pgkeep", *{argv}]
from pgkeep.__main__ import main
main()
"""
SAID = "error: interrupted; earlier backups are as they were\n"


def _run(
    module: str,
    number: int,
    directory: Path,
    argv: Sequence[str] = ("list",),
    prepare: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """A run that gets the signal when it begins to import the module."""
    code = _SIGNALLED.format(module=module, number=int(number), argv=[*argv])
    environment = {"HOME": str(directory), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, preexec_fn=prepare, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["pgkeep.cli.main", "rich", "pgkeep.cli.list"])
def test_a_signal_in_mid_import(module: str, number: signal.Signals, tmp_path: Path) -> None:
    ran = _run(module, number, tmp_path)
    # click puts an empty line behind the terminal's ^C
    assert (ran.returncode, ran.stdout, ran.stderr.lstrip("\n")) == (130, "", SAID)


def test_workers_that_have_begun_end_too(tmp_path: Path) -> None:
    """Their fork server holds this process's pipes: `_run` ends when it does."""
    ran = _run("pgkeep.cli.main", signal.SIGTERM, tmp_path, ("backup",))
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", SAID)


@pytest.mark.parametrize("module", ["click", "pgkeep.cli.list"])
def test_machines_get_the_same_answer_before_and_after(module: str, tmp_path: Path) -> None:
    ran = _run(module, signal.SIGTERM, tmp_path, ("list", "--json"))
    error: dict[str, object] = {"code": "interrupted", "message": early.INTERRUPTED, "hint": None, "context": {}}
    assert (ran.returncode, ran.stderr.strip()) == (130, "")
    assert json.loads(ran.stdout) == {"schema": 1, "error": error}


def test_who_ignores_a_signal_still_does(tmp_path: Path) -> None:
    ran = _run("click", signal.SIGHUP, tmp_path, prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert ran.returncode == 2 and "error: " in ran.stderr, "it goes on, and finds no configuration"


def test_restore_command_ends_by_the_signal(tmp_path: Path) -> None:
    """PostgreSQL takes that for its own doing, and any exit status above 125 for a failure (xlogarchive.c)."""
    ran = _run("pgkeep.cli.main", signal.SIGTERM, tmp_path, ("wal", "get", "--help"))
    assert ran.returncode == -signal.SIGTERM


def test_the_status_is_the_catalogues() -> None:
    assert early.EXIT_INTERRUPTED == EXIT_INTERRUPTED
