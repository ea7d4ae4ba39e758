"""`pgkeep init` against a real server, as the account that runs it."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.conftest import MakeCluster, MakeStandby

from pgkeep import wal
from pgkeep.pg.account import Account


def wait_until(is_true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.1)


def test_three_steps_to_an_archive(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    server = cluster("main")
    target = server_tmp / "repository"
    first = pgkeep_process("init", "--repository", str(target), "--connection", server.conninfo, "--json")
    assert first.status == 0, first.err
    report = first.result
    assert (report["repository"]["url"], report["repository"]["made"]) == (str(target), True)
    assert report["repository"]["same_disk"] is True
    assert "same disk" in report["warnings"][0]
    written = server_tmp / ".config/pgkeep/pgkeep.toml"
    assert report["config"] == {"path": str(written), "written": True}
    assert report["proof"] is None
    assert report["restart"].endswith(f"/pg_ctl restart -D {server.datadir}")
    assert report["cluster"]["registered"] is True
    assert {one["effect"] for one in report["statements"]} == {"restart", "reload"}
    config = tomllib.loads(written.read_text())
    assert config["cluster"]["main"]["connection"] == server.conninfo

    # the printed SQL is exactly what was missing; after it, only the restart is
    for one in report["statements"]:
        server.sql(one["sql"])
    server.reload()
    wait_until(lambda: bool(server.value("SELECT count(*) FROM pg_settings WHERE pending_restart")))
    between = pgkeep_process("init", "--json").result
    assert (between["statements"], between["pending_restart"]) == ([], ["archive_mode"])
    assert between["restart"] == report["restart"]
    server.restart()
    again = pgkeep_process("init", "--json")
    assert again.result["statements"] == []
    assert again.result["restart"] is None
    assert again.result["proof"]["seconds"] < 60
    assert again.result["repository"]["made"] is False
    assert again.result["cluster"]["registered"] is False
    assert again.result["cluster"]["uuid"] == report["cluster"]["uuid"]

    # the segment that proves it is there, and asking once more changes nothing
    archived = [path.name for path in (target).rglob("0000*") if path.is_file() and len(path.name) == 24]
    assert again.result["proof"]["segment"] in archived
    segment = server.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    once_more = pgkeep_process("init")
    assert f"All set: the server archives into this repository ({max(archived)} is there)" in once_more.out
    assert server.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())") == segment
    assert server.value("SELECT failed_count FROM pg_stat_archiver") == 0


def test_text_names_sql_and_the_next_command(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    server = cluster("main", archive_mode="on", archive_command="'/bin/true'")
    ran = pgkeep_process("init", "--repository", str(server_tmp / "r"), "--connection", server.conninfo)
    assert ran.status == 0, ran.err
    assert "ALTER SYSTEM SET archive_command = 'set -- /" in ran.out
    pushes = f"--config {server_tmp}/.config/pgkeep/pgkeep.toml --cluster main wal push %p; . "
    assert f"{pushes}{Path(wal.__file__).with_name('archived.sh')}';" in ran.out
    assert "warning: archive_command is now '/bin/true'; that archive would end" in ran.out
    assert "restart" not in ran.out
    assert "pgkeep init --apply" in ran.out
    assert "ALTER SYSTEM SET archive_timeout = '60s';" in ran.out
    assert "pgkeep backup" in ran.out


def test_apply_settles_all_but_the_restart(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    """Nobody names the server: libpq's environment does."""
    server = cluster("main", archive_timeout="1min")
    libpq = {"PGHOST": str(server.instance.socket_dir), "PGPORT": str(server.instance.port), "PGUSER": "postgres"}
    ran = pgkeep_process("init", "--apply", "--repository", str(server_tmp / "r"), "--json", env=libpq)
    assert ran.status == 0, ran.err + ran.out
    report = ran.result
    assert {one["effect"] for one in report["applied"]} == {"restart", "reload"}
    assert (report["statements"], report["pending_restart"], report["advice"]) == ([], ["archive_mode"], [])
    assert report["proof"] is None
    assert server.value("SHOW archive_mode") == "off"
    server.restart()
    settled = pgkeep_process("init", "--apply", "--json", env=libpq).result
    assert (settled["applied"], settled["statements"]) == ([], [])
    assert settled["proof"]["seconds"] is not None


def test_who_may_not_change_the_server_is_told(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    server = cluster("main")
    server.sql("CREATE ROLE keeper LOGIN; GRANT pg_read_all_settings TO keeper")
    options = ["--repository", str(server_tmp / "r"), "--connection", server.instance.conninfo(user="keeper")]
    ran = pgkeep_process("init", "--apply", *options)
    assert ran.status == 1
    assert "the role lacks a right" in ran.err
    assert "hint: run what pgkeep init prints as a superuser" in ran.err
    assert server.value("SHOW archive_command") in ("", "(disabled)")


def test_a_standby_cannot_be_adopted(
    cluster: MakeCluster, standby_of: MakeStandby, pgkeep_process: Run, server_tmp: Path
) -> None:
    standby = standby_of(cluster("main"))
    options = ["--repository", str(server_tmp / "r"), "--connection", standby.conninfo]
    ran = pgkeep_process("init", "--adopt", *options, "--json")
    assert ran.status == 2
    assert "still in recovery on timeline 1" in ran.lines[-1]["error"]["message"]
    assert not (server_tmp / "r").exists()


def test_a_place_that_may_not_be_written(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    ran = pgkeep_process("--config", "/proc/pgkeep.toml", "init", "--repository", str(server_tmp / "r"))
    assert ran.status == 1
    assert "/proc is not this account's" in ran.err
    assert not (server_tmp / "r").exists()


def test_a_dry_run_makes_nothing(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    server = cluster("main")
    before = sorted(path.name for path in server_tmp.iterdir())
    ran = pgkeep_process(
        "init", "--repository", str(server_tmp / "r"), "--connection", server.conninfo, "--dry-run", "--json"
    )
    assert ran.status == 0, ran.err
    assert (ran.result["dry_run"], ran.result["repository"]["made"]) == (True, True)
    assert sorted(path.name for path in server_tmp.iterdir()) == before


def test_another_server_under_the_same_name(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    repository = str(server_tmp / "r")
    one, two = cluster("one"), cluster("two")
    first = pgkeep_process(
        "--json", "--config", "1.toml", "init", "--repository", repository, "--connection", one.conninfo
    )
    again = ["--json", "--config", "2.toml", "init", "--repository", repository, "--connection", two.conninfo]
    refused = pgkeep_process(*again)
    assert refused.status == 1
    assert refused.lines[-1]["error"]["code"] == "cluster-mismatch"
    assert not (server_tmp / "2.toml").exists()
    adopted = pgkeep_process(*again, "--adopt")
    assert adopted.status == 0, adopted.out
    assert adopted.result["cluster"]["uuid"] == first.result["cluster"]["uuid"]
    assert adopted.result["cluster"]["adopted_timeline"] == 1
    renamed = pgkeep_process(
        "--json",
        "--config",
        "3.toml",
        "--cluster",
        "x",
        "init",
        "--repository",
        repository,
        "--connection",
        two.conninfo,
    )
    assert renamed.lines[-1]["error"]["code"] == "cluster-mismatch"


def test_no_server_no_repository(pgkeep_process: Run, server_tmp: Path) -> None:
    ran = pgkeep_process("init", "--repository", str(server_tmp / "r"), "--connection", f"host={server_tmp}")
    assert ran.status == 20
    assert "cannot connect" in ran.err
    assert not (server_tmp / "r").exists()
    assert not (server_tmp / ".config").exists()


def test_a_role_without_rights_is_told_the_grants(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> None:
    server = cluster("main")
    server.sql("CREATE ROLE keeper LOGIN; GRANT pg_read_all_settings TO keeper")
    dsn = server.instance.conninfo(user="keeper")
    ran = pgkeep_process("init", "--repository", str(server_tmp / "r"), "--connection", dsn, "--json")
    grants = [one["sql"] for one in ran.result["statements"] if one["effect"] == "now"]
    assert len(grants) == 1
    assert "pg_backup_start(text,boolean)" in grants[0]
    server.sql(grants[0])
    ran = pgkeep_process("init", "--json")
    assert not [one for one in ran.result["statements"] if one["effect"] == "now"]


def test_root_is_sent_to_the_servers_account(
    cluster: MakeCluster, pgkeep: Run, server_tmp: Path, server_user: Account
) -> None:
    if server_user.is_self:
        pytest.skip("does not apply: this is the server's account")
    server = cluster("main")
    ran = pgkeep("init", "--repository", str(server_tmp / "r"), "--connection", server.conninfo)
    assert ran.status == 2
    assert f"sudo -u {server_user.name}" in ran.err
    assert not (server_tmp / "r").exists()


def test_options_that_contradict_the_file(pgkeep: Run, tmp_path: Path) -> None:
    (tmp_path / "pgkeep.toml").write_text(
        '[repository]\nurl = "/a"\n[cluster.main]\nconnection = "password=swordfish"\n'
    )
    ran = pgkeep("init", "--repository", "/b")
    assert ran.status == 2
    assert "says otherwise than --repository" in ran.err
    ran = pgkeep("init", "--connection", "port=1")
    assert "says otherwise than --connection" in ran.err
    assert "swordfish" not in ran.err


def test_nobody_can_be_asked(pgkeep: Run) -> None:
    ran = pgkeep("init", "--json")
    assert ran.status == 2
    assert "--repository URL" in ran.lines[-1]["error"]["hint"]
