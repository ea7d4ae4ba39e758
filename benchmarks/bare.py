"""Bare work, started as a command of its own: `python -m benchmarks.bare WORK FOLDER`; prints bytes in and bytes out.

It imports nothing of the races, so that its cost is its own.  The compressor makes no checksums, no fsync and no
bookkeeping, and throws its output away: a backup cannot be cheaper at the same level and piece size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

PIECE = 128 << 10
PROCESSES = 2
_BLOCK = 1 << 20
_DISK_BYTES = 2 << 30
_TASK = 64 << 20  # bytes of one file that one process takes at a time


def copied_files(data: Path) -> Iterator[tuple[Path, int]]:
    """The files that a physical backup copies, with their sizes in bytes; WAL is not among them."""
    for path in sorted(data.rglob("*")):
        if path.is_file() and path.relative_to(data).parts[0] != "pg_wal":
            yield path, path.stat().st_size


def _compress(level: int, folder: Path) -> tuple[int, int]:
    """The largest pieces first, so that both processes end together."""
    tasks = [
        (str(path), start, min(_TASK, size - start))
        for path, size in copied_files(folder)
        for start in range(0, size, _TASK)
    ]
    tasks.sort(key=lambda task: -task[2])
    with ProcessPoolExecutor(PROCESSES) as pool:
        written = sum(pool.map(partial(_compress_piece, level), tasks))
    return sum(length for _, _, length in tasks), written


def _compress_piece(level: int, task: tuple[str, int, int]) -> int:
    import zstandard

    compressor = zstandard.ZstdCompressor(level=level)
    path, start, length = task
    written = 0
    with Path(path).open("rb", buffering=0) as file:
        file.seek(start)
        while length and (piece := file.read(min(PIECE, length))):
            written += len(compressor.compress(piece))
            length -= len(piece)
    return written


def _write(folder: Path) -> tuple[int, int]:
    block = os.urandom(_BLOCK)
    descriptor = os.open(folder / "bytes", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for _ in range(_DISK_BYTES // _BLOCK):
        os.write(descriptor, block)
    os.fsync(descriptor)
    os.close(descriptor)
    return 0, _DISK_BYTES


def _read(folder: Path) -> tuple[int, int]:
    descriptor = os.open(folder / "bytes", os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    read = 0
    while block := os.read(descriptor, _BLOCK):
        read += len(block)
    os.close(descriptor)
    return read, 0


_WORKS: dict[str, Callable[[Path], tuple[int, int]]] = {
    "zstd-2": partial(_compress, 2),
    "zstd-3": partial(_compress, 3),
    "write": _write,
    "read": _read,
}


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in _WORKS:
        sys.exit(f"error: expected one of {', '.join(_WORKS)} and a folder")
    print(*_WORKS[sys.argv[1]](Path(sys.argv[2])))
