"""Servers that pgkeep starts: readiness, stopping, and knowing whether a directory is in use."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import MakeCluster
from tests.requirements import need_root
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.account import named_account
from pgkeep.pg.instance import is_server_running, read_postmaster, server_pids


@pg_versions("oldest", "newest")
def test_start_use_and_stop(cluster: MakeCluster, pg_major: int) -> None:
    made = cluster(start=False)
    lines: list[str] = []
    made.instance.start()
    assert made.instance.wait_ready(60, on_line=lines.append) == "ready"
    assert made.programs.major == pg_major
    assert int(made.value("SHOW server_version_num")) // 10000 == pg_major
    assert made.value("SHOW listen_addresses") == ""
    assert any("database system is ready to accept connections" in line for line in lines)
    postmaster = read_postmaster(made.datadir)
    assert postmaster is not None
    assert (postmaster.pid, postmaster.port) == (made.instance.pid, 5432)
    assert postmaster.socket_dir == str(made.instance.socket_dir)
    assert made.instance.pid in server_pids(made.datadir)
    made.stop()
    assert not made.instance.is_running() and not is_server_running(made.datadir)
    assert "database system is shut down" in made.instance.log_tail()
    made.start()
    made.stop(immediate=True)
    assert not is_server_running(made.datadir)


def test_a_second_server_on_the_directory_is_refused(cluster: MakeCluster) -> None:
    made = cluster()
    second = replace(made.instance, port=5433)
    with pytest.raises(Fault) as caught:
        second.start()
    assert caught.value.code == "target-in-use"
    assert made.instance.is_running()


def test_backends_that_outlive_their_postmaster_count(cluster: MakeCluster) -> None:
    """A killed postmaster leaves backends that still write; postmaster.pid then tells of a dead process."""
    made = cluster()
    postmaster = made.instance.pid
    assert postmaster is not None
    with made.connect() as session:
        backend = session.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            os.kill(postmaster, signal.SIGKILL)
            made.instance.wait(10)
            deadline = time.monotonic() + 10
            while len(server_pids(made.datadir)) > 1 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert server_pids(made.datadir) == (backend,)
            with pytest.raises(Fault, match="a server runs on") as caught:
                made.instance.start()
            assert caught.value.code == "target-in-use"
        finally:
            os.kill(backend, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while is_server_running(made.datadir) and time.monotonic() < deadline:
        time.sleep(0.05)
    made.start()


def test_a_stale_pid_file_does_not_count(cluster: MakeCluster) -> None:
    made = cluster(start=False)
    (made.datadir / "postmaster.pid").write_text(f"{os.getpid()}\n{made.datadir}\n1\n5432\n/tmp\n\n1 1\nready   \n")
    assert not is_server_running(made.datadir)
    made.start()


def test_a_server_that_fails_says_why(cluster: MakeCluster) -> None:
    made = cluster(start=False, shared_buffers="'1 apple'")
    with pytest.raises(Fault, match="invalid value for parameter") as caught:
        made.start()
    assert caught.value.context["log"] == str(made.log)


def test_a_long_socket_path_is_refused_before_the_start(cluster: MakeCluster) -> None:
    made = cluster(start=False)
    deep = made.home / ("x" * 100)
    deep.mkdir()
    with pytest.raises(Fault, match="longer than 107 bytes"):
        replace(made.instance, socket_dir=deep).start()


def test_root_may_not_run_a_server(cluster: MakeCluster) -> None:
    need_root()
    made = cluster(start=False)
    with pytest.raises(Fault, match="refuses to run as root"):
        replace(made.instance, account=named_account("root")).start()


def test_a_directory_closed_to_the_account_is_named(cluster: MakeCluster, tmp_path: Path) -> None:
    need_root()
    made = cluster(start=False)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    made.datadir.rename(closed / "main")
    with pytest.raises(Fault, match="may not enter"):
        replace(made.instance, datadir=closed / "main").start()


def test_no_server_and_no_directory(tmp_path: Path) -> None:
    assert server_pids(tmp_path) == ()
    assert server_pids(tmp_path / "absent") == ()
    assert read_postmaster(tmp_path) is None
