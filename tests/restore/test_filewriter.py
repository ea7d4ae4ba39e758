"""FileWriter: what is written in pieces, in any order, by a thread, arrives; what fails is told."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from pgkeep.errors import Damaged, Fault
from pgkeep.restore.filewriter import FILES_OPEN, HEADROOM, STRETCH_SIZE, WRITE_SIZE, FileWriter, stretch_size
from pgkeep.restore.layout import TargetFile
from pgkeep.restore.tree import Tree

SIZES = (1, 8192, 300_000, WRITE_SIZE, 3 * WRITE_SIZE + 8192, 2 * WRITE_SIZE + 4097)


def writer_at(path: Path) -> FileWriter:
    return FileWriter([Tree(os.path.realpath(path))])


def target(name: str, size: int) -> TargetFile:
    return TargetFile(0, name.encode(), size, 0o600)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece", [4096, 8192, 128 << 10, 5000, 3 << 20])
def test_pieces_in_order(tmp_path: Path, size: int, piece: int) -> None:
    data = os.urandom(size)
    writer = writer_at(tmp_path)
    for at in range(0, size, piece):
        writer.write(0, target("file", size), at, memoryview(data)[at : at + piece])
    writer.drain()
    assert (tmp_path / "file").read_bytes() == data
    assert writer.taken() == size
    assert writer.taken() == 0
    writer.close()


def test_many_files_in_scattered_pieces(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """More files than stay open; buffers are used again while earlier ones are still being written."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    draw = random.Random(seed)
    contents = {n: draw.randbytes(draw.randrange(1, 700_000)) for n in range(FILES_OPEN + 20)}
    pieces = []
    for number, data in contents.items():
        at = 0
        while at < len(data):
            length = draw.choice([100, 8192, 65536, 200_000])
            pieces.append((number, at, data[at : at + length]))
            at += length
    blocks = [pieces[at : at + 3] for at in range(0, len(pieces), 3)]
    draw.shuffle(blocks)
    writer = writer_at(tmp_path)
    for number, at, data in (piece for block in blocks for piece in block):
        writer.write(number, target(str(number), len(contents[number])), at, memoryview(data))
    writer.close()
    for number, data in contents.items():
        assert (tmp_path / str(number)).read_bytes() == data


@pytest.mark.parametrize("first", [0, 1, 8192, 70_000, WRITE_SIZE])
def test_what_is_put_into_its_room_arrives_among_the_rest(tmp_path: Path, first: int) -> None:
    """In turn with pieces that are copied; the headroom's bytes are those of what came before."""
    size = 128 << 10
    data = os.urandom(first + 40 * size + 5000)
    writer = writer_at(tmp_path)
    file = target("file", len(data))
    writer.write(0, file, 0, memoryview(data)[:first])
    rooms = 0
    for at in range(first, len(data), size):
        piece = data[at : at + size]
        room = writer.room(0, file, at, len(piece)) if at // size % 5 else None
        if room is None:
            writer.write(0, file, at, memoryview(piece))
            continue
        lent = bytes(room[:HEADROOM])
        room[HEADROOM - 60 : HEADROOM] = bytes(60)  # the table of a frame passes through
        room[HEADROOM:] = piece
        room[:HEADROOM] = lent
        writer.took(len(piece))
        rooms += 1
    writer.drain()
    assert rooms > 20
    assert (tmp_path / "file").read_bytes() == data
    assert writer.taken() == len(data)
    writer.close()


def test_there_is_no_room_beyond_a_files_end_or_for_more_than_a_write(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    assert writer.room(0, target("file", 8192), 8192, 1) is None
    assert writer.room(0, target("file", 3 * WRITE_SIZE), 0, WRITE_SIZE + 1) is None
    writer.close()


def test_a_failed_write_is_told_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = writer_at(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    writer.write(0, target("file", 8192), 0, memoryview(bytes(8192)))
    with pytest.raises(Fault) as fault:
        writer.drain()
    assert fault.value.code == "target-space"
    assert "file" in str(fault.value)


def test_nothing_is_written_beyond_a_files_end(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    with pytest.raises(Damaged):
        writer.write(0, target("file", 10), 5, memoryview(bytes(6)))
    writer.close()
    assert not (tmp_path / "file").exists()


def test_stretches_of_several_files_between_other_pieces(tmp_path: Path) -> None:
    """Each is filled while earlier ones are still being written; holes in a stretch stay as they are."""
    sizes = [300_000, 5 * WRITE_SIZE, 3 * WRITE_SIZE + 8192, 16384, 2 * WRITE_SIZE, WRITE_SIZE]
    contents = [os.urandom(size) for size in sizes]
    writer = writer_at(tmp_path)
    for number, data in enumerate(contents):
        memory = writer.stretch()
        assert len(memory) == STRETCH_SIZE
        memory[: len(data)] = data
        hole = (len(data) // 2, len(data) // 2 + 4096)
        writer.write_stretch(number, target(str(number), 8192 + len(data)), 8192, [(0, hole[0]), (hole[1], len(data))])
        writer.write(number + 100, target(f"other{number}", 10), 0, memoryview(b"0123456789"))
        contents[number] = bytes(8192) + data[: hole[0]] + bytes(4096) + data[hole[1] :]
    writer.drain()
    assert writer.taken() == sum(sizes) - len(sizes) * 4096 + len(sizes) * 10
    for number, data in enumerate(contents):
        assert (tmp_path / str(number)).read_bytes() == data
        assert (tmp_path / f"other{number}").read_bytes() == b"0123456789"
    writer.close()


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 1000])
def test_stretches_of_many_workers_are_smaller(workers: int) -> None:
    size = stretch_size(workers)
    assert size % (1 << 20) == 0
    assert 4 << 20 <= size <= STRETCH_SIZE
    assert 2 * workers * size <= 128 << 20 or size == 4 << 20
    assert stretch_size(2) == STRETCH_SIZE


def test_a_stretch_beyond_a_files_end_is_not_written(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    writer.stretch()
    with pytest.raises(Damaged):
        writer.write_stretch(0, target("file", 8192), 4096, [(0, 8192)])
    writer.close()
    assert (tmp_path / "file").stat().st_size == 0
