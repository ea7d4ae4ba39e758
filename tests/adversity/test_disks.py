"""Full disks on either side, and repositories that cannot be written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgkeep.pg.account import Account
from pgkeep.restore.mark import is_unfinished
from tests import requirements
from tests.adversity.conftest import Past, refused, rows, started
from tests.keeping import Kept


@contextmanager
def _small(path: Path, account: Account, options: str) -> Iterator[None]:
    """A small file system on `path`, as long as the block."""
    requirements.need_root()
    path.mkdir(exist_ok=True)
    given = f"mode=700,uid={account.uid},gid={account.gid},{options}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", given, "tmpfs", path], capture_output=True)
    if mounted.returncode:
        requirements.need("full-disk", mounted.stderr.decode())
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def _limited(kept: Kept, kibibytes: int, directory: Path) -> Kept:
    """Runs the program where no file may grow beyond that size: what a quota does, without being root."""
    script = f'cd "$0" && ulimit -f {2 * kibibytes} && exec "$@"'
    return Kept(kept.cluster, kept.home, ("sh", "-c", script, str(directory), *kept.program))


def test_too_little_room_is_known_before(past: Past, aside: Kept) -> None:
    target = aside.home / "restored"
    with _small(target, aside.account, "size=16m"):
        error = refused(aside, target, code="target-space")
        assert str(target) in error["message"] and "larger file system" in error["hint"]
    spaces = aside.home / "spaces"
    with _small(spaces, aside.account, "size=1m"):
        mapping = f"{past.space}={spaces}/fast"
        refused(aside, aside.home / "other", "--tablespace-map", mapping, code="target-space")


def test_a_target_that_fills_up(past: Past, aside: Kept) -> None:
    """Room enough by the plan, but somebody takes the inodes."""
    target = aside.home / "restored"
    with _small(target, aside.account, "size=900m,nr_inodes=200"):
        error = aside.json("restore", str(target), status=1)["error"]
        assert error["code"] == "target-space" and error["hint"]
        assert is_unfinished(str(target)) and not (target / "global/pg_control").exists()
    with started(aside, aside.home / "elsewhere") as server:
        assert rows(server) == [1, 2, 3]


def test_a_target_with_a_limit(past: Past, aside: Kept) -> None:
    """The table in the tablespace is larger than any file may be."""
    target = aside.home / "restored"
    error = _limited(aside, 2048, aside.home).json("restore", str(target), status=1)["error"]
    assert f"{target}-tablespaces" in error["message"]
    assert error["code"] == "target-space" and error["hint"], error
    assert is_unfinished(str(target)) and not (target / "global/pg_control").exists()


def test_a_repository_with_a_limit(past: Past, aside: Kept) -> None:
    """A backup fails and gives back what it took; a push fails, and succeeds when there is room again."""
    packs, backups = aside.packs(), aside.backups()
    segment = max(aside.wal(), key=lambda path: path.stat().st_size)
    server = past.kept.cluster.datadir
    file = aside.home / segment.name
    _limited(aside, 1 << 20, server).run("wal", "get", segment.name, str(file))
    whole = segment.read_bytes()
    segment.unlink()
    tight = _limited(aside, 4, server)
    error = tight.json("backup", "--mode", "full", status=1)["error"]  # what has changed alone might fit
    assert error["code"] == "store-full" and "free space" in error["hint"], error
    done = tight.run("wal", "push", str(file), check=False)
    assert done.returncode == 1 and "no room" in done.stderr
    assert (aside.packs(), aside.backups()) == (packs, backups) and not segment.exists()
    assert list(aside.repository.rglob(".tmp-*")) == []
    _limited(aside, 1 << 20, server).run("wal", "push", str(file))
    assert len(segment.read_bytes()) == len(whole)
    assert aside.result("verify")["sound"] is True


def test_a_read_only_repository_restores(past: Past, aside: Kept) -> None:
    """A copy on a medium that nobody can write is enough for everything that only reads."""
    for path in [aside.repository, *aside.repository.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        assert len(aside.result("list")["backups"]) == 2
        assert aside.result("verify")["sound"] is True
        with started(aside, aside.home / "restored") as server:
            assert rows(server) == [1, 2, 3]
        error = aside.json("backup", status=1)["error"]
        assert error["code"] == "store-denied" and error["hint"]
    finally:
        for path in [aside.repository, *aside.repository.rglob("*")]:
            path.chmod(0o700)


@pytest.mark.parametrize("verb", ["list", "verify", "backup", "restore"])
def test_a_repository_that_is_not_mounted(past: Past, aside: Kept, verb: str) -> None:
    """An empty mount point is no empty repository, and none is begun there."""
    aside.repository.rename(aside.home / "away")
    aside.cluster.directory(f"{aside.home.name}-mount").rename(aside.repository)
    argv = (verb, str(aside.home / "x")) if verb == "restore" else (verb,)
    error = aside.json(*argv, status=10)["error"]
    assert error["code"] == "no-repository" and error["hint"]
    assert list(aside.repository.iterdir()) == []
