"""The instance token: minted once, its own in every copy, agreed upon by racing processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.wal.token import FILE_NAME, TOKEN_LENGTH, instance_token


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


def copy_of(datadir: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", datadir, target], check=True)
    return target


def test_it_stays(datadir: Path) -> None:
    token = instance_token(datadir)
    assert len(token) == TOKEN_LENGTH
    assert instance_token(datadir) == token
    assert [path.name for path in datadir.iterdir()] == [FILE_NAME]
    assert (datadir / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_it_stays_when_the_data_directory_is_moved(datadir: Path, tmp_path: Path) -> None:
    token = instance_token(datadir)
    assert instance_token(datadir.rename(tmp_path / "elsewhere")) == token


def test_a_copy_is_another_instance(datadir: Path, tmp_path: Path) -> None:
    token = instance_token(datadir)
    clone = copy_of(datadir, tmp_path / "clone")
    other = instance_token(clone)
    assert other != token
    assert (instance_token(clone), instance_token(datadir)) == (other, token)


@pytest.mark.parametrize("text", [b"", b"x", b"pgkeep-instance-1 00 1 0\n", bytes(300)])
def test_a_damaged_file_is_said_and_kept(datadir: Path, text: bytes) -> None:
    (datadir / FILE_NAME).write_bytes(text)
    with pytest.raises(Fault, match="damaged") as caught:
        instance_token(datadir)
    assert caught.value.code == "datadir-invalid"
    assert (datadir / FILE_NAME).read_bytes() == text


def test_every_flipped_bit_is_noticed(datadir: Path) -> None:
    instance_token(datadir)
    path = datadir / FILE_NAME
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        with path.open("r+b") as file:
            file.write(bad)
        with pytest.raises(Fault):
            instance_token(datadir)


def test_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        instance_token(tmp_path / "absent")
    assert caught.value.code == "io"


def test_made_by_root_it_belongs_to_the_servers_account(datadir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("does not apply to an ordinary user")
    os.chown(datadir, 65534, 65534)
    instance_token(datadir)
    assert (datadir / FILE_NAME).stat().st_uid == 65534


def _mint(datadir: str, barrier: object, answers: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    answers.put(instance_token(datadir))  # type: ignore[attr-defined]


@pytest.mark.parametrize("stale", [False, True], ids=["absent", "copied"])
def test_racing_processes_agree(datadir: Path, tmp_path: Path, stale: bool) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(15):
        target = tmp_path / f"run{attempt}"
        target.mkdir()
        if stale:
            instance_token(datadir)
            copy_of(datadir / FILE_NAME, target / FILE_NAME)
        barrier, answers = context.Barrier(4), context.Queue()
        workers = [context.Process(target=_mint, args=(str(target), barrier, answers)) for _ in range(4)]
        for worker in workers:
            worker.start()
        tokens = {answers.get(timeout=30) for _ in workers}
        for worker in workers:
            worker.join()
        assert tokens == {instance_token(target)}
