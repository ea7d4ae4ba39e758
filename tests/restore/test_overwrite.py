"""Restores over a data directory that is there, by the real program on real servers: nothing of it is lost unasked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pgkeep.pg.account import give
from tests.clusters import Cluster
from tests.conftest import Serve, _maker, _server_directory
from tests.keeping import Kept, keep
from tests.restore.backups_of import same_tree
from tests.servers import NEWEST

MakeCluster = Callable[..., Cluster]
STAMPED = ".before-2"


@pytest.fixture
def kept(cluster: MakeCluster, server_tmp: Path, pgkeep_program: tuple[str, ...]) -> Kept:
    """A cluster with a table of three rows behind its backup, the last of them not archived; stopped in a crash."""
    kept = keep(cluster, server_tmp, pgkeep_program, wal_segsize=1)
    server = kept.cluster
    space = server.directory("space")
    server.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.sql("CREATE TABLE t (n int)")
    server.sql("CREATE TABLE big TABLESPACE fast AS SELECT g, md5(g::text) FROM generate_series(1, 5000) g")
    server.sql("INSERT INTO t VALUES (1)")
    kept.backup()
    server.sql("INSERT INTO t VALUES (2)")
    kept.archive_all()
    server.sql("INSERT INTO t VALUES (3)")
    server.instance.stop("immediate")
    return kept


def rows(server: Cluster) -> list[int]:
    return [n for (n,) in server.sql("SELECT n FROM t ORDER BY n")]


def restored(kept: Kept, serve: Serve, *options: str) -> Cluster:
    """Production's directory after `restore --yes`, its server recovered and open."""
    kept.run("--yes", "restore", str(kept.cluster.datadir), *options)
    server = serve(kept.cluster.datadir)
    kept.wait(lambda: not server.value("SELECT pg_is_in_recovery()"), "recovery does not end")
    return server


def beside(kept: Kept, part: str) -> list[Path]:
    return sorted(path for path in kept.cluster.datadir.parent.iterdir() if part in path.name)


def test_the_present_is_kept_and_its_last_minute_comes_back(kept: Kept, serve: Serve) -> None:
    data = kept.cluster.datadir
    space = kept.cluster.home / "space"
    inode = data.stat().st_ino
    plan = kept.result("--dry-run", "restore", str(data))["plan"]["over"]
    assert plan["how"] == "keep" and plan["moved"][0]["from"] == str(data)
    assert [name.endswith(".partial") for name in plan["wal"]["waiting"]].count(True) == 1
    assert data.stat().st_ino == inode and not beside(kept, STAMPED), "a dry run moved something"
    error = kept.json("restore", str(data), status=2)["error"]
    assert "--yes" in error["hint"]
    assert data.stat().st_ino == inode
    server = restored(kept, serve)
    assert rows(server) == [1, 2, 3], "what was not archived is lost"
    (before,) = beside(kept, f"{data.name}{STAMPED}")
    assert before.stat().st_ino == inode
    assert (before / "pg_tblspc").exists() and list(space.glob("PG_*/*/*")), "the kept copy has lost its tablespace"
    assert not beside(kept, ".wal-"), "everything was archived: nothing is kept beside"


@pytest.mark.parametrize("how", ["--delta", "--replace"])
def test_in_place(kept: Kept, serve: Serve, how: str) -> None:
    """As a fresh restore of the same plan, byte for byte but for paths; tablespaces stay where they are."""
    data, space = kept.cluster.datadir, kept.cluster.home / "space"
    inode = next(space.glob("PG_*/*/*")).stat().st_ino
    result = kept.result("--yes", "restore", str(data), how, "--port", "5544")
    over = result["plan"]["over"]
    assert over["proof"] == "pg_control" and over["moved"] == []
    assert over["wal"]["pushed"] and not over["wal"]["kept"]
    assert result["plan"]["tablespaces"][0]["to"] == str(space)
    assert not beside(kept, STAMPED) and not beside(kept, ".wal-")
    fresh, elsewhere = kept.home / "fresh", kept.home / "fresh space"
    kept.run("restore", str(fresh), "--port", "5544", "--tablespace-map", f"{space}={elsewhere}")
    paths = {"postgresql.auto.conf", "pgkeep.restore.json", "tablespace_map"}
    assert same_tree(fresh, data, frozenset(paths)) == []
    assert (data / "tablespace_map").read_text().endswith(f" {space}\n")
    assert (next(space.glob("PG_*/*/*")).stat().st_ino == inode) is (how == "--delta")
    server = serve(data)
    kept.wait(lambda: not server.value("SELECT pg_is_in_recovery()"), "recovery does not end")
    assert rows(server) == [1, 2, 3]
    assert server.value("SELECT count(*) FROM big") == 5000


def test_over_a_restored_copy_its_branch_stays_out_of_the_archive(kept: Kept, serve: Serve) -> None:
    """A copy that was promoted and archived nothing: its own WAL is kept beside, never pushed."""
    copy = kept.home / "copy"
    kept.run("restore", str(copy))
    server = serve(copy)
    kept.wait(lambda: not server.value("SELECT pg_is_in_recovery()"), "recovery does not end")
    server.sql("INSERT INTO t VALUES (99)")
    server.instance.stop("immediate")
    archived = sorted(kept.repository.glob("*/wal/*/*"))
    result = kept.result("--yes", "restore", str(copy), "--delta")
    assert sorted(kept.repository.glob("*/wal/*/*")) == archived
    wal = result["plan"]["over"]["wal"]
    assert wal["kept"] and not wal["pushed"]
    assert sorted(path.name for path in Path(wal["where"]).iterdir()) == sorted(wal["kept"])
    server = serve(copy)
    kept.wait(lambda: not server.value("SELECT pg_is_in_recovery()"), "recovery does not end")
    assert rows(server) == [1, 2]


def test_a_repository_that_takes_nothing(kept: Kept, serve: Serve) -> None:
    """Restoring is possible, archiving is not: what was not archived is kept, and that is said."""
    from tests import requirements

    requirements.need_root()  # the server's account cannot write; root could, so pgkeep runs as that account
    for path in [kept.repository, *kept.repository.rglob("*")]:
        if path.is_dir():
            path.chmod(0o555)
    result = kept.result("--yes", "restore", str(kept.cluster.datadir), "--delta")
    wal = result["plan"]["over"]["wal"]
    assert wal["kept"] and wal["why"] and Path(wal["where"]).is_dir()
    assert all((Path(wal["where"]) / name).stat().st_size == 1 << 20 for name in wal["kept"] if "history" not in name)


@pytest.fixture(scope="module")
def shared(server_user: object, pgkeep_program: tuple[str, ...]) -> Iterator[Kept]:
    """A running cluster with a backup, for refusals."""
    home = _server_directory(server_user)  # type: ignore[arg-type]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        kept = keep(_maker(NEWEST, home, server_user, stack), home, pgkeep_program, wal_segsize=1)  # type: ignore[arg-type]
        space = kept.cluster.directory("space")
        kept.cluster.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
        kept.cluster.sql("CREATE TABLE big TABLESPACE fast AS SELECT g FROM generate_series(1, 1000) g")
        kept.backup()
        kept.archive_all()
        yield kept


@pytest.fixture
def copy(shared: Kept, server_tmp: Path) -> Path:
    """A restored copy that may be damaged, no server on it."""
    target = server_tmp / "copy"
    shared.run("restore", str(target))
    return target


def refused(kept: Kept, directory: Path, *options: str, code: str) -> str:
    before = sorted(os.listdir(directory))
    error = kept.json("--yes", "restore", str(directory), *options, status=1)["error"]
    assert error["code"] == code, error
    assert error["hint"]
    assert sorted(os.listdir(directory)) == before
    message: str = error["message"]
    return message


@pytest.mark.parametrize("how", ["--delta", "--replace", "--latest"])
def test_a_running_server_is_never_touched(shared: Kept, how: str) -> None:
    refused(shared, shared.cluster.datadir, how, code="target-in-use")


def test_what_a_running_server_links_is_never_touched(shared: Kept, copy: Path) -> None:
    """Production's tablespace, linked by a copy of its directory."""
    (copy / "pg_tblspc").mkdir(exist_ok=True)
    (link,) = (copy / "pg_tblspc").iterdir()
    space = shared.cluster.home / "space"
    link.unlink()
    link.symlink_to(space)
    refused(shared, copy, "--delta", "--tablespace-map", f"{space}={space}", code="tablespace-unsafe")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in space.rglob("*"))
    result = shared.result("--yes", "restore", str(copy), "--delta")
    assert "tablespace-left" in {warning["code"] for warning in result["plan"]["warnings"]}
    assert sorted((str(path), path.stat().st_mtime_ns) for path in space.rglob("*")) == before
    assert link.readlink() == Path(result["plan"]["tablespaces"][0]["to"]) != space
    refused(shared, space, "--delta", code="target-not-empty")


def test_another_cluster_is_refused(shared: Kept, cluster: MakeCluster) -> None:
    other = cluster("other", start=False)
    assert "system identifier" in refused(shared, other.datadir, "--delta", code="cluster-mismatch")
    refused(shared, other.datadir, "--replace", code="cluster-mismatch")
    # Without pg_control, its WAL tells.
    (other.datadir / "global/pg_control").unlink()
    assert "its WAL" in refused(shared, other.datadir, "--delta", code="cluster-mismatch")


def test_what_proves_the_cluster(shared: Kept, copy: Path) -> None:
    def proof() -> str | None:
        plan = shared.result("--dry-run", "restore", str(copy), "--delta")["plan"]
        unproven = "cluster-unproven" in {warning["code"] for warning in plan["warnings"]}
        assert unproven is (plan["over"]["proof"] is None)
        found: str | None = plan["over"]["proof"]
        return found

    assert proof() == "pg_control"
    (copy / "global/pg_control").write_bytes(b"x" * 8192)
    assert proof() == "pgkeep.restore.json"
    (copy / "pgkeep.restore.json").write_text("{}")
    assert proof() is None
    name = shared.wal()[0].name
    shared.run("wal", "get", name, str(copy / "pg_wal" / name), "--lineage", str(_lineage(shared, copy)))
    assert proof() == f"its WAL ({name})"
    shared.run("--yes", "restore", str(copy), "--delta")
    assert proof() == "pg_control"


def _lineage(kept: Kept, copy: Path) -> Path:
    """A lineage from another restore of the same backup."""
    fresh = copy.with_name("for its lineage")
    kept.run("restore", str(fresh))
    return fresh / "pgkeep.restore.json"


def test_a_full_disk_in_mid_delta(shared: Kept, copy: Path) -> None:
    """The first attempt fails for room and leaves what cannot start; the second one ends."""
    from tests import requirements

    requirements.need_root()
    small = copy.with_name("small")
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", small], capture_output=True).returncode:
        requirements.need("full-disk", "mounting a tmpfs is refused")
    try:
        give(shared.account, [small])
        data = small / "data"
        subprocess.run(["cp", "-a", copy, data], check=True)
        shutil.rmtree(data / "base")
        filler = small / "filler"
        free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - (4 << 20))
        plain = shared.json("--yes", "restore", str(data), "--delta", status=1)["error"]
        assert plain["code"] == "target-space", plain
        filler.unlink()
        shared.run("--yes", "restore", str(data), "--delta")
        assert (data / "global/pg_control").exists() and (data / "backup_label").exists()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_options_that_exclude_each_other(shared: Kept, copy: Path) -> None:
    for options in (["--delta", "--replace"], ["--standby", "--immediate"], ["--slot", "x"]):
        error = shared.json("restore", str(copy), *options, status=2)["error"]
        assert error["code"] == "usage" and error["hint"]
