"""What the catalogs say must be there, while databases and tablespaces come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgkeep.backup import source
from pgkeep.backup.source import Inventory, scan_complete
from pgkeep.errors import Fault
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.datadir import DataDirectory, Walk, read_major, scan, version_directory
from pgkeep.pg.server import connect
from tests.clusters import Cluster
from tests.conftest import MakeCluster


def _oid(cluster: Cluster, database: str) -> int:
    return int(cluster.value("SELECT oid FROM pg_database WHERE datname = %s", (database,)))


def test_tablespaces_that_are_dropped_while_they_are_listed_cost_no_backup(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cluster()
    left = ["one", "two", "three"]
    for name in left:
        made.sql(f"CREATE TABLESPACE {name} LOCATION '{made.directory(name)}'")

    def dropping(path: str) -> DataDirectory:
        """Three scans, each with a DROP TABLESPACE at the worst moment: the directory is known, and not yet read."""
        oid = made.value("SELECT oid FROM pg_tablespace WHERE spcname = %s", (left[0],))
        major, control = read_major(path), read_control(f"{path}/{CONTROL_FILE}")
        for entry in Walk(path, major, version_directory(major, control)):
            if entry.path.startswith(f"pg_tblspc/{oid}/"):
                made.sql(f"DROP TABLESPACE {left.pop(0)}")
                if not left:
                    monkeypatch.setattr(source, "scan", scan)
        raise AssertionError("the scan did not notice")

    monkeypatch.setattr(source, "scan", dropping)
    with connect(made.conninfo) as server:
        directory, _ = scan_complete(server, str(made.datadir))
    assert directory.tablespaces == ()


def test_what_a_second_look_does_not_mend_is_said(cluster: MakeCluster) -> None:
    made = cluster()
    (made.datadir / "foreign").symlink_to("/nowhere")
    with connect(made.conninfo) as server, pytest.raises(Fault, match="foreign is a symbolic link") as caught:
        scan_complete(server, str(made.datadir))
    assert caught.value.code == "datadir-invalid"


def test_a_database_that_allows_no_connections_must_be_there(cluster: MakeCluster) -> None:
    made = cluster()
    made.sql("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    home = Path(made.datadir, "base", str(_oid(made, "closed")))
    with connect(made.conninfo) as server:
        scan_complete(server, str(made.datadir))
        (home / "PG_VERSION").rename(home / "elsewhere")
        with pytest.raises(Fault, match="PG_VERSION is not in the data directory") as caught:
            scan_complete(server, str(made.datadir))
    assert caught.value.code == "datadir-invalid"


def test_a_database_whose_drop_has_begun_need_not_be_there(cluster: MakeCluster) -> None:
    made = cluster()
    made.sql("CREATE DATABASE going")
    home = Path(made.datadir, "base", str(_oid(made, "going")))
    with connect(made.conninfo) as server:
        before = Inventory.of(server)
        made.sql("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'going'")
        after = Inventory.of(server)
        assert _oid(made, "going") not in [each.oid for each in before.homes_still_in(after)]
        (home / "PG_VERSION").unlink()
        scan_complete(server, str(made.datadir))
