"""A backup's worker process: reads runs of files, checks their pages, packs them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgkeep.backup.report import Report, Reported
from pgkeep.backup.tasks import FileRun, Task
from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.pg.page import BLCKSZ, PageChecker, PageReport
from pgkeep.pg.relmap import RELMAP_NAME, read_relmap
from pgkeep.repo.check import RepositoryAddress
from pgkeep.repo.packwriter import PackWriter, WrittenPack
from pgkeep.values.ids import ClusterUuid, ObjectId

CHUNK: Final = 2 << 20
"""Bytes read and checked at a time: 256 pages, which numpy likes and the processor's cache holds."""
_RELMAP: Final = f"/{RELMAP_NAME}".encode()
REREAD_DELAY: Final = 0.01
"""Seconds before a page that looks damaged is read again: a write in flight is over by then."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker process is built from (picklable)."""

    repository: RepositoryAddress
    cluster: ClusterUuid
    data_directory: str
    level: int
    checksums: bool
    start_lsn: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of a task's runs, and what this worker has done so far."""

    reported: Reported
    worker: int
    """Process id."""
    stored: int
    """Bytes of this worker's packs, the one that is being filled included."""
    packs: tuple[ObjectId, ...]
    """Packs that this worker has put into the store since the last result."""


class BackupWorker:
    """See the module's docstring."""

    def __init__(self, settings: WorkerSettings) -> None:
        repository = settings.repository.open()
        self._settings = settings
        self._writer = PackWriter(repository, settings.cluster, SystemClock(), page_size=BLCKSZ, level=settings.level)
        self._told = 0
        self._checker = PageChecker()
        self._buffer = bytearray(CHUNK)

    def run(self, task: Task) -> TaskResult:
        report = Report()
        root = os.fsencode(self._settings.data_directory)
        for run in task:
            self._run(root, run, report)
        new = tuple(pack.id for pack in self._writer.written[self._told :])
        self._told += len(new)
        return TaskResult(report.done(), os.getpid(), self._writer.stored, new)

    def finish(self) -> list[WrittenPack]:
        return self._writer.finish()

    def _run(self, root: bytes, run: FileRun, report: Report) -> None:
        report.begin(run.length)
        path = os.path.join(root, run.path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            # DROP and TRUNCATE remove files while we read; WAL from the start on knows (basebackup.c, sendFile).
            report.vanish(run.file)
            return
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            os.posix_fadvise(descriptor, run.start, run.length, os.POSIX_FADV_SEQUENTIAL)
            if run.path.endswith(_RELMAP):
                self._relmap(path, run, report)
            else:
                self._copy(descriptor, run, report)
        except FileNotFoundError:
            report.vanish(run.file)
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(descriptor)

    def _relmap(self, path: bytes, run: FileRun, report: Report) -> None:
        """pg_filenode.map is overwritten in place before 16: a reading whose checksum is wrong is repeated."""
        data = read_relmap(os.fsdecode(path))
        if len(data) != run.length:
            raise Fault("datadir-invalid", f"{os.fsdecode(path)} has {len(data)} bytes, expected {run.length}")
        report.place(run.file, 0, self._writer.add_bytes(run.path, 0, memoryview(data)), len(data))

    def _copy(self, descriptor: int, run: FileRun, report: Report) -> None:
        done = 0
        while done < run.length:
            view = memoryview(self._buffer)[: min(CHUNK, run.length - done)]
            _read_exactly(descriptor, view, run.start + done)
            if run.pages:
                place = self._pages(descriptor, run, done, view, report)
                report.place(run.file, run.start + done, place, len(view), BLCKSZ)
            else:
                place = self._writer.add_bytes(run.path, run.start + done, view)
                report.place(run.file, run.start + done, place, len(view))
            done += len(view)

    def _pages(
        self, descriptor: int, run: FileRun, done: int, view: memoryview, report: Report
    ) -> tuple[ObjectId, int]:
        block = run.first_block + done // BLCKSZ
        seen = self._inspect(view, block)
        if seen.bad.any():
            seen = self._read_again(descriptor, run.start + done, view, block, seen)
        file_block = (run.start + done) // BLCKSZ
        for page in np.flatnonzero(seen.bad):
            report.doubt(run.file, file_block + int(page))
        for page in np.flatnonzero(seen.pending):
            report.doubt(run.file, file_block + int(page), int(seen.lsns[page]))
        return self._writer.add_pages(run.path, file_block, view, seen.lsns)

    def _inspect(self, view: memoryview, block: int) -> PageReport:
        settings = self._settings
        return self._checker.inspect(view, block, checksums=settings.checksums, start_lsn=settings.start_lsn)

    def _read_again(self, descriptor: int, offset: int, view: memoryview, block: int, seen: PageReport) -> PageReport:
        """A page whose halves were read around its writing is whole the second time."""
        time.sleep(REREAD_DELAY)
        for page in np.flatnonzero(seen.bad):
            at = int(page) * BLCKSZ
            _read_exactly(descriptor, view[at : at + BLCKSZ], offset + at)
        return self._inspect(view, block)


def _read_exactly(descriptor: int, view: memoryview, offset: int) -> None:
    """Fill `view` from `offset`; what the file no longer has (it shrank: WAL knows) becomes zeros."""
    at = 0
    while at < len(view):
        count = os.preadv(descriptor, [view[at:]], offset + at)
        if not count:
            view[at:] = bytes(len(view) - at)
            return
        at += count


def _unreadable(path: bytes, error: OSError) -> Fault:
    return Fault(
        "io",
        f"cannot read {os.fsdecode(path)}: {error.strerror}",
        hint="run pgkeep as the account that owns the data directory; look for disk errors in the system's log",
    )
