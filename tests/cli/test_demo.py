"""The demo tells the truth: it recovers, it says when it did not, and it leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from pgkeep.app.demo import Fingerprint, Shop, restored_server
from pgkeep.pg.instance import server_pids


def test_the_whole_story_as_the_servers_account(pgkeep_process: Run, server_tmp: Path) -> None:
    home = server_tmp / "demo"
    ran = pgkeep_process("demo", "--json", "--directory", str(home))
    assert ran.status == 0, ran.err + ran.out
    result = ran.result
    assert set(result) == {"verb", "same", "expected", "found", "target_time", "scenes", "seconds"}
    assert result["same"] is True
    assert result["found"] == result["expected"]
    assert result["found"]["rows"] == 115_000
    names = [scene["name"] for scene in result["scenes"]]
    assert names == ["server", "backup", "business", "accident", "restore", "proof"]
    assert not home.exists()


def test_as_whoever_runs_the_tests(pgkeep: Run, server_tmp: Path) -> None:
    """For root: the servers, and the program that they call, run under another account."""
    home = server_tmp / "demo"
    ran = pgkeep("demo", "--keep", "--directory", str(home), PATH=os.environ["PATH"])
    assert ran.status == 0, ran.err + ran.out
    for part in (
        'psql -c "DROP TABLE orders"',
        "does not exist",
        "will be there",
        "recovered to",
        "every order is back",
    ):
        assert part in ran.out
    assert ran.out.count("same") == 2
    assert (home / "restored" / "PG_VERSION").exists()
    for name in ("production", "restored"):
        assert server_pids(home / name) == ()
    again = pgkeep("demo", "--directory", str(home))
    assert again.status == 1
    assert "is not empty" in again.err
    assert (home / "repository" / "pgkeep").exists()


def test_a_difference_is_told_and_fails(pgkeep: Run, server_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def one_row_less(*arguments: object) -> Iterator[object]:
        with restored_server(*arguments) as session:  # type: ignore[arg-type]
            session.rows("DELETE FROM public.orders WHERE id = 110000")
            yield session

    monkeypatch.setattr("pgkeep.cli.scenes.restored_server", one_row_less)
    ran = pgkeep("demo", "--directory", str(server_tmp / "demo"))
    assert ran.status == 14
    assert ran.out.count("DIFFERENT") == 2
    assert "every order is back" not in ran.out
    assert not (server_tmp / "demo").exists()


def test_a_failure_ends_servers_and_files(pgkeep: Run, server_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> Fingerprint:
        raise KeyboardInterrupt

    monkeypatch.setattr(Shop, "take_orders", refuse)
    ran = pgkeep("demo", "--directory", str(server_tmp / "demo"))
    assert ran.status == 130
    assert not (server_tmp / "demo").exists()


def test_it_cannot_be_rehearsed(pgkeep: Run) -> None:
    assert pgkeep("demo", "--dry-run").status == 2
