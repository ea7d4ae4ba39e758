"""What the machine allows: the same files compressed by zstd alone, the disk read and written in order.

Run as a command (`python -m benchmarks.bounds WORK FOLDER`) so that its cost is taken like a contender's.
The compressor does no checksums, no fsync and no bookkeeping, and throws its output away: a backup cannot be
cheaper than it at the same level and frame size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import copied_files
from benchmarks.measure import Cost
from benchmarks.race import Course, settle_disk
from benchmarks.server import RaceError, Site

LEVEL = 3
PIECE = 128 << 10
PROCESSES = 2
_BLOCK = 1 << 20
_DISK_BYTES = 2 << 30
_TASK = 64 << 20  # bytes of one file that one process takes at a time


@dataclass(frozen=True, slots=True)
class Bound:
    """Bytes taken in and left over by one piece of bare work, and what it cost."""

    work: str
    cost: Cost
    read: int
    written: int

    @property
    def rate(self) -> float:
        """Bytes a second, of the larger side."""
        return max(self.read, self.written) / self.cost.wall


def bounds(course: Course) -> tuple[Bound, ...]:
    """Each piece of work once per pair; the disk's file is written first, then read past the page cache."""
    site = course.site
    found = []
    disk = site.folder("disk")
    for _ in range(course.pairs):
        for work, folder in (("compress", Path(course.source.data)), ("write", disk), ("read", disk)):
            settle_disk()
            found.append(_bound(site, work, folder))
            course.say(f"  bare {work}: {found[-1].cost.wall:.2f} s wall, {found[-1].rate / 1e6:.0f} MB/s")
    (disk / "bytes").unlink()
    return tuple(found)


def _bound(site: Site, work: str, folder: Path) -> Bound:
    # As the caller, not as the account: the interpreter may be out of the account's reach.
    bare = Site(Path(__file__).parents[1], site.programs, account=None)
    cost = bare.race((sys.executable, "-m", "benchmarks.bounds", work, str(folder)))
    read, written = (int(word) for word in cost.lines[-1].text.split())
    return Bound(work, cost, read, written)


def _compress(folder: Path) -> tuple[int, int]:
    """The largest pieces first, so that both processes end together."""
    tasks = [
        (str(path), start, min(_TASK, size - start))
        for path, size in copied_files(folder)
        for start in range(0, size, _TASK)
    ]
    tasks.sort(key=lambda task: -task[2])
    with ProcessPoolExecutor(PROCESSES) as pool:
        written = sum(pool.map(_compress_piece, tasks))
    return sum(length for _, _, length in tasks), written


def _compress_piece(task: tuple[str, int, int]) -> int:
    import zstandard

    compressor = zstandard.ZstdCompressor(level=LEVEL)
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


_WORKS: dict[str, Callable[[Path], tuple[int, int]]] = {"compress": _compress, "write": _write, "read": _read}


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in _WORKS:
        raise RaceError(f"expected one of {', '.join(_WORKS)} and a folder")
    print(*_WORKS[sys.argv[1]](Path(sys.argv[2])))
