"""`pgkeep dump --due`: what is due, pure; and as it is typed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.clusters import Cluster
from tests.conftest import MakeCluster

from pgkeep.app.duedumps import DueSet, one_at_a_time, plan_due
from pgkeep.config.settings import DumpSettings
from pgkeep.errors import Fault
from pgkeep.values.schedule import parse_schedule

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def due(schedule: str | None, last: datetime | None) -> list[DueSet]:
    settings = DumpSettings("shop", schedule=parse_schedule(schedule) if schedule else None)
    return list(plan_due([settings], {"shop": last} if last else {}, NOW, UTC))


@pytest.mark.parametrize(
    ("schedule", "last", "is_due"),
    [
        ("daily 02:30", None, True),
        ("daily 02:30", NIGHT - 5 * HOUR, True),
        ("daily 02:30", NIGHT + timedelta(seconds=1), False),
        ("daily 02:30", NIGHT - timedelta(minutes=9), False),  # the server's clock is behind
        ("daily 02:30", NIGHT - timedelta(minutes=11), True),
        ("daily 02:30", NOW + HOUR, False),  # ... or ahead
        ("hourly", NOW - timedelta(minutes=9), False),
        ("hourly", NOW - timedelta(minutes=20), True),
        ("*/5 * * * *", NOW - timedelta(minutes=5), True),  # the dump of the moment before
        ("*/5 * * * *", NOW - timedelta(minutes=1), False),
    ],
)
def test_a_set_is_due(schedule: str, last: datetime | None, is_due: bool) -> None:
    (one,) = due(schedule, last)
    assert one.is_due is is_due
    assert one.last == last
    assert one.next is not None
    assert one.next > NOW


def test_since_when_it_is_due() -> None:
    assert due("daily 02:30", NIGHT - 72 * HOUR)[0].since == NIGHT
    assert due("daily 02:30", None)[0].since == NIGHT
    assert due(None, None) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "pgkeep.toml"
    file.write_text("")
    with one_at_a_time(str(file)):
        with pytest.raises(Fault) as caught, one_at_a_time(str(file)):
            pass
        assert caught.value.code == "locked"
    with one_at_a_time(str(file)):
        pass


SETS = """

[cluster.main.dumps.shop]
schedule = "hourly"
keep = { last = 1 }

[cluster.main.dumps.absent]
schedule = "hourly"

[cluster.main.dumps.by-hand]
database = "shop"
"""


@pytest.fixture
def kept(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> Callable[[], Cluster]:
    """A server with a database, a repository, and sets of dumps of which one names no database."""
    server = cluster("main")
    config = ("--config", str(server_tmp / "pgkeep.toml"))
    ran = pgkeep_process(*config, "init", "--repository", str(server_tmp / "r"), "--connection", server.conninfo)
    assert (server_tmp / "pgkeep.toml").exists(), ran.err
    with (server_tmp / "pgkeep.toml").open("a") as file:
        file.write(f'bindir = "{server.programs.bindir}"{SETS}')
    server.sql("CREATE DATABASE shop")
    server.sql("CREATE TABLE orders AS SELECT i AS id FROM generate_series(1, 1000) AS i", dbname="shop")
    return lambda: server


@pytest.mark.pg("17")
def test_what_is_due_is_dumped_listed_verified_and_pruned(
    kept: Callable[[], Cluster], pgkeep_process: Run, server_tmp: Path
) -> None:
    planned = pgkeep_process("dump", "--due", "--dry-run", "--json")
    assert planned.status == 0, planned.err
    assert {one["name"]: one["due"] for one in planned.result["due"]} == {"shop": True, "absent": True}
    assert "shop" in pgkeep_process("dump", "--due", "--dry-run").out

    made = pgkeep_process("dump", "--due", "--json")
    assert made.status == 1, made.err + made.out  # of a database that there is not
    outcome = {one["name"]: one for one in made.result["dumps"]}
    assert outcome["shop"]["error"] is None
    assert "absent" in outcome["absent"]["error"]["message"]

    kept().sql("CREATE DATABASE absent")
    text = pgkeep_process("dump", "--due")
    assert text.status == 0, text.err
    assert "1 dump made" in text.out
    again = pgkeep_process("dump", "--due")
    assert again.status == 0
    assert "nothing due" in again.out

    listed = pgkeep_process("list", "--json").result["dumps"]
    assert [one["info"]["name"] for one in listed] == ["shop", "absent"]
    assert listed[0]["dump"] == outcome["shop"]["dump"]
    assert pgkeep_process("dump", "shop").status == 0
    verified = pgkeep_process("verify", "--json", "--processes", "1")
    assert verified.status == 0, verified.out
    assert [one["sound"] for one in verified.result["dumps"]] == [True] * 3
    assert "newest of shop" in pgkeep_process("prune", "--dry-run").out
    assert pgkeep_process("hold", listed[0]["dump"], "--note", "the audit").status == 0
    assert "the dump" in pgkeep_process("hold").out
    assert not pgkeep_process("prune", "--yes", "--json").result["result"]["deleted_dumps"]
    assert pgkeep_process("hold", "--release", listed[0]["dump"]).status == 0
    pruned = pgkeep_process("prune", "--yes", "--json")
    assert pruned.result["result"]["deleted_dumps"] == [outcome["shop"]["dump"]], pruned.out
    with one_at_a_time(str(server_tmp / "pgkeep.toml")):
        assert pgkeep_process("dump", "--due").status == 11


@pytest.mark.pg("17")
def test_due_takes_nothing_else(kept: Callable[[], Cluster], pgkeep_process: Run) -> None:
    refused = pgkeep_process("dump", "--due", "shop")
    assert refused.status == 2
    assert "--due makes what the configuration says" in refused.err
