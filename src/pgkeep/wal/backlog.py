"""WAL that waits to be archived, and how long until it fills the disk.

1. PostgreSQL marks a finished file with archive_status/NAME.ready, and hands the histories to archive_command first,
   then the oldest name (pgarch.c, ready_file_comparator); whoever works ahead keeps that order.
2. While nothing is archived nothing is removed or recycled, so pg_wal grows as fast as WAL is written: the times of the
   .ready files tell how fast that is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.values.quantity import show_duration, show_size
from pgkeep.values.wal import WalFileKind, wal_file_kind

STATUS_FOLDER: Final = "archive_status"
_READY: Final = ".ready"
_RECENT: Final = 500
"""So many newest files tell the rate: a server that writes more in a minute tells it even so."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a pg_wal: files, bytes, bytes a second that are added (0: not known), bytes free beside it."""

    files: int
    size: int
    rate: float
    free: int

    @property
    def seconds_left(self) -> float | None:
        """Until the file system is full, if nothing is archived and WAL goes on as it did; None: not known."""
        return self.free / self.rate if self.rate > 0 else None


def waiting(wal_folder: str) -> list[str]:
    """The names of the WAL files in `wal_folder` (pg_wal) that wait, in PostgreSQL's order.  Fault 'io'."""
    folder = os.path.join(wal_folder, STATUS_FOLDER)
    try:
        found = [name.removesuffix(_READY) for name in os.listdir(folder) if name.endswith(_READY)]
    except OSError as error:
        raise Fault("io", f"{folder} could not be read: {error.strerror}", path=folder) from error
    kinds = {name: wal_file_kind(name) for name in found}
    return sorted(
        (name for name, kind in kinds.items() if kind is not None),
        key=lambda name: (kinds[name] is not WalFileKind.HISTORY, name),
    )


def backlog(wal_folder: str, clock: Clock) -> Backlog:
    """Look at pg_wal and its file system.  Fault 'io'."""
    names = waiting(wal_folder)
    sizes = [_size(os.path.join(wal_folder, name)) for name in names]
    try:
        space = os.statvfs(wal_folder)
    except OSError as error:
        raise Fault("io", f"{wal_folder} could not be looked at: {error.strerror}", path=wal_folder) from error
    segments = [name for name in names if wal_file_kind(name) is WalFileKind.SEGMENT][-_RECENT:]
    finished = [time for name in segments if (time := _finished(wal_folder, name)) is not None]
    rate = rate_of(finished, max(sizes, default=0), clock.now().timestamp())
    return Backlog(len(names), sum(sizes), rate, space.f_bavail * space.f_frsize)


def rate_of(finished: Sequence[float], size: int, now: float) -> float:
    """Bytes a second of segments of `size` bytes that were finished at these times (Unix, as `now`); 0: not known."""
    span = now - min(finished, default=now)
    return (len(finished) - 1) * size / span if span > 0 else 0.0


def alarm(found: Backlog) -> str:
    """One sentence for the server's log: what waits, and when the disk is full."""
    subject = "1 WAL file waits" if found.files == 1 else f"{found.files} WAL files wait"
    waits = f"{subject} to be archived ({show_size(found.size)})"
    free = f"{show_size(found.free)} are free for pg_wal"
    left = found.seconds_left
    if left is None:
        return f"{waits}; {free}"
    return f"{waits}; {free}, which lasts about {show_duration(left)} at {show_size(found.rate)} of WAL a second"


def _finished(wal_folder: str, name: str) -> float | None:
    """When the server was done with the file; None for one that was archived meanwhile."""
    try:
        return os.stat(os.path.join(wal_folder, STATUS_FOLDER, name + _READY)).st_mtime
    except FileNotFoundError:
        return None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
