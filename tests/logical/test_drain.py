"""A directory is emptied while it is filled, by programs of the test's own that can tell."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.logical.closed import ClosedFiles
from pgkeep.logical.drain import Begin, drain, open_files
from pgkeep.logical.plan import ScratchPlan
from pgkeep.logical.room import file_system, room_in
from pgkeep.logical.watchdog import start_time
from pgkeep.pg.child import Child
from tests import requirements

WAIT_FOR = 'until [ ! -e "$1/{0}" ]; do sleep 0.01; done'


def shell(script: str, directory: Path) -> Child:
    return Child(["/bin/sh", "-euc", script, "sh", str(directory)])


def drained(script: str, directory: Path, begin: Begin) -> None:
    """What the script writes goes into what `begin` makes; the script's Fault."""
    with ClosedFiles(str(directory)) as closed, shell(script, directory) as child:
        drain(child, closed, str(directory), ScratchPlan(str(directory), room_in(str(directory)), 0), begin)


class Taken:
    """Takes files as the repository would."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.begun: set[str] = set()

    def __call__(self, name: str) -> Member:
        assert name not in self.begun
        self.begun.add(name)
        return Member(self, name)


@dataclass
class Member:
    taken: Taken
    name: str
    size: int = 0

    def write(self, data: memoryview) -> None:
        self.size += len(data)

    def close(self) -> None:
        self.taken.files[self.name] = self.size


def run(script: str, directory: Path) -> Taken:
    taken = Taken()
    drained(script, directory, taken)
    assert taken.begun == set(taken.files)
    return taken


def test_a_file_goes_as_soon_as_it_is_closed(tmp_path: Path) -> None:
    """The program ends only when the first file was taken while it ran."""
    script = (
        f'echo one > "$1/1.dat"; {WAIT_FOR.format("1.dat")}; exec 3> "$1/2.dat"; echo two >&3; echo 3 > "$1/toc.dat"'
    )
    taken = run(script, tmp_path)
    assert taken.files == {"1.dat": 4, "2.dat": 4, "toc.dat": 2}
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_fails_is_a_fault_whatever_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="sh exited 7: no more") as caught:
        run('echo one > "$1/1.dat"; echo no more >&2; exit 7', tmp_path)
    assert caught.value.code == "postgres-program"


def test_a_store_that_fails_ends_the_program(tmp_path: Path) -> None:
    def refuse(name: str) -> Member:
        raise Fault("store-full", f"no room for {name}")

    with pytest.raises(Fault, match=r"no room for \d+"):
        drained('echo one > "$1/$$"; sleep 600', tmp_path, refuse)
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    assert start_time(pid) is None


@contextmanager
def small_memory(path: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size."""
    requirements.need_root()
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], capture_output=True
    )
    if mounted.returncode:
        requirements.need("full-disk", mounted.stderr.decode())
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_more_than_fits_passes_through_when_every_file_fits(tmp_path: Path) -> None:
    """40 MB through 8 MB: the program is paused whenever it is ahead."""
    script = 'for i in $(seq 20); do head -c 2097152 /dev/zero > "$1/$i.dat"; sleep 0.03; done'
    with small_memory(tmp_path / "small", "8m") as small:
        taken = run(script, small)
        assert list(small.iterdir()) == []
    assert taken.files == {f"{number}.dat": 2 << 20 for number in range(1, 21)}


def test_one_file_that_is_larger_than_the_room_passes_through_while_it_grows(tmp_path: Path) -> None:
    script = 'exec 3> "$1/big.dat"; for i in $(seq 100); do head -c 1048576 /dev/zero >&3; sleep 0.01; done'
    with small_memory(tmp_path / "small", "16m") as small:
        taken = run(script, small)
        assert list(small.iterdir()) == []
    assert taken.files == {"big.dat": 100 << 20}


def test_without_holes_it_ends_the_dump_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written slowly, so that it is noticed before the program meets the end of the file system."""
    monkeypatch.setattr("pgkeep.logical.drain._fallocate", None)
    script = 'exec 3> "$1/$$"; while :; do head -c 65536 /dev/zero >&3; sleep 0.01; done'
    with small_memory(tmp_path / "small", "8m") as small:
        with pytest.raises(Fault, match="cannot be given back before its end") as caught:
            run(script, small)
        (big,) = small.iterdir()
        assert start_time(int(big.name)) is None and big.stat().st_size < 8 << 20
    assert caught.value.code == "target-space" and "--format custom" in caught.value.hint


def test_what_the_kernel_did_not_tell_is_found_when_room_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClosedFiles, "_watch", staticmethod(lambda _directory: -1))
    several = 'for i in $(seq 10); do head -c 2097152 /dev/zero > "$1/$i.dat"; sleep 0.03; done'
    script = f'exec 3> "$1/open.dat"; {several}; echo x >&3'
    with small_memory(tmp_path / "small", "8m") as small:
        taken = run(script, small)
    assert len(taken.files) == 11 and taken.files["open.dat"] == 2


def test_files_that_a_group_holds_open(tmp_path: Path) -> None:
    script = 'exec 3> "$1/open.dat"; echo x > "$1/closed.dat"; sleep 600'
    with ClosedFiles(str(tmp_path)) as closed, shell(script, tmp_path) as child:
        while closed.wait(10) != ["closed.dat"]:
            assert not child.has_ended()
        assert open_files(child.pid, str(tmp_path)) == {"open.dat"}


def test_room_on_disk_and_in_memory(tmp_path: Path) -> None:
    assert file_system("/dev/shm") == "tmpfs" and room_in("/dev/shm").in_memory
    assert file_system("/proc") == "proc"
    with small_memory(tmp_path / "small", "4m") as small:
        room = room_in(str(small))
        assert room.in_memory and room.free <= 4 << 20 and room.reserve == room.free // 8
        (small / "x").write_bytes(bytes(2 << 20))
        assert room_in(str(small)).free <= 2 << 20
