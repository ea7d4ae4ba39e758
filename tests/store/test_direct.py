"""Writing past the page cache: the same bytes, whatever the file system thinks of it."""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pgkeep.store import direct, local
from pgkeep.store.local import LocalStore
from tests.store.starting import failing

SIZES = (0, 1, direct.BLOCK - 1, direct.BLOCK, direct.CHUNK - 1, direct.CHUNK, 2 * direct.CHUNK + direct.BLOCK + 77)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """(whether O_DIRECT was on, bytes) of every pwrite(2) that follows."""
    seen: list[tuple[bool, int]] = []
    pwrite = os.pwrite

    def watched(descriptor: int, data: memoryview, offset: int) -> int:
        seen.append((bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT), len(data)))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", watched)
    return seen


def written(path: Path, parts: Sequence[bytes | memoryview]) -> bytes:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        direct.write_all(descriptor, [memoryview(part) for part in parts])
        assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
    finally:
        os.close(descriptor)
    return path.read_bytes()


def content(size: int) -> list[bytes]:
    """Parts of odd lengths, `size` bytes in all."""
    data = os.urandom(size)
    cuts = sorted({0, min(1, size), size // 3, size - size // 5, size})
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_arrives(tmp_path: Path, size: int) -> None:
    parts = content(size)
    assert written(tmp_path / "file", parts) == b"".join(parts)


def test_whole_blocks_go_past_the_cache(tmp_path: Path, writes: list[tuple[bool, int]]) -> None:
    parts = content(direct.CHUNK + 3 * direct.BLOCK + 5)
    assert written(tmp_path / "file", parts) == b"".join(parts)
    if not writes[0][0]:
        pytest.skip("the file system of the temporary directory has no O_DIRECT")
    assert writes == [(True, direct.CHUNK), (True, 3 * direct.BLOCK), (False, 5)]


@pytest.mark.parametrize("before", [0, 1, direct.BLOCK])
def test_long_parts_in_whole_pages_of_memory_arrive(tmp_path: Path, before: int) -> None:
    """From where they lie, or copied where what came before them is no whole block."""
    pieces = [mmap.mmap(-1, direct.CHUNK + size) for size in (0, direct.BLOCK, 3 * direct.BLOCK)]
    for piece in pieces:
        piece[:] = os.urandom(len(piece))
    parts = [
        memoryview(bytes(before)),
        *(memoryview(piece) for piece in pieces),
        memoryview(pieces[1])[1:],
        memoryview(b"end"),
    ]
    expected = b"".join(parts)
    assert written(tmp_path / "file", parts) == expected


def test_a_long_part_in_whole_pages_is_not_copied(tmp_path: Path, writes: list[tuple[bool, int]]) -> None:
    part = mmap.mmap(-1, 2 * direct.CHUNK)
    part[:] = os.urandom(len(part))
    assert written(tmp_path / "file", [memoryview(part), b"tail"]) == bytes(part) + b"tail"
    if not writes[0][0]:
        pytest.skip("the file system of the temporary directory has no O_DIRECT")
    assert writes == [(True, 2 * direct.CHUNK), (False, 4)]


@pytest.mark.parametrize("call", ["fcntl", "write"])
def test_a_file_system_without_it_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    switch, pwrite = fcntl.fcntl, os.pwrite

    def no_switch(descriptor: int, command: int, flags: int = 0) -> Any:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return switch(descriptor, command, flags)

    def no_write(descriptor: int, data: memoryview, offset: int) -> int:
        if switch(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return pwrite(descriptor, data, offset)

    if call == "fcntl":
        monkeypatch.setattr(fcntl, "fcntl", no_switch)
    else:
        monkeypatch.setattr(os, "pwrite", no_write)
    parts = content(SIZES[-1])
    assert written(tmp_path / "file", parts) == b"".join(parts)


def test_a_write_that_stops_in_mid_block_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def shorter(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            data = data[: direct.BLOCK]
        return pwrite(descriptor, data[: len(data) - len(data) // 3], offset)

    monkeypatch.setattr(os, "pwrite", shorter)
    parts = content(SIZES[-1])
    assert written(tmp_path / "file", parts) == b"".join(parts)


def test_a_full_disk_is_no_reason_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        written(tmp_path / "file", content(direct.CHUNK))


def test_large_objects_are_written_that_way(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = content(3 * direct.BLOCK + 7)
    monkeypatch.setattr(local, "_DIRECT_FROM", 3 * direct.BLOCK)
    calls: list[int] = []
    write = direct.write_all

    def watched(descriptor: int, given: Iterable[bytes | memoryview]) -> None:
        calls.append(descriptor)
        write(descriptor, given)

    monkeypatch.setattr(direct, "write_all", watched)
    store = LocalStore(root)
    store.put("large", parts)
    store.put("small", [b"x"])
    assert len(calls) == 1
    assert store.get("large") == b"".join(parts)
    assert store.get("small") == b"x"
