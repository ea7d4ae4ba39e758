"""Working ahead: the call that has archived its own file leaves a process behind that archives what else waits.

PostgreSQL asks for one file at a time and waits for the answer, so that a backlog would be archived by one processor.

1. Work begins only after the call's own file is durable in the repository, in PostgreSQL's order: histories one by one,
   then everything else, oldest first, by several processes.
2. It ends at the first refusal, whatever it was: PostgreSQL's own call for that file will say it in the server's log.
   It ends too at its limits of files and of time, when nothing waits, and when the server that it serves has gone.
3. What it has archived it says by markers alone (`marker`).  PostgreSQL still asks for every file.
4. One at a time for a data directory: the lock is inherited by every process of it and goes with the last one, however
   they die.  Calls that find it held wait for their marker instead of doing the same work twice.
5. Processes, because frames and hashes of 128 KiB leave threads little to overlap (docs/decisions/0008).  Forked,
   because the call has imported everything by then, and holds neither threads nor connections.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Fault
from pgkeep.values.wal import WalFileKind, wal_file_kind
from pgkeep.wal import marker
from pgkeep.wal.backlog import waiting

Archive = Callable[[str], None]
"""Makes the WAL file at a path durable in the repository and leaves its marker, or raises."""
_POSTMASTER: Final = "postmaster.pid"
_INDEX: Final = 4  # bytes of a task in the pipe
_TOGETHER: Final = 8192  # tasks that a pipe takes without a reader (pipe(7): 64 KiB)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one call works ahead: files (0: not at all), seconds, and processes at the same time."""

    files: int
    seconds: float
    processes: int


def work_ahead(wal_folder: str, own: str, archive: Archive, limits: Limits) -> None:
    """Leave a process behind that archives what waits in `wal_folder` (pg_wal) besides the file named `own`.

    Returns at once; does nothing when nothing waits, or somebody is at it already.  Fault 'io'.
    """
    if limits.files < 1 or not _others(wal_folder, {own}):
        return
    lock = _lock(wal_folder)
    if lock is None:
        return
    try:
        child = os.fork()
        if child == 0:
            _detach(_Foreman(wal_folder, archive, limits), own, lock)
        os.waitpid(child, 0)
    finally:
        os.close(lock)


def _lock(wal_folder: str) -> int | None:
    """A descriptor that holds the lock; None when somebody else does.  Fault 'io'."""
    path = os.path.join(wal_folder, marker.FOLDER, marker.LOCK)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Fault("io", f"{path} could not be opened: {error.strerror}", path=path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _detach(foreman: _Foreman, own: str, lock: int) -> None:
    """Go on as a process that neither the server nor its shell waits for; does not return."""
    status = 1
    try:
        os.setsid()
        if os.fork() == 0:
            _let_go(lock)
            foreman.run(own)
        status = 0
    finally:
        os._exit(status)


def _let_go(lock: int) -> None:
    """Of everything that the server or its logger might wait for, or whose space a removed file would keep.

    A signal must end this process as an error does: in a container the server may be the first process, which inherits
    this one, and it takes a child that died of a signal for a crash of its own (CleanupBackend in postmaster.c).
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os._exit(1))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != lock:
            with suppress(OSError):  # the listing's own
                os.close(descriptor)


def _others(wal_folder: str, known: set[str]) -> list[str]:
    return [name for name in waiting(wal_folder) if name not in known]


class _Foreman:
    """Hands out what waits, until one of the ends of rule 2."""

    def __init__(self, wal_folder: str, archive: Archive, limits: Limits) -> None:
        self._folder = wal_folder
        self._archive = archive
        self._limits = limits
        self._deadline = time.monotonic() + limits.seconds
        self._postmaster = self._server()

    def run(self, own: str) -> None:
        """Everything that waits, and what comes meanwhile."""
        taken = {own}
        left = self._limits.files
        while left > 0 and (names := _others(self._folder, taken)[: min(left, _TOGETHER)]):
            if not self._together(names):
                return
            taken.update(names)
            left -= len(names)

    def _together(self, names: Sequence[str]) -> bool:
        """False at the first refusal, or when it is time to end."""
        histories = [name for name in names if wal_file_kind(name) is WalFileKind.HISTORY]
        if not all(self._one(name) for name in histories):
            return False
        rest = names[len(histories) :]
        tasks, source = os.pipe()
        os.write(source, b"".join(index.to_bytes(_INDEX, "big") for index in range(len(rest))))
        os.close(source)
        workers = [self._fork(tasks, rest) for _ in range(min(self._limits.processes, len(rest)))]
        os.close(tasks)
        statuses = [os.waitpid(worker, 0)[1] for worker in workers]
        return not any(statuses)

    def _fork(self, tasks: int, names: Sequence[str]) -> int:
        worker = os.fork()
        if worker == 0:
            status = 1
            try:
                status = self._work(tasks, names)
            finally:
                os._exit(status)
        return worker

    def _work(self, tasks: int, names: Sequence[str]) -> int:
        """One task after another; 1 after a refusal, having left the others nothing to begin."""
        while index := os.read(tasks, _INDEX):  # a read of one takes it from all others
            if not self._one(names[int.from_bytes(index, "big")]):
                while os.read(tasks, _TOGETHER * _INDEX):
                    continue
                return 1
        return 0

    def _one(self, name: str) -> bool:
        if time.monotonic() > self._deadline or self._server() != self._postmaster:
            return False
        try:
            self._archive(os.path.join(self._folder, name))
        except Exception:  # nobody listens here: PostgreSQL asks for the file itself, and then hears why not
            return False
        return True

    def _server(self) -> str:
        """Changes when the server is stopped or started anew; the same for ever where none runs."""
        return marker.stamp(os.path.join(os.path.dirname(self._folder), _POSTMASTER))
