"""Draining: a directory that pg_dump fills is emptied into the repository meanwhile.

1. A file that grows is followed: what pg_dump has written of it is stored, and its blocks are given back, while it is
   still open.  pg_dump writes each file once, from its beginning to its end (pg_backup_directory.c).
2. A file that its writer has closed is stored to its end, and removed.
3. When the directory's file system runs short, pg_dump is paused until what is there is stored; when nothing is left to
   store and it is still short, the dump ends with the ways out ('target-space').
4. What the kernel did not tell of is stored when room is short, or at the end.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, Self

from pgkeep.errors import Fault
from pgkeep.logical.closed import ClosedFiles
from pgkeep.logical.plan import ScratchPlan, space_fault
from pgkeep.logical.room import Room, free_on_disk, room_in, spare_memory
from pgkeep.pg.child import Child
from pgkeep.values.quantity import show_size

_LOOK_EVERY: Final = 0.05
_WATCH_EVERY: Final = 0.01
"""Seconds in which pg_dump must not write more than the reserve."""
_WATCH_AT_LEAST_EVERY: Final = 0.2
_FILLED_A_SECOND: Final = 16 << 30
"""Bytes, more than any number of jobs writes: so long as more is free, the next look may wait."""
_FREE_AGAIN: Final = 2
"""How many times the reserve must be free before pg_dump goes on."""
_PIECE: Final = 4 << 20
"""Bytes that are taken of a growing file at once."""
_BUFFER: Final = 1 << 20
_PUNCH_HOLE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, linux/falloc.h
_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)


class Sink(Protocol):
    """A member of the dump that is being written."""

    def write(self, data: memoryview) -> None: ...

    def close(self) -> None: ...


Begin = Callable[[str], Sink]
"""Begins the member for the file of this name."""


def drain(
    child: Child, closed: ClosedFiles, directory: str, scratch: ScratchPlan, begin: Begin,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Store every file of `directory` until `child` has ended; its Fault when it failed.

    `closed` watches the directory since before the child was started; `meanwhile` is done while it begins.
    """
    with Pressure(child, directory, scratch.room) as pressure, _Files(directory, begin) as files:
        meanwhile()
        moved = 0
        while not child.has_ended():
            names = closed.wait(0 if moved else _LOOK_EVERY)
            for name in names:
                files.finish(name)
            moved = files.follow(_PIECE)
            if pressure.is_on and not moved and not names:
                _relieve(child, files, directory, scratch)
        child.finish()
        for name in sorted(os.listdir(directory)):
            files.finish(name)


def _relieve(child: Child, files: _Files, directory: str, scratch: ScratchPlan) -> None:
    """pg_dump stands still: store all that there is; 'target-space' when that gives no room."""
    closed = sorted(set(os.listdir(directory)) - open_files(child.pid, directory))
    for name in closed:
        files.finish(name)
    moved = files.follow(1)
    room = room_in(directory)
    if not closed and not moved and room.free < scratch.room.reserve:
        used = show_size(files.left())
        raise space_fault(scratch.parent, room, f"{used} of what pg_dump writes cannot be given back before its end")


class _Files:
    """The files of the directory, those that are followed among them."""

    def __init__(self, directory: str, begin: Begin) -> None:
        self._directory = directory
        self._begin = begin
        self._followed: dict[str, _Followed] = {}
        self._buffer = memoryview(bytearray(_BUFFER))

    def follow(self, least: int) -> int:
        """Store what is new of every file of which there are at least so many bytes more; how many were stored."""
        moved = 0
        for entry in list(os.scandir(self._directory)):
            with suppress(FileNotFoundError):
                size = entry.stat(follow_symlinks=False).st_size
                known = self._followed.get(entry.name)
                if size - (known.position if known is not None else 0) >= least:
                    moved += self._of(entry.name).take(size, self._buffer)
        return moved

    def finish(self, name: str) -> None:
        """Its writer has closed it: store the rest, and remove it."""
        if name not in self._followed and not os.path.lexists(os.path.join(self._directory, name)):
            return  # our own close of it was told, too
        followed = self._of(name)
        del self._followed[name]
        try:
            followed.take(None, self._buffer)
            followed.sink.close()
        finally:
            followed.close()
        os.unlink(followed.path)

    def left(self) -> int:
        """Bytes on the file system that the files still take."""
        return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in os.scandir(self._directory))

    def _of(self, name: str) -> _Followed:
        if name not in self._followed:
            self._followed[name] = _Followed(os.path.join(self._directory, name), self._begin(name))
        return self._followed[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for followed in self._followed.values():
            followed.close()


class _Followed:
    """A file that is being stored, perhaps while it grows."""

    def __init__(self, path: str, sink: Sink) -> None:
        self.path = path
        self.sink = sink
        self.position = 0
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise Fault("io", f"cannot read {path}: {error.strerror}", hint="look at the system's log") from error

    def take(self, end: int | None, buffer: memoryview) -> int:
        """Store its bytes up to `end` (None: all that there are) through `buffer`, give their blocks back; how many."""
        begun = self.position
        while end is None or self.position < end:
            count = os.preadv(self._descriptor, [buffer], self.position)
            if not count:
                break
            self.sink.write(buffer[:count])
            self.position += count
        if end is not None:
            _give_back(self._descriptor, begun, self.position - begun)
        return self.position - begun

    def close(self) -> None:
        os.close(self._descriptor)


def _give_back(descriptor: int, offset: int, length: int) -> None:
    """Punch a hole; a file system that cannot do that keeps the blocks until the file is removed."""
    if _fallocate is not None and length:
        _fallocate(descriptor, _PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(length))


def open_files(group: int, directory: str) -> frozenset[str]:
    """Names below `directory` that processes of this group hold open."""
    found = set()
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(entry)) != group:
                continue
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                with suppress(OSError):
                    found.add(os.readlink(f"/proc/{entry}/fd/{descriptor}"))
    return frozenset(path[len(directory) + 1 :] for path in found if path.startswith(f"{directory}/"))


class Pressure:
    """Pauses pg_dump while the room is short: a thread, because storing takes its time."""

    def __init__(self, child: Child, directory: str, room: Room) -> None:
        self._child = child
        self._directory = directory
        self._room = room
        self._stop = threading.Event()
        self._paused = False
        self._thread = threading.Thread(target=self._watch, name="scratch-room", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._paused:
            self._child.resume()

    @property
    def is_on(self) -> bool:
        """Whether pg_dump is paused now."""
        return self._paused

    def _watch(self) -> None:
        delay, known, spare = _WATCH_EVERY, 0.0, None
        while not self._stop.wait(delay):
            with suppress(OSError):
                # What others take of the memory changes more slowly than what pg_dump writes.
                known -= delay
                if self._room.in_memory and known <= 0:
                    spare, known = spare_memory(), _WATCH_AT_LEAST_EVERY
                free = free_on_disk(self._directory)
                free = free if spare is None else min(free, spare)
                self._decide(free)
                delay = min(max((free - self._room.reserve) / _FILLED_A_SECOND, _WATCH_EVERY), _WATCH_AT_LEAST_EVERY)

    def _decide(self, free: int) -> None:
        reserve = self._room.reserve
        if not self._paused and free < reserve:
            self._child.pause()
            self._paused = True
        elif self._paused and free >= reserve * _FREE_AGAIN:
            self._paused = False
            self._child.resume()
