"""Whatever happened to a directory: after a delta it is what a fresh restore makes, byte for byte, and nothing else
was touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pgkeep.errors import Fault
from pgkeep.events import Event, Progress, silent
from pgkeep.repo.backups import read_manifest
from pgkeep.repo.repository import Cluster, cluster_named, open_repository
from pgkeep.restore.delta import DeltaJob, Differences, look, parts_of
from pgkeep.restore.deltaworker import runs
from pgkeep.restore.layout import ROW
from pgkeep.restore.mark import UNFINISHED, Mark, is_unfinished, read_mark
from pgkeep.restore.materialise import Destination, Job, Overlay, materialise
from pgkeep.store.open import open_store
from pgkeep.values.ids import BackupId
from tests.restore.backups_of import BACKUP, PAGE, SYSTEM, DirectoryBackup, new_cluster, same_tree

VERSIONED = "PG_15_202209061"
Damage = Callable[[Path, Path], object]
OVERLAYS = (Overlay(b"postgresql.auto.conf", b"port = 1\n"), Overlay(b"recovery.signal", b""))
BIG, SMALL, SPACE = "base/5/16384", "base/5/20001", f"pg_tblspc/16400/{VERSIONED}/5/16401"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cluster, Path]:
    """A backup of every kind of path in several packs, and what a fresh restore makes of it (with its tablespace)."""
    home = tmp_path_factory.mktemp("made")
    source, space = home / "source", home / "space"
    for directory in (
        "base/5", "global", f"pg_tblspc/16500/{VERSIONED}/5", "pg_wal/archive_status", "pg_replslot", "pg_xact", "empty"
    ):  # fmt: skip
        (source / directory).mkdir(parents=True)
    (space / VERSIONED / "5").mkdir(parents=True)
    (source / "pg_tblspc/16400").symlink_to(space)
    files = {
        BIG: _pages(600, 1), "base/5/16384.1": _pages(17, 2), "base/5/16385": b"", "base/5/PG_VERSION": b"15\n",
        SPACE: _pages(90, 3), f"pg_tblspc/16500/{VERSIONED}/5/16501": _pages(5, 4), "pg_xact/0000": os.urandom(262144),
        "global/pg_control": os.urandom(8192), "postgresql.auto.conf": b"# by hand\n", "PG_VERSION": b"15\n",
    }  # fmt: skip
    files |= {f"base/5/{20000 + number}": _pages(2, number) for number in range(40)}
    for path, content in files.items():
        (source / path).write_bytes(content)
    for each in (source, *source.rglob("*"), space, *space.rglob("*")):
        if not each.is_symlink():
            each.chmod(0o700 if each.is_dir() else 0o600)
    cluster = new_cluster(home / "repository")
    DirectoryBackup(cluster, source, pack_target=1 << 20).write()
    fresh = home / "fresh" / "data"
    restored(cluster, fresh)
    return cluster, fresh


def _pages(count: int, seed: int) -> bytes:
    heads = (((seed << 32) + block).to_bytes(8, "little") * 512 for block in range(count))
    return b"".join(head + os.urandom(PAGE // 2) for head in heads)


def destination_of(target: Path) -> Destination:
    return Destination(str(target), {16400: f"{target}-space"})


def restored(cluster: Cluster, target: Path, kind: type[Job] = Job) -> int:
    manifest = read_manifest(cluster, BackupId(BACKUP))
    return materialise(cluster, manifest, destination_of(target), OVERLAYS, announce=silent, kind=kind)


@pytest.fixture
def copy(made: tuple[Cluster, Path], tmp_path: Path) -> Path:
    """A directory of the test's own that is right: only a damage makes it differ."""
    target = tmp_path / "data"
    subprocess.run(["cp", "-a", made[1], target], check=True)
    subprocess.run(["cp", "-a", f"{made[1]}-space", f"{target}-space"], check=True)
    (target / "pg_tblspc/16400").unlink()
    (target / "pg_tblspc/16400").symlink_to(f"{target}-space")
    return target


def _flip(path: Path, *places: int) -> None:
    with path.open("r+b") as file:
        for at in places:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 0x10]))


def _truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    (path / "deep" / "er").mkdir(parents=True)
    (path / "deep" / "file").write_text("x")


def _replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _chmod(**modes: int) -> Damage:
    """Gives paths (with _ for /) other permission bits."""

    def damage(data: Path, _out: Path) -> None:
        for name, mode in modes.items():
            (data / name.replace("_", "/")).chmod(mode)

    return damage


def _empty(data: Path) -> None:
    for path in data.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _replace_by_link(path: Path, outside: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(outside)


def _hard_link(path: Path, outside: Path) -> None:
    """Another name, outside, of a file that then becomes wrong."""
    os.link(path, outside / "hard")
    _flip(path, 5)


def _foreign_wal(data: Path) -> None:
    for name in ("000000020000000000000007", "00000002.history", "archive_status/00000002.history.done"):
        (data / "pg_wal" / name).write_bytes(os.urandom(1000))
    (data / "pg_replslot/slot").mkdir()
    (data / "pg_replslot/slot/state").write_bytes(b"x")


def _half_restored(data: Path) -> None:
    (data / "global/pg_control").unlink()
    (data / "backup_label").unlink()
    (data / os.fsdecode(UNFINISHED)).write_bytes(b"")
    shutil.rmtree(data / "base")
    _truncate(data.with_name("data-space") / f"{VERSIONED}/5/16401", 3 * PAGE)


def _swapped_pages(path: Path) -> None:
    """Each page is sound, but two have changed places."""
    content = path.read_bytes()
    path.write_bytes(content[PAGE : 2 * PAGE] + content[:PAGE] + content[2 * PAGE :])


def _state_of_a_server(data: Path) -> None:
    for name in ("postmaster.opts", "backup_label.old", "standby.signal", "pgkeep.instance", "base/5/pg_internal.init"):
        (data / name).write_text("x")
    (data / "log").mkdir()
    (data / "log/postgresql.log").write_text("x")


DAMAGES: dict[str, Damage] = {
    "none": lambda data, out: None,
    "a file deleted": lambda data, out: (data / BIG).unlink(),
    "a directory deleted": lambda data, out: shutil.rmtree(data / "base"),
    "an empty directory deleted": lambda data, out: (data / "empty").rmdir(),
    "truncated within a page": lambda data, out: _truncate(data / BIG, 100 * PAGE + 77),
    "truncated to nothing": lambda data, out: _truncate(data / SMALL, 0),
    "lengthened": lambda data, out: _append(data / BIG, os.urandom(3 * PAGE + 1)),
    "an empty file filled": lambda data, out: _append(data / "base/5/16385", b"x" * PAGE),
    "bits flipped": lambda data, out: _flip(data / BIG, 0, 7 * PAGE + 9, 8 * PAGE - 1, 600 * PAGE - 1),
    "bits flipped in bytes": lambda data, out: _flip(data / "pg_xact/0000", 0, 262143),
    "pages swapped": lambda data, out: _swapped_pages(data / BIG),
    "zeros": lambda data, out: (data / BIG).write_bytes(bytes(600 * PAGE)),
    "another content": lambda data, out: (data / SMALL).write_bytes(_pages(2, 99)),
    "extra segments": lambda data, out: [(data / f"{BIG}.{n}").write_bytes(_pages(1, n)) for n in (1, 2, 3)],
    "foreign files": lambda data, out: [(data / name).write_text("x") for name in ("note", "base/5/16999", "base/x.y")],
    "a foreign database": lambda data, out: shutil.copytree(data / "base/5", data / "base/16777"),
    "a directory for a file": lambda data, out: _replace_by_directory(data / BIG),
    "a file for a directory": lambda data, out: _replace_by_file(data / "base/5"),
    "a link for a file": lambda data, out: _replace_by_link(data / BIG, out / "precious"),
    "a link for a directory": lambda data, out: _replace_by_link(data / "base/5", out),
    "a link for global": lambda data, out: _replace_by_link(data / "global", out),
    "a link for pg_wal": lambda data, out: _replace_by_link(data / "pg_wal", out),
    "a link for a configuration file": lambda data, out: _replace_by_link(
        data / "postgresql.auto.conf", out / "precious"
    ),
    "a dangling link for backup_label": lambda data, out: _replace_by_link(data / "backup_label", out / "absent"),
    "a pipe for a file": lambda data, out: _replace_by_pipe(data / SMALL),
    "hard links to outside": lambda data, out: _hard_link(data / BIG, out),
    "another branch's WAL": lambda data, out: _foreign_wal(data),
    "wrong modes": _chmod(base_5_16384=0, base_5_20001=0o666, base=0o555),
    "directories without rights": _chmod(**{"global": 0, "base_5": 0}),
    "half restored": lambda data, out: _half_restored(data),
    "no pg_control": lambda data, out: (data / "global/pg_control").unlink(),
    "state of a server": lambda data, out: _state_of_a_server(data),
    "a tablespace's file": lambda data, out: _flip(Path(f"{data}-space/{VERSIONED}/5/16401"), 5, 80 * PAGE),
    "a tablespace's foreign files": lambda data, out: [
        Path(f"{data}-space/{VERSIONED}/5/{n}").write_bytes(_pages(1, 1)) for n in ("16401.1", "17000")
    ],
    "a tablespace deleted": lambda data, out: shutil.rmtree(f"{data}-space"),
    "a tablespace's link deleted": lambda data, out: (data / "pg_tblspc/16400").unlink(),
    "a tablespace's link led elsewhere": lambda data, out: _replace_by_link(data / "pg_tblspc/16400", out),
    "a link within a tablespace": lambda data, out: _replace_by_link(Path(f"{data}-space/{VERSIONED}/5"), out),
    "an in-place tablespace lost": lambda data, out: shutil.rmtree(data / "pg_tblspc/16500"),
    "pg_tblspc a link": lambda data, out: _replace_by_link(data / "pg_tblspc", out),
    "nothing left": lambda data, out: _empty(data),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_delta_makes_what_a_fresh_restore_makes(
    made: tuple[Cluster, Path], copy: Path, tmp_path: Path, damage: Damage
) -> None:
    cluster, fresh = made
    outside = tmp_path / "outside"
    (outside / "5").mkdir(parents=True)
    (outside / "precious").write_text("mine")
    (outside / "pg_control").write_text("mine")
    damage(copy, outside)
    before = _contents(outside)
    restored(cluster, copy, DeltaJob)
    _check(fresh, copy)
    assert _contents(outside) == before, "something outside of the target was touched"


def _check(fresh: Path, copy: Path) -> None:
    assert same_tree(fresh, copy, frozenset({"tablespace_map"})) == []
    assert (copy / "pg_tblspc/16400").readlink() == Path(f"{copy}-space")
    assert (copy / "tablespace_map").read_text() == f"16400 {copy}-space\n"
    assert not any(path.stat().st_nlink > 1 for path in copy.rglob("*") if path.is_file())


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))}


def test_only_wrong_pages_are_written(made: tuple[Cluster, Path], copy: Path) -> None:
    cluster, _ = made
    _flip(copy / BIG, 3 * PAGE, 500 * PAGE)
    inode = (copy / BIG).stat().st_ino
    untouched = (copy / SMALL).stat().st_mtime_ns
    assert restored(cluster, copy, DeltaJob) == 2 * PAGE
    assert (copy / BIG).stat().st_ino == inode
    assert (copy / SMALL).stat().st_mtime_ns == untouched
    assert restored(cluster, copy, DeltaJob) == 0


def test_other_names_in_a_tablespace_stay(made: tuple[Cluster, Path], copy: Path) -> None:
    """Another server's directory (pg_upgrade leaves two) and what a file system keeps at its top."""
    other = Path(f"{copy}-space") / "PG_14_202107181" / "5"
    other.mkdir(parents=True)
    (other / "16401").write_bytes(b"mine")
    (copy / "lost+found").mkdir()
    restored(made[0], copy, DeltaJob)
    assert (other / "16401").read_bytes() == b"mine"
    assert (copy / "lost+found").is_dir()


def test_what_would_be_done_is_counted_and_not_done(made: tuple[Cluster, Path], copy: Path, tmp_path: Path) -> None:
    cluster, _ = made
    manifest = read_manifest(cluster, BackupId(BACKUP))
    (copy / BIG).unlink()
    (copy / "base/5/17777").write_bytes(b"x" * 100)
    (copy / "base/16777").mkdir()
    (copy / "base/16777/1").write_bytes(b"x" * 50)
    _foreign_wal(copy)
    before = _contents(copy)
    found = look(manifest, destination_of(copy), OVERLAYS)
    assert _contents(copy) == before
    # the overlays, backup_label and tablespace_map are written anew
    assert found.removed_paths == ("backup_label", "base/16777/1", "base/5/17777")
    assert (found.missing, found.missing_bytes) == (1, 600 * PAGE)
    assert found.compared == sum(1 for _ in _files(made[1])) - 1 - 5
    nothing = look(manifest, destination_of(tmp_path / "absent"), OVERLAYS)
    assert (nothing.removed, nothing.compared) == (0, 0)
    assert isinstance(nothing, Differences) and nothing.missing == found.missing + found.compared


def _files(root: Path) -> list[Path]:
    return [Path(parent) / name for parent, _, names in os.walk(root, followlinks=True) for name in names]


def test_progress_counts_what_was_compared(made: tuple[Cluster, Path], copy: Path) -> None:
    cluster, _ = made
    seen: list[Event] = []
    manifest = read_manifest(cluster, BackupId(BACKUP))
    materialise(cluster, manifest, destination_of(copy), OVERLAYS, announce=seen.append, kind=DeltaJob)
    steps = [event for event in seen if isinstance(event, Progress)]
    assert steps[-1].done == steps[-1].total > 0
    assert steps[-1].stored == 0


def test_scattered_pages(made: tuple[Cluster, Path], tmp_path: Path) -> None:
    """Every page is an extent of its own, in shuffled order, over many packs."""
    source = tmp_path / "source"
    (source / "base/5").mkdir(parents=True)
    (source / "global").mkdir()
    (source / "base/5/16384").write_bytes(_pages(300, 1))
    (source / "global/pg_control").write_bytes(os.urandom(296))
    for path in source.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    cluster = new_cluster(tmp_path / "repository")
    DirectoryBackup(cluster, source, pack_target=256 << 10, scatter=1).write()
    target = tmp_path / "data"
    shutil.copytree(source, target)
    _flip(target / "base/5/16384", *(page * PAGE for page in range(0, 300, 7)))
    manifest = read_manifest(cluster, BackupId(BACKUP))
    written = materialise(cluster, manifest, Destination(str(target), {}), announce=silent, kind=DeltaJob)
    assert written == len(range(0, 300, 7)) * PAGE
    assert same_tree(source, target, frozenset({"backup_label"})) == []


def test_killed_in_the_middle_and_again(made: tuple[Cluster, Path], copy: Path) -> None:
    """Whenever it dies, no server could start there, and the next delta ends where a fresh restore does."""
    cluster, fresh = made
    shutil.rmtree(copy / "base")
    _flip(Path(f"{copy}-space/{VERSIONED}/5/16401"), 5)
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        process = _in_background(cluster, copy)
        deadline = time.monotonic() + 20
        while not (copy / os.fsdecode(UNFINISHED)).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (copy / os.fsdecode(UNFINISHED)).exists() and is_unfinished(str(copy)):
            assert read_mark(str(copy)) == Mark(cluster.repository.id, cluster.uuid, SYSTEM)
    restored(cluster, copy, DeltaJob)
    _check(fresh, copy)


def _in_background(cluster: Cluster, target: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path\n"
        "from pgkeep.repo.repository import cluster_named, open_repository\n"
        "from pgkeep.restore.delta import DeltaJob\n"
        "from pgkeep.store.open import open_store\n"
        "from tests.restore.test_delta import restored\n"
        "if __name__ == '__main__':\n"
        "    cluster = cluster_named(open_repository(open_store(sys.argv[1])), 'main')\n"
        "    restored(cluster, Path(sys.argv[2]), DeltaJob)\n"
    )
    url = cluster.repository.store.url
    home = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, url, str(target)], cwd=home, start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{home}/src:{home}"},
    )  # fmt: skip


def test_a_damaged_pack_leaves_an_unfinished_copy(made: tuple[Cluster, Path], copy: Path, tmp_path: Path) -> None:
    cluster, _ = made
    repository = tmp_path / "repository"
    subprocess.run(["cp", "-a", cluster.repository.store.url.removeprefix("file://"), repository], check=True)
    _flip(copy / BIG, 5)
    damaged = cluster_named(open_repository(open_store(f"file://{repository}")), "main")
    for pack in (repository / str(cluster.uuid) / "packs").iterdir():
        pack.chmod(0o600)
        _flip(pack, 600, 2000)
    with pytest.raises(Fault) as caught:
        restored(damaged, copy, DeltaJob)
    assert caught.value.code == "format-damaged"
    assert is_unfinished(str(copy))


def test_runs_of_a_mask() -> None:
    assert list(runs(np.array([1, 1, 0, 1, 0, 0, 1], bool))) == [(0, 2), (3, 1), (6, 1)]
    assert list(runs(np.zeros(3, bool))) == []


def test_rows_are_cut_into_parts_of_one_size() -> None:
    rows = np.zeros(3, ROW)
    rows["unit"], rows["count"], rows["ordinal"] = [1, 1, 0], [10, 3, 9000], [5, 50, 7]
    parts = list(parts_of(rows, PAGE, 4 * PAGE))
    assert [[int(c) for c in part["count"]] for part in parts] == [[4], [4], [2, 2], [1, 9000]]
    assert [int(o) for o in np.concatenate(parts)["ordinal"]] == [5, 9, 13, 50, 52, 7]
    assert [int(s) for s in np.concatenate(parts)["start"]] == [0, 4, 8, 0, 2, 0]
