"""A restored tree is the tree that was backed up, byte for byte, and an unfinished one cannot start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.events import Event, Phase, Progress, silent
from pgkeep.format import names
from pgkeep.repo.backups import read_manifest
from pgkeep.repo.repository import Cluster
from pgkeep.restore import materialise as materialise_module
from pgkeep.restore.filewriter import STRETCH_SIZE
from pgkeep.restore.mark import UNFINISHED, is_unfinished
from pgkeep.restore.materialise import Destination, Overlay, materialise
from pgkeep.restore.tree import Owner
from pgkeep.values.ids import BackupId
from tests import requirements
from tests.restore.backups_of import BACKUP, LABEL, PAGE, DirectoryBackup, new_cluster, same_tree

MADE_BY_RESTORE = frozenset({"backup_label", "tablespace_map"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Every kind of path: pages, bytes, empty files and directories, a linked and an in-place tablespace."""
    root = tmp_path / "source"
    space = tmp_path / "space"
    for directory in ("base/5", "global", "pg_tblspc/16500/PG_15_202209061/5", "pg_wal/archive_status", "empty"):
        (root / directory).mkdir(parents=True)
    (space / "PG_15_202209061" / "5").mkdir(parents=True)
    (root / "pg_tblspc" / "16400").symlink_to(space)
    (space / "PG_15_202209061" / "5" / "16401").write_bytes(_pages(300, 3))
    (root / "pg_tblspc/16500/PG_15_202209061/5/16501").write_bytes(_pages(5, 4))
    (root / "base/5/16384").write_bytes(_pages(3000, 1))
    (root / "base/5/16384.1").write_bytes(_pages(17, 2))
    (root / "base/5/16385").write_bytes(b"")
    (root / "base/5/PG_VERSION").write_bytes(b"15\n")
    (root / "global/pg_control").write_bytes(os.urandom(8192))
    (root / "postgresql.auto.conf").write_bytes(b"# made by hand\n")
    (root / "pg_xact_0000").write_bytes(os.urandom(700_001))
    for number in range(200):
        (root / f"base/5/{20000 + number}").write_bytes(_pages(1, number))
    for parent, directories, files in os.walk(root):
        for name in directories:
            os.chmod(os.path.join(parent, name), 0o700)
        for name in files:
            os.chmod(os.path.join(parent, name), 0o600)
    (root / "postgresql.auto.conf").chmod(0o640)
    for path in (space, *space.rglob("*")):
        path.chmod(0o600 if path.is_file() else 0o700)
    return root


def _pages(count: int, seed: int) -> bytes:
    head = [((seed << 32) + block).to_bytes(8, "little") * (PAGE // 16) for block in range(count)]
    return b"".join(part + os.urandom(PAGE // 2) for part in head)


def backed_up(tmp_path: Path, source: Path, **options: int) -> Cluster:
    cluster = new_cluster(tmp_path / "repository")
    DirectoryBackup(cluster, source, **options).write()  # type: ignore[arg-type]
    return cluster


def restored(cluster: Cluster, tmp_path: Path, *overlays: Overlay, owner: Owner | None = None) -> Path:
    target = tmp_path / "deep" / "er" / "target"
    destination = Destination(str(target), {16400: str(tmp_path / "spaces" / "16400")}, owner)
    materialise(cluster, read_manifest(cluster, BackupId(BACKUP)), destination, overlays, announce=silent)
    return target


@pytest.mark.parametrize(
    ("pack_target", "scatter"),
    [(64 << 20, 0), (1 << 20, 0), (256 << 10, 7), (64 << 20, 1)],
    ids=["one pack", "several packs", "scattered over packs", "every unit apart"],
)
def test_the_tree_is_the_same(tmp_path: Path, source: Path, pack_target: int, scatter: int) -> None:
    if scatter:
        # Bytes are units too: 700,000 extents of one byte each would only be slow.
        (source / "pg_xact_0000").write_bytes(os.urandom(3001))
        (source / "global/pg_control").write_bytes(os.urandom(296))
    cluster = backed_up(tmp_path, source, pack_target=pack_target, scatter=scatter)
    target = restored(cluster, tmp_path)
    assert same_tree(source, target, MADE_BY_RESTORE) == []
    assert (target / "backup_label").read_bytes() == LABEL
    assert (target / "pg_tblspc" / "16400").readlink() == tmp_path / "spaces" / "16400"
    assert (target / "tablespace_map").read_text() == f"16400 {tmp_path}/spaces/16400\n"
    assert not (target / os.fsdecode(UNFINISHED)).exists()
    assert not is_unfinished(str(target))


def test_a_large_scattered_file_with_holes_is_put_together_in_tiles(tmp_path: Path, source: Path) -> None:
    """More than a stretch of memory holds, with neighbours of other files in its frames."""
    content = bytearray(_pages(2 * STRETCH_SIZE // PAGE + 300, 9))
    for first in range(40, len(content) // PAGE, 500):
        content[first * PAGE : (first + 35) * PAGE] = bytes(35 * PAGE)
    (source / "base/5/16399").write_bytes(content)
    (source / "base/5/16399").chmod(0o600)
    for path in ("pg_xact_0000", "global/pg_control"):
        (source / path).write_bytes(os.urandom(296))
    cluster = new_cluster(tmp_path / "repository")
    DirectoryBackup(cluster, source, pack_target=4 << 20, scatter=5, holes=True).write()
    assert same_tree(source, restored(cluster, tmp_path), MADE_BY_RESTORE) == []


def test_maps_are_read_in_portions_and_their_tiles_written_between(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialise_module, "MAPS_SIZE", 1)
    monkeypatch.setattr(materialise_module, "PORTION", 1)
    for path in ("pg_xact_0000", "global/pg_control"):
        (source / path).write_bytes(os.urandom(296))
    cluster = backed_up(tmp_path, source, pack_target=1 << 20, scatter=2)
    seen: list[Event] = []
    destination = Destination(str(tmp_path / "target"), {16400: str(tmp_path / "t")})
    written = materialise(cluster, read_manifest(cluster, BackupId(BACKUP)), destination, announce=seen.append)
    assert same_tree(source, tmp_path / "target", MADE_BY_RESTORE) == []
    assert [event.name for event in seen if isinstance(event, Phase)] == ["prepare", "copy", "sync"]
    assert [event.done for event in seen if isinstance(event, Progress)][-1] == written


def test_progress_ends_at_the_total(tmp_path: Path, source: Path) -> None:
    cluster = backed_up(tmp_path, source, pack_target=1 << 20)
    seen: list[Event] = []
    destination = Destination(str(tmp_path / "target"), {16400: str(tmp_path / "t")})
    written = materialise(cluster, read_manifest(cluster, BackupId(BACKUP)), destination, announce=seen.append)
    steps = [event for event in seen if isinstance(event, Progress)]
    assert steps[-1].done == steps[-1].total == written
    assert len(steps) > 5
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_overlays_replace_add_and_leave_out(tmp_path: Path, source: Path) -> None:
    cluster = backed_up(tmp_path, source)
    target = restored(
        cluster, tmp_path,
        Overlay(b"postgresql.auto.conf", b"port = 1\n", 0o600), Overlay(b"recovery.signal", b""),
        Overlay(b"base/5/PG_VERSION", None),
    )  # fmt: skip
    changed = frozenset({"postgresql.auto.conf", "recovery.signal", "base/5/PG_VERSION"})
    assert (target / "postgresql.auto.conf").read_bytes() == b"port = 1\n"
    assert (target / "recovery.signal").read_bytes() == b""
    assert not (target / "base/5/PG_VERSION").exists()
    assert same_tree(source, target, MADE_BY_RESTORE | changed) == []


def test_a_damaged_frame_leaves_a_directory_that_cannot_start(tmp_path: Path, source: Path) -> None:
    cluster = backed_up(tmp_path, source, pack_target=1 << 20)
    packs = sorted((tmp_path / "repository" / str(cluster.uuid) / "packs").iterdir())
    _flip(packs[0], packs[0].stat().st_size // 3)
    with pytest.raises(Fault) as caught:
        restored(cluster, tmp_path)
    assert caught.value.code == "format-damaged"
    assert packs[0].name in caught.value.message
    target = tmp_path / "deep" / "er" / "target"
    assert is_unfinished(str(target))
    assert not (target / "backup_label").exists()


def _flip(path: Path, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))


def test_a_lost_pack_is_damage_that_names_it(tmp_path: Path, source: Path) -> None:
    cluster = backed_up(tmp_path, source, pack_target=1 << 20)
    pack = read_manifest(cluster, BackupId(BACKUP)).outer.packs[-1].id
    cluster.repository.store.delete(names.pack(cluster.uuid, pack))
    with pytest.raises(Fault) as caught:
        restored(cluster, tmp_path)
    assert caught.value.code == "format-damaged"
    assert str(pack) in caught.value.message


def test_no_link_in_the_target_is_followed(tmp_path: Path, source: Path) -> None:
    """Somebody slips a link into the target while it is written."""
    cluster = backed_up(tmp_path, source)
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "base").symlink_to(outside)
    destination = Destination(str(target), {16400: str(tmp_path / "t")})
    with pytest.raises(Fault) as caught:
        materialise(cluster, read_manifest(cluster, BackupId(BACKUP)), destination, announce=silent)
    assert caught.value.code == "io"
    assert list(outside.iterdir()) == []


def test_everything_is_given_to_the_owner(tmp_path: Path, source: Path) -> None:
    requirements.need_root()
    target = restored(backed_up(tmp_path, source), tmp_path, owner=Owner(65534, 65534))
    paths = [target, *target.rglob("*"), *(tmp_path / "spaces").rglob("*")]
    assert len(paths) > 200
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in paths} == {(65534, 65534)}


_CHILD = """
import sys
from pathlib import Path
from pgkeep.events import Progress
from pgkeep.repo.backups import read_manifest
from pgkeep.repo.repository import clusters, open_repository
from pgkeep.restore.materialise import Destination, materialise
from pgkeep.store.local import LocalStore
from pgkeep.values.ids import BackupId
if __name__ == "__main__":
    (cluster,) = clusters(open_repository(LocalStore(sys.argv[1])))
    def announce(event):
        if isinstance(event, Progress):
            print("going", flush=True)
    materialise(cluster, read_manifest(cluster, BackupId(sys.argv[2])), Destination(sys.argv[3], {16400: sys.argv[4]}),
                announce=announce)
    print("done", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent(tmp_path: Path, source: Path, number: int) -> None:
    (source / "base/5/16390").write_bytes(_pages(12000, 9))
    backed_up(tmp_path, source, pack_target=1 << 20)
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    target = tmp_path / "target"
    command = [sys.executable, str(script), str(tmp_path / "repository"), BACKUP, str(target), str(tmp_path / "t")]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "going\n"
    workers = _children(child.pid)
    assert len(workers) >= 2
    child.send_signal(number)
    assert "done" not in child.stdout.read()
    child.wait(20)
    _wait_until(lambda: not any(_is_alive(pid) for pid in workers))
    assert is_unfinished(str(target))
    assert not (target / "global/pg_control").exists()


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "still not so after the time"
        time.sleep(0.05)
