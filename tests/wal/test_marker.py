"""Markers "already archived": trusted only while nothing that they rest on can have changed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.wal.waiting import ENVIRONMENT, OPTIONS, Waiting, make_waiting
from tests.walfiles import Failover, new_archive

from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.store.local import LocalStore
from pgkeep.wal import marker
from pgkeep.wal.ahead import Limits, _lock
from pgkeep.wal.token import FILE_NAME, instance_token

ALONE = Limits(0, 1.0, 1)


@pytest.fixture
def waiting(failover: Failover, tmp_path: Path) -> Waiting:
    """One segment is archived and marked, the others wait."""
    made = make_waiting(failover, tmp_path)
    instance_token(made.datadir)
    made.serve(made.names[0], ALONE)
    assert made.marked() == made.names[:1]
    return made


def rewritten(path: Path) -> None:
    """Other bytes of the same length, and the old times."""
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """A copy in the place of the original: what `cp -a` of a whole directory brings."""
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def rebooted(waiting: Waiting) -> None:
    marked = Path(marker.path_of(waiting.path(waiting.names[0])))
    known = marker.read(waiting.path(waiting.names[0]))
    assert known is not None
    known.boot = "00000000-0000-0000-0000-000000000000"
    marked.unlink()
    marker.write(waiting.path(waiting.names[0]), known)


def repository_made_anew(waiting: Waiting) -> None:
    shutil.rmtree(waiting.repository)
    new_archive(LocalStore.create(waiting.repository), read_control(waiting.datadir / CONTROL_FILE))
    waiting.archiver().archive(waiting.path(waiting.names[1]))


CHANGES: dict[str, Callable[[Waiting], object]] = {
    "the segment was rewritten": lambda w: rewritten(Path(w.path(w.names[0]))),
    "the segment was copied": lambda w: replaced(Path(w.path(w.names[0]))),
    "the segment is another one": lambda w: os.replace(w.path(w.names[1]), w.path(w.names[0])),
    "the segment is gone": lambda w: os.unlink(w.path(w.names[0])),
    "the machine was booted anew": rebooted,
    "the token was copied": lambda w: replaced(w.datadir / FILE_NAME),
    "the token is gone": lambda w: (w.datadir / FILE_NAME).unlink(),
    "the configuration was rewritten": lambda w: rewritten(w.config),
    "the configuration was replaced": lambda w: replaced(w.config),
    "the configuration is gone": lambda w: w.config.unlink(),
    "the repository is away": lambda w: w.repository.rename(w.repository.with_name("away")),
    "the repository was made anew": repository_made_anew,
    "the repository was copied back": lambda w: replaced(w.repository / "pgkeep"),
    "the object is gone": lambda w: next(w.repository.rglob(w.names[0])).unlink(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_it_rests_on(waiting: Waiting, what: str) -> None:
    CHANGES[what](waiting)
    assert not waiting.is_archived(waiting.names[0])


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({**OPTIONS, "--repo": "other"}, ENVIRONMENT),
        ({"--config": "./pgkeep.toml"}, ENVIRONMENT),
        ({}, ENVIRONMENT),
        (OPTIONS, {**ENVIRONMENT, "PGKEEP_REPOSITORY_URL": "/elsewhere"}),
        (OPTIONS, {"HOME": "/home/other"}),
    ],
)
def test_another_call_is_not_answered(waiting: Waiting, options: dict[str, str], environment: dict[str, str]) -> None:
    assert not waiting.is_archived(waiting.names[0], options, environment)


def test_variables_of_others_do_not_matter(waiting: Waiting) -> None:
    assert waiting.is_archived(waiting.names[0], environment={**ENVIRONMENT, "LANG": "C", "PGDATA": "/x"})


def test_another_working_directory(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(waiting.repository)
    assert not waiting.is_archived(waiting.names[0])


def test_a_nearer_configuration_that_appears(waiting: Waiting, tmp_path: Path) -> None:
    nearer = tmp_path / "nearer.toml"
    waiting.archiver(terms=waiting.terms((str(nearer),))).archive(waiting.path(waiting.names[1]))
    assert waiting.is_archived(waiting.names[1])
    nearer.touch()
    assert not waiting.is_archived(waiting.names[1])


def test_a_copied_data_directory_trusts_none(waiting: Waiting, tmp_path: Path) -> None:
    """Rolled back by copying, or a clone: also in the place of the original."""
    saved = tmp_path / "saved"
    subprocess.run(["cp", "-a", waiting.datadir, saved], check=True)
    clone = Waiting(saved, waiting.repository, waiting.config, waiting.names)
    assert clone.marked() == [] and waiting.marked() != []
    waiting.datadir.rename(tmp_path / "moved away")
    saved.rename(waiting.datadir)
    assert waiting.marked() == []


def test_a_copy_onto_the_directory_in_place_trusts_none(waiting: Waiting, tmp_path: Path) -> None:
    """rsync --inplace keeps inodes and sets the old times; ctime cannot be set."""
    saved = tmp_path / "saved"
    subprocess.run(["cp", "-a", waiting.datadir, saved], check=True)
    for source in saved.rglob("*"):
        if source.is_file():
            target = waiting.datadir / source.relative_to(saved)
            found = source.stat()
            target.write_bytes(source.read_bytes())
            os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert waiting.marked() == []


def test_no_bit_of_a_marker_can_change_unnoticed(waiting: Waiting) -> None:
    path = Path(marker.path_of(waiting.path(waiting.names[0])))
    content = path.read_bytes()
    for length in random.sample(range(len(content)), 40):
        path.write_bytes(content[:length])
        assert marker.read(waiting.path(waiting.names[0])) is None
    for _ in range(40):
        bit = random.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert marker.read(waiting.path(waiting.names[0])) is None
    path.write_bytes(content)
    assert waiting.is_archived(waiting.names[0])


def test_a_path_with_a_lines_end_gets_no_marker(waiting: Waiting, tmp_path: Path) -> None:
    odd = waiting.terms((f"{tmp_path}/two\nlines",))
    waiting.archiver(terms=odd).archive(waiting.path(waiting.names[1]))
    assert not os.path.exists(marker.path_of(waiting.path(waiting.names[1])))


def test_what_is_stale_is_removed(waiting: Waiting) -> None:
    first, second, third = waiting.names[:3]
    for name in (second, third):
        waiting.serve(name, ALONE)
    assert len(waiting.marked()) == 3
    waiting.done(first)
    os.unlink(waiting.path(second))
    (waiting.markers / f"{third}.{2**22 + 1}").touch()  # of a process that was killed while it wrote
    alive = waiting.markers / f"{third}.{os.getpid()}"
    alive.touch()
    marker.remove_stale(str(waiting.folder))
    assert sorted(path.name for path in waiting.markers.iterdir()) == [third, alive.name]


def test_nobody_waits_for_a_file_that_is_not_worked_on(waiting: Waiting) -> None:
    second, third = waiting.names[1:3]
    lock = _lock(str(waiting.folder))
    assert lock is not None
    os.unlink(waiting.folder / "archive_status" / f"{third}.ready")
    began = time.monotonic()
    assert not marker.await_archived(waiting.path(third), OPTIONS, ENVIRONMENT)  # nobody was told to archive it
    assert time.monotonic() - began < 1
    threading.Timer(0.3, os.close, [lock]).start()
    assert not marker.await_archived(waiting.path(second), OPTIONS, ENVIRONMENT)  # whoever was to do it has gone
    assert 0.25 < time.monotonic() - began < 30


def test_a_call_waits_for_who_is_at_it(waiting: Waiting) -> None:
    name = waiting.names[1]
    lock = _lock(str(waiting.folder))
    assert lock is not None
    threading.Timer(0.3, waiting.archiver().archive, [waiting.path(name)]).start()
    assert marker.await_archived(waiting.path(name), OPTIONS, ENVIRONMENT)
    os.close(lock)


def test_no_marker_outside_pg_wal(waiting: Waiting, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(waiting.path(waiting.names[1]), elsewhere)
    waiting.archiver().serve(str(elsewhere / waiting.names[1]), lambda _: Limits(9, 9.0, 1))
    assert os.listdir(elsewhere) == [waiting.names[1]]


def test_the_answer_needs_only_modules_that_an_interpreter_has_loaded(waiting: Waiting) -> None:
    """No TOML, no third package, not even typing."""
    probe = (
        "import __future__, os, sys; before = set(sys.modules); from pgkeep.cli import fast;"
        "status = fast.serve(fast.parse(sys.argv[1:])); print(status, sorted(set(sys.modules) - before))"
    )
    assert waiting.run("-m", "pgkeep").returncode == 0  # which leaves the marker of a call like that
    waiting.wait_idle()
    ran = waiting.run("-SPc", probe)
    ours = ["pgkeep", "pgkeep.cli", "pgkeep.cli.fast", "pgkeep.wal", "pgkeep.wal.marker"]
    assert ran.stdout == f"0 {sorted(['binascii', *ours])}\n", ran.stderr
