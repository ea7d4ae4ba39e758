"""Completion as the shells ask for it: the real program, the real variables."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_main import ENTRY, SOURCE, process


def offered(cwd: Path, line: str, **environment: str) -> list[str]:
    """What is offered for the last word of `line` (empty after a blank)."""
    words = line.split(" ")
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": SOURCE}
    env |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_PGKEEP_COMPLETE": "bash_complete"} | environment
    ran = subprocess.run(ENTRY, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""
    return [line.partition(",")[2] for line in ran.stdout.splitlines() if line]


def test_verbs_options_and_values(tmp_path: Path) -> None:
    assert {"init", "backup", "restore", "completion"} <= set(offered(tmp_path, "pgkeep "))
    assert offered(tmp_path, "pgkeep ver") == ["verify"]
    assert offered(tmp_path, "pgkeep init --ad") == ["--adopt"]
    assert offered(tmp_path, "pgkeep backup --dry") == ["--dry-run"]
    assert offered(tmp_path, "pgkeep backup --checkpoint s") == ["spread"]
    assert offered(tmp_path, "pgkeep wal g") == ["get"]


def test_clusters_of_the_configuration(tmp_path: Path) -> None:
    assert offered(tmp_path, "pgkeep --cluster ") == []
    text = '[repository]\nurl = "/nowhere"\n[cluster.billing]\nconnection = ""\n[cluster.shop]\nconnection = ""\n'
    (tmp_path / "other.toml").write_text(text)
    assert offered(tmp_path, "pgkeep --config other.toml --cluster b") == ["billing"]
    assert offered(tmp_path, "pgkeep --cluster ", PGKEEP_CONFIG="other.toml") == ["billing", "shop"]
    assert offered(tmp_path, "pgkeep --config other.toml --cluster shop restore x --backup ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(tmp_path: Path, shell: str) -> None:
    ran = process("completion", shell, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert f"_PGKEEP_COMPLETE={shell}_complete" in ran.out
    assert f"pgkeep completion {shell} >" in ran.out


def test_bash_itself_reads_the_script(tmp_path: Path) -> None:
    script = process("completion", "bash", cwd=tmp_path).out
    done = subprocess.run(["/bin/bash", "-c", script + "\ncomplete -p pgkeep"], capture_output=True, text=True)
    assert "_pgkeep_completion" in done.stdout, done.stderr


def test_an_unknown_shell(pgkeep: Run) -> None:
    ran = pgkeep("completion", "powershell")
    assert ran.status == 2
    assert "'bash', 'zsh', 'fish'" in ran.err
