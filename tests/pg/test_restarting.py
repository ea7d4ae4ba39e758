"""The command that restarts a server, by who started it."""

from __future__ import annotations

from dataclasses import replace

from tests.clusters import Cluster

from pgkeep.pg.restarting import Supervision, restart_command, supervision

DEBIAN = "/etc/postgresql/15/main/postgresql.conf"
BARE = Supervision(has_systemd=False, has_pg_ctlcluster=False, pid=4711, unit="", bindir="/usr/lib/postgresql/15/bin")


def test_debian() -> None:
    here = replace(BARE, has_pg_ctlcluster=True)
    assert restart_command(DEBIAN, "/data", here) == "pg_ctlcluster 15 main restart"
    assert restart_command(DEBIAN, "/data", replace(here, has_systemd=True)) == (
        "sudo systemctl restart postgresql@15-main"
    )


def test_a_unit_a_container_and_nothing() -> None:
    config = "/var/lib/pgsql/15/data/postgresql.conf"
    unit = replace(BARE, has_systemd=True, unit="postgresql-15")
    assert restart_command(config, "/data", unit) == "sudo systemctl restart postgresql-15"
    assert "container" in restart_command(config, "/data", replace(BARE, pid=1))
    assert restart_command(config, "/o'brien", BARE) == (
        "/usr/lib/postgresql/15/bin/pg_ctl restart -D '/o'\"'\"'brien'"
    )


def test_a_real_server_is_looked_at(shared_cluster: Cluster) -> None:
    found = supervision(str(shared_cluster.datadir))
    assert found.bindir == str(shared_cluster.programs.bindir.resolve())
    assert found.pid > 1


def test_no_server() -> None:
    assert supervision("/nowhere").pid == 0
