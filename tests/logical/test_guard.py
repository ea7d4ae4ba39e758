"""kill -9 of pgkeep: programs end, and what they wrote goes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pgkeep.errors import Fault
from pgkeep.logical.guard import Guard
from pgkeep.logical.scratch import PREFIX, locked_directory, remove_leftovers, scratch_directory
from pgkeep.logical.watchdog import start_time
from pgkeep.pg.child import Child

VICTIM = """
import os, signal, sys
from pgkeep.logical.guard import Guard
from pgkeep.logical.scratch import scratch_directory
from pgkeep.pg.child import Child

parent, stubborn = sys.argv[1:]
script = 'trap "" TERM; ' if stubborn == "stubborn" else ""
with Guard() as guard, scratch_directory(parent, guard) as directory:
    command = ["/bin/sh", "-c", script + 'while :; do echo x > "$0/$$.$(date +%N)"; sleep 0.05; done', directory]
    with Child(command) as child:
        guard.watch(child)
        while not os.listdir(directory):
            pass
        if stubborn == "paused":
            child.pause()
        print(child.pid, directory, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 s")


def killed(tmp_path: Path, how: str) -> tuple[int, Path]:
    """The program and directory of a process that died by kill -9 in the middle of its work."""
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, str(tmp_path), how], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -9, done.stderr
    pid, directory = done.stdout.split()
    return int(pid), Path(directory)


def test_a_killed_dump_leaves_no_program_and_no_file(tmp_path: Path) -> None:
    for how in ("plain", "paused", "stubborn"):
        pid, directory = killed(tmp_path, how)
        until(lambda pid=pid: start_time(pid) is None)  # type: ignore[misc]
        until(lambda directory=directory: not directory.exists())  # type: ignore[misc]


def test_who_leaves_in_order_calls_the_watchdog_off(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with Guard() as guard, Child(["/bin/sleep", "600"]) as child:
        guard.watch(child)
        guard.remove(str(kept))
        kept.mkdir()
        guard.__exit__(None, None, None)
        assert not child.has_ended() and kept.exists()


def test_a_dump_does_not_go_on_without_its_watchdog(tmp_path: Path) -> None:
    with Guard() as guard:
        os.kill(guard.pid, 9)
        until(lambda: start_time(guard.pid) is None)
        try:
            with locked_directory(str(tmp_path / "d"), guard):
                raise AssertionError("it went on")
        except Fault as fault:
            assert fault.code == "worker-died"
    assert not (tmp_path / "d").exists()


def test_leftovers_are_told_by_their_lock(tmp_path: Path) -> None:
    dead, alive, other = tmp_path / f"{PREFIX}dead", tmp_path / f"{PREFIX}alive", tmp_path / "other"
    for one in (dead, alive, other):
        one.mkdir()
        (one / "1.dat").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    (tmp_path / f"{PREFIX}file").touch()
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert remove_leftovers(str(tmp_path)) == (str(dead),)
    assert (alive / "1.dat").exists() and (other / "1.dat").exists()
    os.close(lock)
    assert remove_leftovers(str(tmp_path)) == (str(alive),)
    assert remove_leftovers(str(tmp_path / "absent")) == ()


def test_a_scratch_directory_is_private_and_goes_at_the_end(tmp_path: Path) -> None:
    with Guard() as guard, scratch_directory(str(tmp_path), guard) as directory:
        assert os.stat(directory).st_mode & 0o777 == 0o700
        assert remove_leftovers(str(tmp_path)) == ()
        (Path(directory) / "1.dat").touch()
    assert list(tmp_path.iterdir()) == []
    try:
        with Guard() as guard, scratch_directory(str(tmp_path / "absent"), guard):
            raise AssertionError("there is none")
    except Fault as fault:
        assert fault.code == "io" and fault.hint
