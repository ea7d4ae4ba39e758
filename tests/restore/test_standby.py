"""A replica made by a restore streams from its primary, and goes on when that one is promoted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.pg.instance import Instance
from pgkeep.pg.primary import PrimaryState, primary_of
from pgkeep.restore.standby import Standby, check_slot, plan_standby, settings_of
from tests.clusters import Cluster
from tests.conftest import MakeStandby
from tests.keeping import keep
from tests.servers import pg_versions

MakeCluster = Callable[..., Cluster]
STREAMING = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"


@pg_versions("oldest", "newest")
def test_a_replica_streams_and_follows_a_promotion(
    cluster: MakeCluster, standby_of: MakeStandby, server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    kept = keep(cluster, server_tmp, pgkeep_program, wal_segsize=1)
    first = kept.cluster
    first.sql("CREATE TABLE t (n int)")
    kept.backup()
    first.sql("INSERT INTO t VALUES (1)")
    kept.archive_all()
    second = standby_of(first)
    second.sql("SELECT pg_create_physical_replication_slot('replica_1', true)")
    target = kept.home / "replica"
    primary = f"host={second.instance.socket_dir} port={second.instance.port} user=postgres password=secret"
    answer = kept.result(
        "restore", str(target), "--standby", "--primary", primary, "--slot", "replica_1", "--start"
    )  # fmt: skip
    recovered = answer["recovered"]
    log = Path(recovered["log"])
    replica = Cluster(
        Instance(
            first.programs, target, first.account, Path(recovered["socket_directory"]), log, port=recovered["port"]
        ),
        server_tmp,
    )
    try:
        assert recovered["state"] == "streaming", log.read_text()
        assert "secret" in (target / "postgresql.auto.conf").read_text(), "what was given is written"
        assert not {"slot-missing", "primary-unreachable"} & {each["code"] for each in answer["plan"]["warnings"]}
        first.sql("INSERT INTO t VALUES (2)")
        kept.wait(lambda: replica.value("SELECT count(*) FROM t") == 2, "the replica does not stream")
        first.stop()
        second.run("pg_ctl", "promote", "-w", "-D", str(second.datadir))
        second.sql("INSERT INTO t VALUES (3)")
        kept.wait(lambda: replica.value("SELECT count(*) FROM t") == 3, "the replica does not follow the promotion")
        assert replica.value(STREAMING) == 1
        assert replica.value("SELECT pg_is_in_recovery()")
        assert second.value("SELECT active FROM pg_replication_slots WHERE slot_name = 'replica_1'")
    finally:
        first.programs.run("pg_ctl", "stop", "-D", str(target), "-m", "fast", account=first.account)


def test_the_configurations_connection_is_proposed(
    cluster: MakeCluster, server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    """Its password stays out of the files; a slot that is missing is said, with the SQL that makes it."""
    kept = keep(cluster, server_tmp, pgkeep_program, wal_segsize=1)
    kept.backup()
    kept.config.write_text(kept.config.read_text().replace("user=", "password=secret user="))
    target = kept.home / "replica"
    answer = kept.result("restore", str(target), "--standby", "--slot", "replica_1")
    auto = (target / "postgresql.auto.conf").read_text()
    assert "secret" not in auto and f"port={kept.cluster.instance.port}" in auto
    assert (target / "standby.signal").exists() and not (target / "recovery.signal").exists()
    warnings = {each["code"]: each for each in answer["plan"]["warnings"]}
    assert "pg_create_physical_replication_slot('replica_1', true)" in warnings["slot-missing"]["hint"]
    assert {"primary-password", "primary-local"} <= set(warnings)
    assert answer["plan"]["standby"] == {"slot": "replica_1"}


def test_another_clusters_primary_is_refused(
    cluster: MakeCluster, server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    kept = keep(cluster, server_tmp, pgkeep_program, wal_segsize=1)
    kept.backup()
    other = cluster("other")
    primary = f"host={other.instance.socket_dir} port={other.instance.port} user=postgres"
    error = kept.json("restore", str(kept.home / "x"), "--standby", "--primary", primary, status=1)["error"]
    assert error["code"] == "cluster-mismatch" and error["hint"]
    assert not (kept.home / "x").exists()


def test_what_is_written_of_the_primary() -> None:
    lines = settings_of(Standby("host=db1", "replica_1"))
    assert ("recovery_target_timeline", "latest") in lines
    assert ("primary_slot_name", "replica_1") in lines
    assert "host=db1" not in repr(Standby("host=db1")), "it may hold a password"


@pytest.mark.parametrize(
    ("connection", "keep_password", "written", "left_out", "local"),
    [
        ("host=db1 user=r password=x dbname=app", False, "host=db1 user=r", True, False),
        ("host=db1 user=r password=x dbname=app", True, "host=db1 user=r password=x", False, False),
        ("postgresql://r@db1:5433/app", True, "host=db1 user=r port=5433", False, False),
        ("user=r", False, "user=r", False, True),
        ("host=/run/postgresql", False, "host=/run/postgresql", False, True),
    ],
)
def test_a_connection_becomes_a_primarys(
    connection: str, keep_password: bool, written: str, left_out: bool, local: bool
) -> None:
    found = primary_of(connection, keep_password=keep_password)
    assert sorted(found.conninfo.split()) == sorted(written.split())
    assert (found.left_out_password, found.is_local) == (left_out, local)


def test_names_of_slots() -> None:
    assert check_slot("replica_1") == "replica_1"
    for name in ("Replica", "a-b", "x" * 64, "a'b", ""):
        with pytest.raises(Fault):
            check_slot(name)


def test_a_primary_that_does_not_answer_is_no_refusal() -> None:
    primary = primary_of("host=db1", keep_password=True)
    silent = Fault("postgres-unreachable", "no route", hint="look")
    standby = plan_standby(primary, "s", frozenset({1}), silent)
    assert [code for code, _, _ in standby.cautions] == ["primary-unreachable"]
    assert "pg_create_physical_replication_slot('s', true)" in standby.cautions[0][2]
    old = plan_standby(primary, "s", frozenset({1}), PrimaryState(1, 1, None))
    assert [code for code, _, _ in old.cautions] == ["slot-unknown"]
    assert plan_standby(primary, "s", frozenset({1}), PrimaryState(1, 1, True)).cautions == ()
