"""Restored servers and the repository that they come from: who may archive, on which timeline, and what is restored."""

from __future__ import annotations

import subprocess
import time

import pytest

from pgkeep.pg.account import give
from tests.adversity.conftest import MakeKept, rows, started
from tests.clusters import Cluster
from tests.conftest import Serve
from tests.keeping import Kept


def _told(server: Cluster, text: str, seconds: float = 60) -> None:
    """Wait until the server's log says `text`."""
    deadline = time.monotonic() + seconds
    while text not in server.log.read_text(errors="replace"):
        assert time.monotonic() < deadline, f"{text!r} is not in {server.log.read_text(errors='replace')[-3000:]}"
        time.sleep(0.1)


def _of(kept: Kept, server: Cluster, name: str) -> Kept:
    """`server` under the same repository's care, with a configuration of its own."""
    home = kept.home / name
    home.mkdir()
    (home / "repository").symlink_to(kept.repository)
    own = Kept(server, home, kept.program)
    text = kept.config.read_text().replace(kept.cluster.instance.conninfo(), server.instance.conninfo())
    own.config.write_text(text)
    give(kept.account, [home, own.config])
    return own


def _archived(kept: Kept, server: Cluster) -> None:
    server.sql("CHECKPOINT")
    last = server.switch_wal()
    kept.wait(lambda: any(path.name == last for path in kept.wal()), f"{last} was not archived")


def test_a_restored_server_takes_over_and_both_timelines_can_be_restored(make_kept: MakeKept, serve: Serve) -> None:
    kept = make_kept()
    production = kept.cluster
    production.sql("CREATE TABLE t (n int)")
    kept.backup()
    production.sql("INSERT INTO t VALUES (1)")
    production.sql("SELECT pg_create_restore_point('good')")
    production.sql("INSERT INTO t VALUES (2)")
    kept.archive_all()
    with started(kept, kept.home / "one", "--name", "good") as restored:
        assert rows(restored) == [1]
        restored.sql("INSERT INTO t VALUES (10)")
        early = _of(kept, restored, "early")
        for statement in early.result("init", "--adopt")["statements"]:
            restored.sql(statement["sql"])
    one = serve(kept.home / "one")
    own = _of(kept, one, "own")
    one.sql("INSERT INTO t VALUES (11)")
    _archived(kept, one)
    _archived(kept, production)
    own.backup()
    one.sql("INSERT INTO t VALUES (12)")
    _archived(kept, one)
    with started(own, kept.home / "newest", "--latest") as newest:
        assert rows(newest) == [1, 10, 11, 12]
    with started(own, kept.home / "old", "--timeline", "1", "--latest") as old:
        assert rows(old) == [1, 2]
    assert own.result("verify")["sound"] is True


def test_a_restored_server_that_stays_on_the_old_timeline_never_archives(make_kept: MakeKept, serve: Serve) -> None:
    """Recovered, shut down, and started without recovery.signal by mistake: production alone writes this timeline."""
    kept = make_kept()
    production = kept.cluster
    production.sql("CREATE TABLE t (n int)")
    kept.backup()
    production.sql("SELECT pg_create_restore_point('good')")
    kept.archive_all()
    home = kept.home / "same"
    done = kept.result("restore", str(home), "--name", "good", "--action", "shutdown", "--start")
    assert done["recovered"]["state"] == "shut-down"
    (home / "recovery.signal").unlink()
    same = serve(home, archive_mode="on")
    same.sql("INSERT INTO t VALUES (30)")
    same.switch_wal()
    _told(same, "archives since")
    assert same.value("SELECT archived_count FROM pg_stat_archiver") == 0
    _archived(kept, production)
    error = _of(kept, same, "own").json("init", "--adopt", status=1)["error"]
    assert error["code"] == "wal-claimed" and "let that server promote" in error["hint"]
    assert production.value("SELECT failed_count FROM pg_stat_archiver") == 0


@pytest.mark.campaign
def test_two_servers_restored_to_one_point(make_kept: MakeKept, serve: Serve) -> None:
    """Both are promoted to timeline 2 before either archives: the first to archive has it."""
    kept = make_kept()
    kept.cluster.sql("CREATE TABLE t (n int)")
    kept.backup()
    kept.cluster.sql("SELECT pg_create_restore_point('good')")
    kept.archive_all()
    for name in ("one", "two"):
        with started(kept, kept.home / name, "--name", "good") as server:
            assert server.value("SELECT timeline_id FROM pg_control_checkpoint()") == 2
    one = serve(kept.home / "one", archive_mode="on")
    _archived(kept, one)
    two = serve(kept.home / "two", archive_mode="on")
    two.switch_wal()
    _told(two, "archives since")
    one.stop()
    own = _of(kept, two, "own")
    error = own.json("init", "--adopt", status=1)["error"]
    assert error["code"] == "wal-claimed" and "has archived 00000002" in error["message"]
    assert {path.name[:8] for path in kept.wal()} == {"00000001", "00000002"}


@pytest.mark.campaign
def test_a_moved_server_adopts_its_timeline(make_kept: MakeKept, serve: Serve) -> None:
    """Another inode of the token's file: pgkeep cannot know it from a clone, and believes who says `--adopt`."""
    kept = make_kept()
    kept.archive_all()
    kept.cluster.stop()
    subprocess.run(["cp", "-a", kept.cluster.datadir, kept.home / "moved"], check=True)
    moved = serve(kept.home / "moved")
    moved.switch_wal()
    moved.sql("CREATE TABLE t (n int)")
    last = moved.switch_wal()
    _told(moved, "archives since")
    assert _of(kept, moved, "own").result("init", "--adopt")["cluster"]["adopted_timeline"] == 1
    kept.wait(lambda: any(path.name == last for path in kept.wal()), "the moved server does not archive")
