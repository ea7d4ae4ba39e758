"""`pgkeep restore`: the plan, the result, and what is said of targets that cannot be."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ran, Run
from tests.conftest import MakeCluster

from pgkeep.cli.restore import local_zone
from pgkeep.pg.instance import server_pids
from pgkeep.restore.moment import show_moment

PLAN = {
    "directory", "backup", "target", "stop", "action", "timeline", "history", "files", "write_bytes", "read_bytes",
    "wal", "tablespaces", "space", "account", "programs", "port", "socket_directory", "settings", "warnings",
    "over", "standby",
}  # fmt: skip


class Story:
    """A backed up server with a row before and a row after the moment that is wanted."""

    def __init__(self, cluster: MakeCluster, pgkeep: Run, home: Path) -> None:
        self.server = cluster("main", archive_mode="on", wal_segsize=1)
        self.pgkeep, self.home = pgkeep, home
        made = pgkeep("init", "--repository", str(home / "r"), "--connection", self.server.conninfo, "--json")
        for one in made.result["statements"]:
            self.server.sql(one["sql"])
        self.server.reload()
        self.server.sql("CREATE TABLE t (n int)")
        assert pgkeep("backup").status == 0
        self.server.sql("INSERT INTO t VALUES (1)")
        self.moment: datetime = self.server.value("SELECT clock_timestamp()")
        self.server.sql("SELECT pg_sleep(0.2)")
        self.server.sql("INSERT INTO t VALUES (2)")
        segment = self.server.switch_wal()
        while self.server.value("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") < segment:
            self.server.sql("SELECT pg_sleep(0.1)")

    def restore(self, *argv: str) -> Ran:
        bindir = str(self.server.programs.bindir)
        return self.pgkeep("restore", str(self.home / "restored"), "--bindir", bindir, *argv)

    def rows(self, result: dict[str, Any]) -> list[tuple[Any, ...]]:
        """What the restored server holds; it is stopped."""
        recovered = result["recovered"]
        options = [
            "-h",
            recovered["socket_directory"],
            "-p",
            str(recovered["port"]),
            "-U",
            "postgres",
            "-d",
            "postgres",
        ]
        programs, account = self.server.programs, self.server.account
        output = programs.run("psql", "-XAt", *options, "-c", "SELECT n FROM t ORDER BY n", account=account)
        programs.run("pg_ctl", "stop", "-D", str(self.home / "restored"), "-m", "fast", account=account)
        return [(int(line),) for line in output.text().split()]


@pytest.fixture
def story(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> Story:
    return Story(cluster, pgkeep_process, server_tmp)


def test_to_a_moment_and_started(story: Story) -> None:
    when = ("--time", show_moment(story.moment))
    planned = story.restore(*when, "--dry-run", "--json")
    assert planned.status == 0, planned.out
    assert (set(planned.result), set(planned.result["plan"])) == ({"verb", "dry_run", "plan"}, PLAN)
    assert not (story.home / "restored").exists()
    text = story.restore(*when, "--dry-run").out
    assert text.startswith("restore of main to ")
    for part in ("will be there", "will not", "not touched", str(story.home / "restored"), "socket in"):
        assert part in text

    done = story.restore(*when, "--start", "--json")
    assert done.status == 0, done.out
    assert set(done.result) == {"verb", "dry_run", "plan", "bytes", "seconds", "recovered"}
    assert done.result["recovered"]["state"] == "ready"
    assert set(done.result["recovered"]) == {
        "state", "lsn", "last_transaction", "timeline", "said", "port", "socket_directory", "log", "seconds",
    }  # fmt: skip
    assert story.rows(done.result) == [(1,)]

    again = story.restore("--json")
    assert (again.status, again.lines[-1]["error"]["code"]) == (2, "usage")
    assert "--yes" in again.lines[-1]["error"]["hint"]


def test_to_the_end_and_started_by_hand(story: Story) -> None:
    done = story.restore("--latest", "--port", "54321")
    assert done.status == 0, done.err
    assert "restore of main to the end of the archived WAL" in done.err
    assert f"-D {story.home / 'restored'} -l" in done.out
    assert "-p 54321" in done.out
    assert server_pids(story.home / "restored") == ()
    assert "port = '54321'" in (story.home / "restored" / "postgresql.auto.conf").read_text()


def test_paused_at_the_target(story: Story) -> None:
    done = story.restore("--time", show_moment(story.moment), "--action", "pause", "--start", "--json")
    assert done.status == 0, done.out
    assert done.result["recovered"]["state"] == "paused"
    assert story.rows(done.result) == [(1,)]


def test_targets_that_cannot_be(story: Story) -> None:
    def fault(*argv: str) -> tuple[int, str, str]:
        ran = story.restore(*argv, "--json")
        error = ran.lines[-1]["error"]
        return ran.status, error["code"], error["message"] + (error["hint"] or "")

    early = show_moment(story.moment - timedelta(days=1))
    status, code, words = fault("--time", early)
    assert (status, code) == (13, "target-unreachable")
    assert "earliest" in words
    assert fault("--time", "2026-05-07 14:29:00")[:2] == (2, "time-without-zone")
    assert fault("--lsn", "x")[:2] == (2, "usage")
    assert fault("--xid", "0")[:2] == (2, "usage")
    assert fault("--lsn", "0/1", "--xid", "741")[:2] == (2, "usage")
    assert fault("--latest", "--exclusive")[:2] == (2, "usage")
    assert fault("--backup", "nonsense")[:2] == (2, "usage")
    assert fault("--backup", "20000101T000000Z-00000000")[:2] == (1, "backup-unknown")
    assert fault("--timeline", "7")[:2] == (13, "target-unreachable")
    assert fault("--tablespace-map", "/a")[:2] == (2, "usage")
    assert fault("--latest", "--action", "pause")[:2] == (2, "usage")
    assert not (story.home / "restored").exists()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"TZ": "Europe/Moscow"}, "Europe/Moscow"), ({"TZ": ":/usr/share/zoneinfo/Asia/Tokyo"}, "Asia/Tokyo")],
)
def test_the_machines_zone(environment: dict[str, str], expected: str) -> None:
    assert local_zone(environment) == expected
    local = os.path.realpath("/etc/localtime")
    assert local_zone({}) in {local.partition("/zoneinfo/")[2], ""}
