"""Draining: a directory that pg_dump fills is emptied into the repository meanwhile.

1. A file that its writer has closed is stored, and removed from the directory at once; pg_dump opens none twice.
2. When the directory's file system runs short, pg_dump is paused until what is closed is stored; when nothing is left
   to store and it is still short, the dump ends with the ways out ('target-space').
3. What the kernel did not tell of is stored when room is short, or at the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from pgkeep.logical.closed import ClosedFiles
from pgkeep.logical.plan import ScratchPlan, space_fault
from pgkeep.logical.room import Room, room_in
from pgkeep.pg.child import Child
from pgkeep.values.quantity import show_size

_LOOK_EVERY: Final = 0.05
_WATCH_EVERY: Final = 0.01
"""Seconds in which pg_dump must not write more than the reserve."""
_FREE_AGAIN: Final = 2
"""How many times the reserve must be free before pg_dump goes on."""

Store = Callable[[str, str], None]
"""Takes (name below the directory, path) and makes it a member of the dump."""


def drain(child: Child, closed: ClosedFiles, directory: str, scratch: ScratchPlan, store: Store) -> None:
    """Store every file of `directory` until `child` has ended; its Fault when it failed.

    `closed` watches the directory since before the child was started.
    """
    with Pressure(child, directory, scratch.room) as pressure:
        while not child.has_ended():
            names = closed.wait(_LOOK_EVERY)
            for name in names:
                _take(directory, name, store)
            if not names and pressure.is_on:
                _relieve(child, directory, scratch, store)
        child.finish()
        for name in sorted(os.listdir(directory)):
            _take(directory, name, store)


def _relieve(child: Child, directory: str, scratch: ScratchPlan, store: Store) -> None:
    """pg_dump stands still: store what it does not hold open; 'target-space' when there is nothing, and no room."""
    closed = sorted(set(os.listdir(directory)) - open_files(child.pid, directory))
    for name in closed:
        _take(directory, name, store)
    room = room_in(directory)
    if not closed and room.free < scratch.room.reserve:
        raise space_fault(scratch.parent, room, f"{show_size(_size_of(directory))} are being written at one time")


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


def _take(directory: str, name: str, store: Store) -> None:
    path = os.path.join(directory, name)
    store(name, path)
    os.unlink(path)


class Pressure:
    """Pauses pg_dump while the room is short: a thread, because storing one large file takes its time."""

    def __init__(self, child: Child, directory: str, room: Room) -> None:
        self._child = child
        self._directory = directory
        self._reserve = room.reserve
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
        while not self._stop.wait(_WATCH_EVERY):
            with suppress(OSError):
                self._decide(room_in(self._directory).free)

    def _decide(self, free: int) -> None:
        if not self._paused and free < self._reserve:
            self._child.pause()
            self._paused = True
        elif self._paused and free >= self._reserve * _FREE_AGAIN:
            self._paused = False
            self._child.resume()


def _size_of(directory: str) -> int:
    size = 0
    with suppress(OSError):
        for entry in os.scandir(directory):
            size += entry.stat(follow_symlinks=False).st_size
    return size
