"""How a file arrives in pg_wal: whole, replacing, and without litter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.wal.landing import write_durably


def test_it_replaces_and_pads(tmp_path: Path) -> None:
    target = tmp_path / "RECOVERYXLOG"
    target.write_bytes(b"older and longer")
    write_durably(str(target), b"wal", zeros=5)
    assert target.read_bytes() == b"wal\0\0\0\0\0"
    assert [path.name for path in tmp_path.iterdir()] == ["RECOVERYXLOG"]


def test_a_missing_directory_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        write_durably(str(tmp_path / "pg_wal" / "RECOVERYXLOG"), b"wal")
    assert caught.value.code == "io"


def test_what_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "RECOVERYXLOG").mkdir()
    with pytest.raises(Fault):
        write_durably(str(tmp_path / "RECOVERYXLOG"), b"wal")
    assert [path.name for path in tmp_path.iterdir()] == ["RECOVERYXLOG"]


def test_the_litter_of_the_dead_is_removed_and_that_of_the_living_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"RECOVERYXLOG.pgkeep-{dead.pid}").write_bytes(b"half")
    (tmp_path / "RECOVERYXLOG.pgkeep-1").write_bytes(b"half")
    (tmp_path / "RECOVERYXLOG.pgkeep-notes").write_bytes(b"mine")
    write_durably(str(tmp_path / "RECOVERYXLOG"), b"wal")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "RECOVERYXLOG", "RECOVERYXLOG.pgkeep-1", "RECOVERYXLOG.pgkeep-notes",
    ]  # fmt: skip
