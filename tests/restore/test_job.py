"""Recovery on real servers: every kind of target, tablespaces, and what is refused."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgkeep.errors import Fault
from pgkeep.events import Event, Warned, silent
from pgkeep.pg.account import Account
from pgkeep.restore.job import RestoreRequest, carry_out, plan_restore
from pgkeep.restore.plan import RestorePlan
from pgkeep.restore.settings import Action
from pgkeep.restore.start import Recovered, start_restored
from pgkeep.restore.target import Target
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from tests.clusters import Cluster
from tests.keeping import Kept, keep
from tests.servers import OLDEST, pg_versions

Make = Callable[..., Cluster]


@dataclass
class Story:
    """A cluster with a history: after each step, how many rows there were and where that was."""

    kept: Kept
    backup: BackupId
    moments: dict[str, tuple[int, datetime, Lsn]]
    xids: dict[str, int]


def request(kept: Kept, target: Target, name: str = "restored", **changes: Any) -> RestoreRequest:
    def fetch(_account: Account) -> tuple[str, ...]:
        return (*kept.program, "--config", str(kept.config), "wal", "get")

    bindir = kept.cluster.programs.bindir
    return RestoreRequest(directory=str(kept.home / name), target=target, fetch=fetch, bindir=bindir, **changes)


@contextmanager
def recovered(
    kept: Kept, target: Target, name: str = "restored", **changes: Any
) -> Iterator[tuple[RestorePlan, Recovered]]:
    """Plan, write, start; the server is stopped at the end."""
    prepared = plan_restore(kept.catalogue(), request(kept, target, name, **changes), silent)
    carry_out(prepared, silent)
    result = start_restored(prepared.plan, silent)
    try:
        yield prepared.plan, result
    finally:
        if result.state != "shut-down":
            kept.cluster.programs.run(
                "pg_ctl", "stop", "-D", prepared.plan.directory, "-m", "fast", account=kept.account
            )


def ask(result: Recovered, query: str) -> Any:
    conninfo = f"host={result.socket_directory} port={result.port} dbname=postgres user=postgres"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def _told(kept: Kept) -> Story:
    """Rows 1-100, a backup, rows to 200, a restore point, rows to 300, the accident, row 1 of another table."""
    server = kept.cluster
    moments: dict[str, tuple[int, datetime, Lsn]] = {}
    xids: dict[str, int] = {}

    def moment(name: str) -> None:
        rows = server.value("SELECT count(*) FROM orders")
        time, lsn = server.sql("SELECT clock_timestamp(), pg_current_wal_lsn()::text")[0]
        moments[name] = (rows, time, Lsn.parse(lsn))

    server.sql("CREATE TABLE orders AS SELECT generate_series(1, 100) AS id")
    server.sql("CREATE TABLE other (id int)")
    moment("early")
    backup = BackupId(kept.backup())
    server.sql("INSERT INTO orders SELECT generate_series(101, 200)")
    moment("second")
    server.sql("SELECT pg_create_restore_point('before the import')")
    with server.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO orders SELECT generate_series(201, 300)")
        xids["import"] = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]  # type: ignore[index]
        with connection.transaction():
            connection.execute("INSERT INTO other VALUES (0)")
            xids["sub"] = connection.execute("SELECT xmin::text::bigint FROM other").fetchone()[0]  # type: ignore[index]
    moment("third")
    with server.connect() as connection, connection.transaction():
        xids["accident"] = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0]  # type: ignore[index]
        connection.execute("DROP TABLE orders")
    server.sql("INSERT INTO other VALUES (1)")
    kept.archive_all()
    return Story(kept, backup, moments, xids)


@pytest.fixture
def story(cluster: Make, server_tmp: Path, pgkeep_program: tuple[str, ...]) -> Story:
    return _told(keep(cluster, server_tmp, pgkeep_program))


@pg_versions("oldest", "newest")
def test_every_kind_of_target(story: Story) -> None:
    kept = story.kept
    third, second = story.moments["third"], story.moments["second"]
    cases = [
        ("time", Target.at_time(third[1]), 300),
        ("lsn", Target.at_lsn(second[2], inclusive=False), 200),
        ("xid", Target.at_xid(story.xids["accident"], inclusive=False), 300),
        ("not the import", Target.at_xid(story.xids["import"], inclusive=False), 200),
        ("name", Target.at_name("before the import"), 200),
        ("end of backup", Target.immediate(), 100),
    ]
    if story.kept.cluster.major == OLDEST:
        cases = [case for case in cases if case[0] in ("time", "name")]
    for number, (case, target, rows) in enumerate(cases):
        with recovered(kept, target, f"r{number}") as (plan, result):
            assert result.state == "ready", case
            if plan.stop.last is not None:
                assert result.last_time == plan.stop.last.time, case
                if plan.stop.last.lsn == plan.stop.position:
                    assert result.lsn == plan.stop.last.end, case
            assert ask(result, "SELECT count(*) FROM orders") == rows, case
            assert ask(result, "SELECT pg_is_in_recovery()") is False, case
            assert result.timeline == 2 and plan.timeline == 1, case
            auto = (Path(plan.directory) / "postgresql.auto.conf").read_text()
            assert "recovery_target" not in auto and "restore_command" not in auto, case
            assert ask(result, "SHOW archive_mode") == "off", case
    with recovered(kept, Target.latest(), "latest") as (_, result):
        assert ask(result, "SELECT to_regclass('orders') IS NULL") is True
        assert ask(result, "SELECT count(*) FROM other") == 2


def test_the_plan_names_the_transactions_around_the_stop(story: Story) -> None:
    kept = story.kept
    third = story.moments["third"]
    plan = plan_restore(kept.catalogue(), request(kept, Target.at_time(third[1])), silent).plan
    assert plan.stop.last is not None and plan.stop.next is not None
    assert plan.stop.last.xid == story.xids["import"]
    assert plan.stop.next.xid == story.xids["accident"]
    assert plan.stop.last.time <= third[1] < plan.stop.next.time
    assert not os.path.lexists(plan.directory)
    shown = plan.as_json()
    assert shown["stop"]["next"]["xid"] == story.xids["accident"]
    assert shown["wal"]["segments"] >= 1
    assert {"name": "recovery_target_timeline", "value": "1"} in shown["settings"]


def test_a_pause_leaves_the_server_readable_at_the_target(story: Story) -> None:
    target = Target.at_time(story.moments["third"][1])
    with recovered(story.kept, target, action=Action.PAUSE) as (plan, result):
        assert result.state == "paused"
        assert ask(result, "SELECT count(*) FROM orders") == 300
        assert ask(result, "SELECT pg_is_in_recovery()") is True
        assert result.lsn == Lsn.parse(ask(result, "SELECT pg_last_wal_replay_lsn()::text"))
        assert plan.stop.last is not None and result.last_time == plan.stop.last.time


def test_a_shutdown_at_the_target(story: Story) -> None:
    target = Target.at_lsn(story.moments["second"][2], inclusive=False)
    with recovered(story.kept, target, action=Action.SHUTDOWN) as (plan, result):
        assert result.state == "shut-down"
        assert not (Path(plan.directory) / "postmaster.pid").exists()


def test_targets_that_cannot_be_reached_say_what_can(story: Story) -> None:
    kept = story.kept

    def refused(target: Target) -> Fault:
        with pytest.raises(Fault) as caught:
            plan_restore(kept.catalogue(), request(kept, target), silent)
        assert caught.value.code == "target-unreachable"
        assert caught.value.exit_status == 13
        assert not (kept.home / "restored").exists()
        return caught.value

    assert "before the end of the oldest backup" in refused(Target.at_time(story.moments["early"][1])).message
    future = refused(Target.at_time(datetime.fromisoformat("2099-01-01 00:00:00+00:00")))
    assert "--time" in future.hint and "--latest" in future.hint
    # What the hint names can really be planned.
    nearest = shlex.split(future.hint.split("--time ", 1)[1].split(";")[0])[0]
    plan = plan_restore(kept.catalogue(), request(kept, Target.at_time(datetime.fromisoformat(nearest))), silent).plan
    assert plan.stop.recover_to.lsn is not None
    assert f"--xid {story.xids['import']}" in refused(Target.at_xid(story.xids["sub"])).hint
    assert "before the import" in refused(Target.at_name("no such point")).hint
    refused(Target.at_lsn(Lsn(0x7F00000000)))
    refused(Target.at_xid(2_000_000))
    refused(Target.latest(timeline=7))


def test_a_gap_is_refused_before_anything_is_written(story: Story) -> None:
    kept = story.kept
    kept.archive_all()
    kept.archive_all()
    segments = kept.wal()
    segments[-2].unlink()
    with pytest.raises(Fault) as caught:
        plan_restore(kept.catalogue(), request(kept, Target.latest()), silent)
    assert caught.value.code == "target-unreachable"
    assert segments[-2].name in caught.value.message
    # Before the gap everything is as it was.
    plan_restore(kept.catalogue(), request(kept, Target.at_time(story.moments["third"][1])), silent)


def test_tablespaces_go_beside_the_target_and_production_is_not_touched(
    cluster: Make, server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    kept = keep(cluster, server_tmp, pgkeep_program)
    server = kept.cluster
    space = server.directory("space")
    server.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.sql("CREATE TABLE kept_there TABLESPACE fast AS SELECT generate_series(1, 1000) AS id")
    kept.backup()
    server.sql("INSERT INTO kept_there SELECT generate_series(1001, 2000)")
    kept.archive_all()
    with recovered(kept, Target.latest()) as (plan, result):
        oid = ask(result, "SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
        target = Path(f"{plan.directory}-tablespaces/{oid}")
        assert (Path(plan.directory) / "pg_tblspc" / str(oid)).readlink() == target
        assert ask(result, "SELECT count(*) FROM kept_there") == 2000
        ask(result, "DELETE FROM kept_there RETURNING 1")
        assert ask(result, "SELECT count(*) FROM kept_there") == 0
    assert server.value("SELECT count(*) FROM kept_there") == 2000
    mapped = kept.home / "elsewhere"
    spaces = {str(space): str(mapped)}
    with recovered(kept, Target.latest(), "mapped", tablespaces=spaces) as (_, result):
        assert ask(result, "SELECT count(*) FROM kept_there") == 2000
        assert len(list(mapped.glob("PG_*/*"))) == 1
    with pytest.raises(Fault) as caught:
        plan_restore(
            kept.catalogue(), request(kept, Target.latest(), "back", tablespaces={str(space): str(space)}), silent
        )
    assert caught.value.code == "tablespace-unsafe"


def test_a_tablespaces_place_that_filled_after_the_plan_is_left_alone(
    cluster: Make, server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    kept = keep(cluster, server_tmp, pgkeep_program)
    kept.cluster.sql(f"CREATE TABLESPACE fast LOCATION '{kept.cluster.directory('fast')}'")
    kept.backup()
    target = kept.cluster.directory("mapped")
    spaces = {str(kept.home / "fast"): str(target)}
    prepared = plan_restore(kept.catalogue(), request(kept, Target.immediate(), tablespaces=spaces), silent)
    (target / "somebody's").touch()
    with pytest.raises(Fault) as caught:
        carry_out(prepared, silent)
    assert caught.value.code == "target-not-empty"
    assert not Path(prepared.plan.directory).exists()


def test_create_tablespace_in_the_wal_is_refused_where_its_path_exists(
    cluster: Make, server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    """Rule A: its replay links to the original path, where production's files are."""
    kept = keep(cluster, server_tmp, pgkeep_program)
    server = kept.cluster
    server.sql("CREATE TABLE before_it AS SELECT 1 AS id")
    kept.backup()
    server.sql("INSERT INTO before_it VALUES (2)")
    safe = Lsn.parse(server.value("SELECT pg_current_wal_lsn()::text"))
    space = server.directory("space")
    server.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.sql("CREATE TABLE kept_there TABLESPACE fast AS SELECT generate_series(1, 1000) AS id")
    kept.archive_all()
    with pytest.raises(Fault) as caught:
        plan_restore(kept.catalogue(), request(kept, Target.latest()), silent)
    assert caught.value.code == "tablespace-unsafe"
    assert str(space) in caught.value.message
    assert not (kept.home / "restored").exists()
    with recovered(kept, Target.at_lsn(safe, inclusive=False)) as (_, result):
        assert ask(result, "SELECT count(*) FROM before_it") == 2
    server.stop()
    space.rename(kept.home / "moved")
    seen: list[Event] = []
    prepared = plan_restore(kept.catalogue(), request(kept, Target.latest(), "other host"), seen.append)
    assert [event.code for event in seen if isinstance(event, Warned)] == ["tablespace-replay"]
    carry_out(prepared, silent)
    with pytest.raises(Fault) as caught:
        start_restored(prepared.plan, silent)
    assert caught.value.code == "recovery-failed"
    assert str(space) in caught.value.message


def _archive_this_timeline(kept: Kept) -> None:
    """Unlike archive_all, not content with a newer segment of another timeline."""
    kept.cluster.sql("SELECT pg_create_restore_point('something to archive')")
    name = kept.cluster.switch_wal()
    kept.wait(lambda: any(path.name == name for path in kept.wal()), f"{name} was not archived")


def test_two_timelines_and_which_is_followed(cluster: Make, server_tmp: Path, pgkeep_program: tuple[str, ...]) -> None:
    """A restored copy archives timeline 2 while the old server goes on with timeline 1."""
    kept = keep(cluster, server_tmp, pgkeep_program)
    server = kept.cluster
    server.sql("CREATE TABLE orders AS SELECT generate_series(1, 100) AS id")
    kept.backup()
    kept.archive_all()
    with recovered(kept, Target.latest(), "copy", settings={"archive_mode": "on"}) as (_, copy):
        assert copy.timeline == 2
        ask(copy, "INSERT INTO orders SELECT generate_series(101, 150) RETURNING 1")
        switched = ask(copy, "SELECT pg_walfile_name(pg_switch_wal())")
        kept.wait(lambda: any(path.name == switched for path in kept.wal()), f"{switched} was not archived")
    server.sql("INSERT INTO orders SELECT generate_series(101, 300)")
    _archive_this_timeline(kept)
    _archive_this_timeline(kept)
    seen: list[Event] = []
    plan = plan_restore(kept.catalogue(), request(kept, Target.latest()), seen.append).plan
    assert plan.timeline == 2
    assert "timeline-branches" in [event.code for event in seen if isinstance(event, Warned)]
    with recovered(kept, Target.latest(), "two") as (_, result):
        assert ask(result, "SELECT count(*) FROM orders") == 150
        assert result.timeline == 3
    with recovered(kept, Target.latest(timeline=1), "one") as (_, result):
        assert ask(result, "SELECT count(*) FROM orders") == 300
        # 2 is taken, although this lineage never saw it.
        assert result.timeline == 3


def test_wal_that_goes_missing_after_the_plan_ends_in_no_early_promotion(story: Story) -> None:
    kept = story.kept
    kept.archive_all()
    kept.archive_all()
    prepared = plan_restore(kept.catalogue(), request(kept, Target.latest()), silent)
    carry_out(prepared, silent)
    kept.wal()[-2].unlink()
    with pytest.raises(Fault) as caught:
        start_restored(prepared.plan, silent)
    assert caught.value.code == "wal-gap"
    assert not (Path(prepared.plan.directory) / "postmaster.pid").exists()


def test_the_plan_is_for_people_and_machines(story: Story) -> None:
    plan = plan_restore(story.kept.catalogue(), request(story.kept, Target.immediate()), silent).plan
    shown = json.loads(json.dumps(plan.as_json()))
    assert shown["backup"]["id"] == story.backup
    assert shown["write_bytes"] > shown["read_bytes"] > 0
    assert shown["space"][0]["needed"] > shown["write_bytes"]
    assert shown["account"] == story.kept.account.name


def test_a_pause_at_the_end_of_the_archive_is_a_contradiction(story: Story) -> None:
    with pytest.raises(Fault) as caught:
        plan_restore(story.kept.catalogue(), request(story.kept, Target.latest(), action=Action.PAUSE), silent)
    assert caught.value.code == "usage"


def test_a_dropped_database_is_whole_before_it_was_dropped(
    cluster: Make, server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    """Its files are removed before the DROP commits: stopping just before that COMMIT would be too late."""
    kept = keep(cluster, server_tmp, pgkeep_program)
    server = kept.cluster
    server.sql("CREATE DATABASE victim")
    server.sql("CREATE TABLE orders AS SELECT generate_series(1, 100) AS id", dbname="victim")
    kept.backup()
    server.sql("INSERT INTO orders SELECT generate_series(101, 200)", dbname="victim")
    moment = server.value("SELECT clock_timestamp()")
    server.sql("DROP DATABASE victim")
    kept.archive_all()
    with recovered(kept, Target.at_time(moment)) as (_, result):
        conninfo = f"host={result.socket_directory} port={result.port} dbname=victim user=postgres"
        with psycopg.connect(conninfo) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (200,)
