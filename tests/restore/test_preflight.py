"""What is looked up on this machine, against real directories and servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.pg.running import RunningServers, running_servers, tablespaces_in_use
from pgkeep.restore import preflight
from pgkeep.restore.preflight import Volume
from pgkeep.restore.tablespaces import MappedTablespace
from tests.clusters import Cluster
from tests.requirements import need, need_root
from tests.servers import programs_of


def refused(directory: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        preflight.check_directory(str(directory))
    return caught.value


def test_absent_and_empty_directories_serve(tmp_path: Path) -> None:
    preflight.check_directory(str(tmp_path / "new"))
    preflight.check_directory(str(tmp_path))


def test_nothing_is_restored_over_something(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert refused(tmp_path / "file").code == "target-unsafe"
    fault = refused(tmp_path)
    assert fault.code == "target-not-empty" and "file" in fault.message
    (tmp_path / "PG_VERSION").write_text("15\n")
    assert f"mv {tmp_path}" in refused(tmp_path).hint
    (tmp_path / "pgkeep.restore.unfinished").write_text("")
    assert f"rm -r {tmp_path}" in refused(tmp_path).hint
    # With pg_control it could be a finished one: then it is not to be thrown away.
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "pg_control").write_text("")
    assert "rm -r" not in refused(tmp_path).hint


def test_a_running_server_is_seen(shared_cluster: Cluster) -> None:
    assert refused(shared_cluster.datadir).code == "target-in-use"
    assert str(shared_cluster.datadir) in running_servers().directories


def test_tablespaces_of_running_servers_are_seen(shared_cluster: Cluster) -> None:
    space = shared_cluster.directory("inuse")
    shared_cluster.sql(f"CREATE TABLESPACE inuse LOCATION '{space}'")
    try:
        assert tablespaces_in_use(running_servers())[str(space)] == str(shared_cluster.datadir)
        with pytest.raises(Fault) as caught:
            preflight.check_tablespaces([MappedTablespace(1, "inuse", str(space), str(space), True)])
        assert caught.value.code == "tablespace-unsafe"
    finally:
        shared_cluster.sql("DROP TABLESPACE inuse")


def test_a_tablespace_that_goes_back_may_be_used_by_servers_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """Not one that is this account's, or that is not there: no server of another account works in it."""
    unseen = RunningServers(frozenset(), 3, frozenset({"other"}))
    for own in (tmp_path, tmp_path / "absent"):
        preflight.check_tablespaces([MappedTablespace(1, "fast", str(own), str(own), False)], unseen)
    foreign = "/"
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
        foreign = str(tmp_path)
    with pytest.raises(Fault, match="3 server processes cannot be looked at"):
        preflight.check_tablespaces([MappedTablespace(1, "fast", foreign, foreign, False)], unseen)
    elsewhere = MappedTablespace(1, "fast", foreign, str(tmp_path / "absent"), True)
    preflight.check_tablespaces([elsewhere], unseen)


def test_tablespace_targets_must_be_empty(tmp_path: Path) -> None:
    space = MappedTablespace(1, "fast", "/nowhere", str(tmp_path / "t"), False)
    preflight.check_tablespaces([space])
    (tmp_path / "t" / "PG_15_202209061").mkdir(parents=True)
    with pytest.raises(Fault) as caught:
        preflight.check_tablespaces([space])
    assert caught.value.code == "target-not-empty"


def test_space_is_added_up_by_file_system(tmp_path: Path) -> None:
    needs = {str(tmp_path / "a" / "b"): 100, str(tmp_path / "c"): 50}
    if os.stat("/dev/shm").st_dev != tmp_path.stat().st_dev:
        needs["/dev/shm/pgkeep-nowhere"] = 7
    found = preflight.volumes(needs)
    assert sorted(volume.needed for volume in found) == ([7, 150] if len(needs) == 3 else [150])
    stat = os.statvfs(tmp_path)
    free = next(volume.free for volume in found if volume.needed == 150)
    assert free <= stat.f_blocks * stat.f_frsize
    preflight.check_space([Volume("/x", 10, 10)])
    with pytest.raises(Fault) as caught:
        preflight.check_space([Volume("/x", 10, 10), Volume("/y", 11, 10)])
    assert caught.value.code == "target-space" and "/y" in caught.value.message


def test_links_above_the_target_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert preflight.resolve_directory(str(tmp_path / "link" / "new")) == str(tmp_path.resolve() / "real" / "new")
    with pytest.raises(Fault):
        preflight.resolve_directory("/")


def test_another_major_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        preflight.programs_for(9)
    assert caught.value.code == "postgres-version"
    assert "dump and load" in caught.value.hint


def test_libraries_that_are_not_installed_are_named() -> None:
    programs = programs_of(18)
    if isinstance(programs, str):
        need("pg18", programs)
    assert preflight.missing_libraries(programs, "plpgsql, nosuch, $libdir/pg_stat_statements") == ("nosuch",)
    assert preflight.missing_libraries(programs, "") == ()


def test_who_runs_the_server() -> None:
    need_root()
    assert preflight.account_for("nobody").name == "nobody"
    assert preflight.account_for("no such account").uid != 0
    assert preflight.account_for("root").uid != 0
