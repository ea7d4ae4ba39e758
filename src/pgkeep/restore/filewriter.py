"""FileWriter: pieces of files, collected into large writes that a thread makes while the next ones are being filled.

Rules of this file:

1. Neighbouring pieces are put into one aligned buffer, whole frames by the decompressor itself (`room`).  Whole blocks
   of a large file go past the page cache (store.direct): finding memory for gigabytes that nobody reads soon costs more
   than all else a restore does, and many times as much where memory is in small pieces
   (docs/decisions/0012-direct-writes.md).  The rest goes through it.
2. One thread makes all calls on the files, in the order in which they were handed over; so a file is closed after its
   last write, and its O_DIRECT is switched between writes.  A small write is not worth the handing over when the
   thread has nothing to do: thousands of scattered pages are written at once.
3. Where pages come in another order than they lie in the file, the caller puts a whole stretch of it together in one
   of two large buffers (`stretch`), and goes on in the other while the thread writes.
4. What a write met is raised at the latest by `drain`.  What was drained is with the kernel; fsync makes it durable.
"""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Final

from pgkeep.errors import Damaged
from pgkeep.restore import linux
from pgkeep.restore.layout import TargetFile
from pgkeep.restore.tree import Tree, io_fault
from pgkeep.store import direct

WRITE_SIZE: Final = 1 << 20
"""Bytes of one write at most."""
DIRECT_FROM: Final = 128 << 10
"""Bytes from which a write goes past the page cache; the kernel gathers smaller ones better."""
ALLOCATE_FROM: Final = 256 << 10
"""Files of this size and more get their space before they are written, in one piece."""
FILES_OPEN: Final = 96
STRETCH_SIZE: Final = 32 << 20
"""Bytes of a stretch at most."""
_LEAST_STRETCH: Final = 4 << 20
_STRETCHES: Final = 128 << 20
"""Bytes of memory for stretches in all workers together, as long as there are not very many."""
_BUFFERS: Final = 3
"""One is filled, one is written, one waits."""
HEADROOM: Final = direct.BLOCK
"""Bytes before each buffer that `room` lends: what comes before a frame's pages passes through them."""


def stretch_size(workers: int) -> int:
    """Bytes of a stretch where so many workers have two each: whole MiB."""
    share = _STRETCHES // (2 * workers) >> 20 << 20
    return max(_LEAST_STRETCH, min(STRETCH_SIZE, share))


class FileWriter:
    """See the module's docstring.  Not for several threads at once."""

    def __init__(self, trees: Sequence[Tree], stretch: int = STRETCH_SIZE) -> None:
        self._trees = trees
        self._stretch = stretch
        self._open: OrderedDict[int, int] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "file-writer")
        self._pending: deque[Future[None]] = deque()
        self._buffers = cycle([memoryview(mmap.mmap(-1, HEADROOM + WRITE_SIZE)) for _ in range(_BUFFERS)])
        self._lent = next(self._buffers)
        self._buffer = self._lent[HEADROOM:]
        self._number = -1
        self._file: TargetFile | None = None
        self._start = 0
        self._size = 0
        self._taken = 0
        self._stretches: list[memoryview] = []
        self._submitted = 0
        self._since = 0
        """How many calls had been handed over before those of the last stretch."""

    def stretch(self) -> memoryview:
        """Memory for the next stretch, as much as the writer was made for.

        It is not that of the last one, which may not be written yet.
        """
        if len(self._stretches) < 2:
            self._stretches.append(memoryview(mmap.mmap(-1, self._stretch)))
        self._settle(self._submitted - self._since)
        self._stretches.reverse()
        return self._stretches[0]

    def write_stretch(self, number: int, file: TargetFile, offset: int, filled: Iterable[tuple[int, int]]) -> None:
        """What `stretch` gave last begins at byte `offset` of file `number`; its bytes from .. to are `filled`."""
        self.flush()
        self._since = self._submitted
        descriptor = self._descriptor(number, file)
        path = self._trees[file.root].full(file.path)
        for begin, end in filled:
            if offset + end > file.size:
                raise Damaged(os.fsdecode(file.path), f"is placed beyond its {file.size} bytes by its extents")
            for at in range(begin, end, WRITE_SIZE):
                part = self._stretches[0][at : min(at + WRITE_SIZE, end)]
                self._submit(_write, descriptor, part, offset + at, path)
            self._taken += end - begin

    def write(self, number: int, file: TargetFile, offset: int, data: memoryview) -> None:
        """`data` belongs at byte `offset` of file `number`."""
        if offset + len(data) > file.size:
            raise Damaged(os.fsdecode(file.path), f"is placed beyond its {file.size} bytes by its extents")
        at = 0
        while at < len(data):
            if number != self._number or offset + at != self._start + self._size or self._size == WRITE_SIZE:
                self.flush()
                self._number, self._file, self._start = number, file, offset + at
            taken = min(WRITE_SIZE - self._size, len(data) - at)
            self._buffer[self._size : self._size + taken] = data[at : at + taken]
            self._size += taken
            at += taken

    def room(self, number: int, file: TargetFile, offset: int, length: int) -> memoryview | None:
        """HEADROOM bytes that must be given back as they are, and memory for `length` that belong at byte `offset`.

        None where they do not fit behind what was collected.  `took` says that they are there.
        """
        if offset + length > file.size or length > WRITE_SIZE:
            return None
        if number != self._number or offset != self._start + self._size or self._size == WRITE_SIZE:
            self.flush()
            self._number, self._file, self._start = number, file, offset
        if length > WRITE_SIZE - self._size:
            return None
        return self._lent[self._size : HEADROOM + self._size + length]

    def took(self, length: int) -> None:
        """The memory that `room` gave last holds what belongs there."""
        self._size += length

    def flush(self) -> None:
        """Hand over what was collected."""
        if self._file is None or not self._size:
            return
        descriptor = self._descriptor(self._number, self._file)
        path = self._trees[self._file.root].full(self._file.path)
        self._settle(_BUFFERS)
        if self._size < DIRECT_FROM and not self._pending:
            _write(descriptor, self._buffer[: self._size], self._start, path)
        else:
            self._submit(_write, descriptor, self._buffer[: self._size], self._start, path)
            self._settle(_BUFFERS - 1)
            self._lent = next(self._buffers)
            self._buffer = self._lent[HEADROOM:]
        self._taken += self._size
        self._size, self._number = 0, -1

    def drain(self) -> None:
        """Wait until everything is written."""
        self.flush()
        self._settle(0)

    def _settle(self, most: int) -> None:
        """Take note of what is done, and wait until at most that many calls are not."""
        while self._pending and (len(self._pending) > most or self._pending[0].done()):
            self._pending.popleft().result()

    def taken(self) -> int:
        """Bytes written since the last call."""
        taken, self._taken = self._taken, 0
        return taken

    def close(self) -> None:
        """Close all files; more may be written, to files that are opened anew."""
        self.drain()
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _descriptor(self, number: int, file: TargetFile) -> int:
        if (known := self._open.get(number)) is not None:
            self._open.move_to_end(number)
            return known
        descriptor = self._trees[file.root].create(file.path, file.mode)
        self._open[number] = descriptor
        if file.size >= ALLOCATE_FROM:
            try:
                linux.allocate(descriptor, file.size)
            except OSError as error:
                raise io_fault(error, self._trees[file.root].full(file.path)) from error
        if len(self._open) > FILES_OPEN:
            self._submit(os.close, self._open.popitem(last=False)[1])
        return descriptor

    def _submit(self, call: Callable[..., None], *arguments: object) -> None:
        self._pending.append(self._thread.submit(call, *arguments))
        self._submitted += 1


def _write(descriptor: int, data: memoryview, offset: int, path: str) -> None:
    """Whole blocks past the page cache if they are many, the rest through it."""
    try:
        whole = len(data) // direct.BLOCK * direct.BLOCK
        is_direct = whole >= DIRECT_FROM and offset % direct.BLOCK == 0
        done = direct.write_at(descriptor, data[:whole], offset) if is_direct else 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)
    except OSError as error:
        raise io_fault(error, path) from error
