"""The demo tells the truth: it recovers, it says when it did not, and it leaves nothing behind."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.clusters import Cluster

from pgkeep.app.demo import Fingerprint, Moment, Shop
from pgkeep.cli.options import Options
from pgkeep.cli.render.story import Story
from pgkeep.cli.scenes import Play
from pgkeep.cli.session import Session as CommandLine
from pgkeep.cli.session import Surroundings
from pgkeep.clock import SystemClock
from pgkeep.pg.instance import server_pids
from pgkeep.pg.session import Session


def test_the_whole_story_as_the_servers_account(pgkeep_process: Run, server_tmp: Path) -> None:
    home = server_tmp / "a demo"
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


def test_one_changed_row_is_a_difference(shared_cluster: Cluster) -> None:
    shared_cluster.sql("CREATE DATABASE shop")
    with Session.open(shared_cluster.instance.conninfo("shop"), "test") as session:
        shop = Shop(session, SystemClock())
        before = shop.open_for_business()
        session.rows("UPDATE public.orders SET amount = amount + 0.01 WHERE id = 50000")
        changed = shop.fingerprint()
        assert (changed.rows, changed.md5 == before.md5) == (before.rows, False)
        session.rows("UPDATE public.orders SET amount = amount - 0.01 WHERE id = 50000")
        assert shop.fingerprint() == before
        session.rows("DELETE FROM public.orders WHERE id = 50000")
        assert shop.fingerprint().rows == before.rows - 1
    shared_cluster.sql("DROP DATABASE shop")


def test_a_difference_is_told_and_fails(tmp_path: Path) -> None:
    out = io.StringIO()
    around = Surroundings({}, "/", "/", SystemClock(), out, io.StringIO())
    session = CommandLine(around, Options())
    play = Play(session, Story(session.out, around.clock), tmp_path, ExitStack(), keep=False)
    moment = Moment(around.clock.now(), "0/1")
    assert play.end(Fingerprint(115_000, "aa"), Fingerprint(115_000, "ab"), moment) == 14
    assert out.getvalue().count("DIFFERENT") == 1
    assert "every order is back" not in out.getvalue()
    assert play.end(Fingerprint(115_000, "aa"), Fingerprint(115_000, "aa"), moment) == 0


def test_a_failure_ends_servers_and_files(pgkeep: Run, server_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> Fingerprint:
        raise KeyboardInterrupt

    monkeypatch.setattr(Shop, "take_orders", refuse)
    ran = pgkeep("demo", "--directory", str(server_tmp / "demo"))
    assert ran.status == 130
    assert not (server_tmp / "demo").exists()


def test_it_cannot_be_rehearsed(pgkeep: Run) -> None:
    assert pgkeep("demo", "--dry-run").status == 2
