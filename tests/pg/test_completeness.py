from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.completeness import DatabaseHome, check_complete
from pgkeep.pg.datadir import DataDirectory, scan
from pgkeep.pg.entry import Entry, EntryType
from pgkeep.pg.relfile import Fork

DATABASES = "SELECT oid::bigint, dattablespace::bigint FROM pg_database WHERE datconnlimit <> -2"


def furnished(cluster: MakeCluster) -> tuple[Cluster, list[DatabaseHome], list[int]]:
    """A stopped cluster with a database in a tablespace of its own."""
    server = cluster()
    server.sql(f"CREATE TABLESPACE space LOCATION '{server.directory('space')}'")
    server.sql("CREATE DATABASE housed TABLESPACE space")
    databases = [DatabaseHome(*row) for row in server.sql(DATABASES)]
    tablespaces = [oid for (oid,) in server.sql("SELECT oid::bigint FROM pg_tablespace")]
    server.stop()
    return server, databases, tablespaces


@pg_versions("oldest", "newest")
def test_a_whole_cluster_and_each_thing_that_can_be_missing(cluster: MakeCluster) -> None:
    server, databases, tablespaces = furnished(cluster)
    whole = scan(str(server.datadir))
    assert check_complete(whole, databases, tablespaces) is None
    (space,) = whole.tablespaces
    housed = next(each for each in databases if each.tablespace not in (1663, 1664))
    home = f"{space.path}/{whole.version_directory}"
    for path in [
        "PG_VERSION",
        "global/pg_control",
        "global/pg_filenode.map",
        "pg_xact",
        "pg_wal",
        "base/1/PG_VERSION",
        f"base/{databases[0].oid}/pg_filenode.map",
        f"{home}/{housed.oid}/PG_VERSION",
        f"{home}/{housed.oid}/pg_filenode.map",
    ]:
        assert_misses(path, without(whole, path), databases, tablespaces)
    assert_misses(home, without(whole, space.path), [], tablespaces)
    for oid in (1, housed.oid):
        gone = replace(whole, entries=tuple(e for e in whole.entries if f"/{oid}/" not in e.path))
        assert_misses(f"/{oid}/PG_VERSION", gone, databases, tablespaces)


def without(directory: DataDirectory, path: str) -> DataDirectory:
    """The directory as a scan would have seen it without `path` and what lies beneath."""
    kept = (entry for entry in directory.entries if entry.path != path and not entry.path.startswith(f"{path}/"))
    return replace(directory, entries=tuple(kept))


def assert_misses(path: str, directory: DataDirectory, databases: list[DatabaseHome], tablespaces: list[int]) -> None:
    fault = check_complete(directory, databases, tablespaces)
    assert isinstance(fault, Fault), path
    assert fault.code == "datadir-invalid"
    assert path in fault.message


def test_a_tablespace_that_is_not_mounted(cluster: MakeCluster) -> None:
    server, databases, tablespaces = furnished(cluster)
    shutil.rmtree(server.home / "space")
    assert_misses("pg_tblspc/", scan(str(server.datadir)), databases, tablespaces)


def test_an_emptied_file_is_as_good_as_none(cluster: MakeCluster) -> None:
    server = cluster(start=False)
    (server.datadir / "base/1/pg_filenode.map").write_bytes(b"")
    assert_misses("base/1/pg_filenode.map", scan(str(server.datadir)), [DatabaseHome(1, 1663)], [])


# --- segments


@pytest.fixture
def whole(cluster: MakeCluster) -> DataDirectory:
    return scan(str(cluster(start=False).datadir))


def with_segments(directory: DataDirectory, *names: str, first_size: int = 1 << 30) -> DataDirectory:
    made = [
        Entry(f"base/5/{name}", EntryType.FILE, 0o600, 8192 if "." in name else first_size, Fork.MAIN) for name in names
    ]
    return replace(directory, entries=tuple(sorted([*directory.entries, *made])))


def test_segments_must_have_no_gap(whole: DataDirectory) -> None:
    """Ten segments and more: their names do not sort as their numbers do."""
    numbers = [f"99000.{number}" for number in range(1, 13)]
    assert check_complete(with_segments(whole, "99000", *numbers, "990001", "98999"), [], []) is None
    for lost in ("99000.1", "99000.5", "99000.11"):
        kept = [name for name in ["99000", *numbers] if name != lost]
        fault = check_complete(with_segments(whole, *kept), [], [])
        assert fault is not None
        assert f"no segment {lost.rpartition('.')[2]} of" in fault.message
    assert check_complete(with_segments(whole, "99000", *numbers[:-1]), [], []) is None


def test_a_gap_in_the_last_relation_of_all(whole: DataDirectory) -> None:
    last = replace(whole, entries=tuple(entry for entry in whole.entries if entry.fork is not Fork.MAIN))
    fault = check_complete(with_segments(last, "99000", "99000.2"), [], [])
    assert fault is not None
    assert "base/5/99000.2 is there, but no segment 1" in fault.message


def test_a_lost_first_segment(whole: DataDirectory) -> None:
    fault = check_complete(with_segments(whole, "98999", "99000.1", "99000.2", "99001"), [], [])
    assert fault is not None
    assert "base/5/99000.1 is there, but no segment 0" in fault.message


def test_a_relation_that_is_being_dropped_may_look_odd(whole: DataDirectory) -> None:
    assert check_complete(with_segments(whole, "99000", "99000.2", first_size=0), [], []) is None
    assert check_complete(with_segments(whole, "99000", "99000.2", first_size=8192), [], []) is not None
