"""The choice of client programs, and how they reach a server without a secret on their command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests import servers
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.requirements import need

from pgkeep.errors import Fault
from pgkeep.pg.child import Child, tool_fault
from pgkeep.pg.link import Link, link_of
from pgkeep.pg.programs import Programs
from pgkeep.pg.session import Session
from pgkeep.pg.tools import (
    DUMP_TOOLS,
    Compressions,
    choose_dump_tools,
    choose_load_tools,
    find_tools,
    knows_restrict,
)


def programs(major: int) -> Programs:
    found = servers.programs_of(major)
    if isinstance(found, str):
        need(f"pg{major}", found)
        raise AssertionError
    return found


def test_a_dump_takes_the_newest_that_compresses_as_wanted() -> None:
    old, middle, new = programs(14), programs(16), programs(17)
    found = [new, middle, old]
    chosen = choose_dump_tools(found, 14)
    assert chosen.programs == new and chosen.reason == "the newest here, for a server of version 14"
    assert choose_dump_tools(found, 14, asked=14).programs == old
    assert choose_dump_tools(found, 16, compression="gzip").programs == new
    assert choose_dump_tools([old], 14, compression="zstd").programs == old  # what cannot be had is said elsewhere
    assert choose_dump_tools([middle, new], 15, named=middle.bindir).programs == middle
    with pytest.raises(Fault, match="expected version 18 or newer, found 17") as caught:
        choose_dump_tools(found, 18)
    assert caught.value.code == "postgres-version"
    assert "postgresql-client-18" in caught.value.hint
    with pytest.raises(Fault, match="refuses servers newer than itself"):
        choose_dump_tools(found, 17, asked=16)
    with pytest.raises(Fault, match="expected version 15"):
        choose_dump_tools(found, 14, asked=15)


def test_a_program_without_zstd_gives_way_to_one_that_has_it() -> None:
    newest, has = programs(18), programs(17)
    if "zstd" in Compressions(newest):
        pytest.skip("does not apply: version 18 has zstd on this machine")
    chosen = choose_dump_tools([newest, has], 15)
    assert chosen.programs == has and "compresses with zstd" in chosen.reason
    assert choose_dump_tools([newest, has], 18).programs == newest


def test_a_load_takes_the_servers_own_version_unless_the_archive_is_newer() -> None:
    found = [programs(17), programs(16), programs(14)]
    assert choose_load_tools(found, 14, 16).programs.major == 16
    assert choose_load_tools(found, 17, 16).programs.major == 17
    assert choose_load_tools(found, None, 14).programs.major == 14
    assert choose_load_tools(found, 14, 15).programs.major == 16
    with pytest.raises(Fault, match="written by pg_dump 18") as caught:
        choose_load_tools(found, 18, 14)
    assert caught.value.code == "postgres-version"


@pytest.mark.parametrize(
    ("version", "knows"),
    [("14.18", False), ("14.19", True), ("15.13", False), ("16.10", True), ("17.5", False), ("17.10", True),
     ("17", False), ("18", True), ("18.0", True)],
)  # fmt: skip
def test_a_script_needs_a_psql_that_can_be_kept_from_its_commands(version: str, knows: bool) -> None:
    one = Programs(Path("/some/bin"), version, int(version.partition(".")[0]))
    assert knows_restrict(one) is knows
    assert choose_load_tools([one], 14, 14).programs == one  # an archive needs no psql as a rule
    assert choose_load_tools([one, programs(16)], None, one.major).programs == (one if knows else programs(16))
    if not knows:
        with pytest.raises(Fault, match="does not know") as caught:
            choose_load_tools([one], None, one.major, named=one.bindir)
        assert caught.value.code == "postgres-version" and "--bindir" in caught.value.hint


def test_the_programs_are_asked_what_they_compress_with() -> None:
    assert list(Compressions(programs(14))) == ["gzip"]  # it takes the word zstd, and compresses nothing
    assert set(Compressions(programs(17))) == {"gzip", "zstd", "lz4"}


def test_what_is_named_comes_first_and_wrappers_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = programs(16).bindir
    assert find_tools(DUMP_TOOLS, named)[0].bindir == named
    with pytest.raises(Fault, match="does not hold working programs"):
        find_tools(DUMP_TOOLS, tmp_path)
    wrapper = tmp_path / "pg_wrapper"
    wrapper.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 18.9'\n")
    wrapper.chmod(0o755)
    bindir = tmp_path / "bin"
    bindir.mkdir()
    for name in DUMP_TOOLS:
        (bindir / name).symlink_to(wrapper)
    monkeypatch.setenv("PATH", f"{bindir}:{named}")
    assert bindir not in [one.bindir for one in find_tools(DUMP_TOOLS)]


@pytest.mark.pg("17")
def test_a_password_reaches_the_program_and_no_command_line(cluster: MakeCluster) -> None:
    server = with_password(cluster)
    link = linked(f"host={server.instance.socket_dir} user=guarded password=s3cr3t keepalives_idle=17 dbname=postgres")
    assert "s3cr3t" not in repr(link)
    with link.to("it's a \\ database") as reach:
        assert "s3cr3t" not in reach.conninfo + repr(reach)
        assert "keepalives_idle='17'" in reach.conninfo
        command = [server.programs.path("psql"), "-XAtc", "SELECT current_database()", f"--dbname={reach.conninfo}"]
        with Child(command, reach=reach, stdout=subprocess.PIPE) as child:
            assert child.stdout.read() == b"it's a \\ database\n"
            child.finish()
    with Link(link.options, ()).to("postgres") as reach:
        command = [server.programs.path("psql"), "-XAtwc", "SELECT 1", f"--dbname={reach.conninfo}"]
        with Child(command, reach=reach) as child, pytest.raises(Fault, match="no password supplied") as caught:
            child.finish()
    assert (caught.value.code, caught.value.exit_status) == ("postgres-unreachable", 20)


@pytest.mark.pg("17")
def test_a_secret_without_a_variable_lies_in_memory_alone(cluster: MakeCluster) -> None:
    server = with_password(cluster)
    link = linked(f"host={server.instance.socket_dir} user=guarded password=s3cr3t dbname=postgres sslpassword=k3y")
    with link.to("postgres") as reach:
        assert "k3y" not in reach.conninfo + repr(dict(reach.env))
        (descriptor,) = reach.descriptors
        assert os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")
        command = [server.programs.path("psql"), "-XAtc", "SELECT 42", f"--dbname={reach.conninfo}"]
        with Child(command, reach=reach, stdout=subprocess.PIPE) as child:
            assert child.stdout.read() == b"42\n", child.said
            child.finish()


def with_password(cluster: MakeCluster) -> Cluster:
    server = cluster("guarded")
    server.sql("CREATE ROLE guarded LOGIN PASSWORD 's3cr3t'")
    server.sql('CREATE DATABASE "it\'s a \\ database"')
    hba = server.datadir / "pg_hba.conf"
    hba.write_text("local all guarded scram-sha-256\n" + hba.read_text())
    server.reload()
    return server


def linked(conninfo: str) -> Link:
    with Session.open(conninfo, "pgkeep") as session:
        return link_of(session)


def test_the_surroundings_of_the_session_are_pinned(
    shared_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = tmp_path / "pg_service.conf"
    sockets = shared_cluster.instance.socket_dir
    service.write_text(f"[acme]\nhost=/nonexistent,{sockets}\nport=1,5432\nuser=postgres\noptions=-c work_mem=5MB\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    link = linked("service=acme")
    options = dict(link.options)
    assert (options["host"], options["port"], options["user"]) == (str(sockets), "5432", "postgres")
    with link.to("postgres") as reach:
        assert "service" not in reach.conninfo and "PGSERVICEFILE" not in reach.env
        command = [shared_cluster.programs.path("psql"), "-XAtc", "SHOW work_mem", f"--dbname={reach.conninfo}"]
        with Child(command, reach=reach, stdout=subprocess.PIPE) as child:
            assert child.stdout.read() == b"5MB\n", child.said


def test_why_a_program_failed() -> None:
    def code(said: str) -> str:
        return tool_fault("pg_dump", 1, said).code

    assert code('pg_dump: error: connection to server on socket "/x" failed: No such file') == "postgres-unreachable"
    assert code("pg_dump: error: server closed the connection unexpectedly") == "postgres-lost"
    assert code("pg_dump: error: could not write to file: No space left on device") == "target-space"
    assert code("pg_dump: error: query failed: ERROR:  permission denied for table t") == "postgres-rights"
    assert code("pg_dump: error: something else") == "postgres-program"
    assert tool_fault("psql", -9, "").message == "psql was ended by signal 9: it said nothing"


def test_a_child_that_is_left_is_ended_even_when_paused() -> None:
    with Child(["/bin/sleep", "100"]) as child:
        child.pause()
        assert not child.has_ended()
    assert child.process.returncode == -15
