"""`pgkeep dump` as it is typed."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.clusters import Cluster
from tests.conftest import MakeCluster

pytestmark = pytest.mark.pg("17")
PLAN = {
    "name", "to", "server", "databases", "skipped", "programs", "format", "jobs", "compression", "options", "scratch",
    "lock_timeout", "role_passwords", "warnings",
}  # fmt: skip
INFO = {
    "name", "label", "started", "stopped", "host", "system_id", "server_version", "tool_version", "format",
    "compression", "every_database", "whole", "role_passwords", "databases", "source_bytes", "logical_bytes",
    "stored_bytes", "members",
}  # fmt: skip


@pytest.fixture
def kept(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> Cluster:
    """A server with a database and a repository; pgkeep.toml lies in `server_tmp`."""
    server = cluster("main")
    config = ("--config", str(server_tmp / "pgkeep.toml"))
    ran = pgkeep_process(*config, "init", "--repository", str(server_tmp / "r"), "--connection", server.conninfo)
    assert (server_tmp / "pgkeep.toml").exists(), ran.err
    with (server_tmp / "pgkeep.toml").open("a") as file:
        file.write(f'bindir = "{server.programs.bindir}"\n\n[cluster.main.dumps.shop]\njobs = 2\n')
    server.sql("CREATE DATABASE shop")
    server.sql("CREATE TABLE orders AS SELECT i AS id FROM generate_series(1, 1000) AS i", dbname="shop")
    return server


def test_a_dump_is_planned_then_made(kept: Cluster, pgkeep_process: Run) -> None:
    planned = pgkeep_process("dump", "--dry-run", "--json")
    assert planned.status == 0, planned.err + planned.out
    assert set(planned.result) == {"verb", "dry_run", "plan"} and set(planned.result["plan"]) == PLAN
    text = pgkeep_process("dump", "shop", "--dry-run").out
    assert "dump of database shop, set shop" in text and "/dev/shm (in memory" in text and "reason" not in text

    made = pgkeep_process("dump", "--json", "--label", "first")
    assert made.status == 0, made.err + made.out
    assert set(made.result) == {"verb", "dry_run", "plan", "dump", "info", "paths", "bytes", "seconds"}
    assert set(made.result["info"]) == INFO and made.result["info"]["label"] == "first"
    assert made.result["plan"]["jobs"] == 2
    said = pgkeep_process("dump", "--all")
    assert said.status == 0, said.err
    assert "is complete" in said.out and "roles and tablespaces" in said.out
    assert not glob.glob("/dev/shm/pgkeep-dump-*")


def test_a_dump_to_a_path(kept: Cluster, pgkeep_process: Run, server_tmp: Path) -> None:
    made = pgkeep_process("dump", "shop", "--to", "shop.dump", "--format", "custom", "--json")
    assert made.status == 0, made.err + made.out
    path = server_tmp / "shop.dump"
    assert made.result["paths"] == [f"{path}.globals.sql", str(path)]
    assert made.result["bytes"] == path.stat().st_size and made.result["dump"] is None
    again = pgkeep_process("dump", "shop", "--to", "shop.dump", "--format", "custom")
    assert again.status == 1 and "exists already" in again.err and "hint: " in again.err


def test_what_is_wrong_on_the_line(kept: Cluster, pgkeep_process: Run) -> None:
    assert pgkeep_process("dump", "shop", "--schema-only", "--data-only").status == 2
    assert pgkeep_process("dump", "shop", "--format", "custom", "--scratch", "/tmp").status == 2
    assert pgkeep_process("dump", "absent").status == 1
    assert pgkeep_process("dump", "--name", "absent").status == 2
    kept.stop()
    assert pgkeep_process("dump", "shop").status == 20
