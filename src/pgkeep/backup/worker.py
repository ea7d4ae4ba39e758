"""A backup's worker process: reads runs of files, checks their pages, packs them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pgkeep.backup.tasks import FileRun, Task
from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.format.keyed import HashKeys
from pgkeep.pg.page import BLCKSZ, PageChecker, PageReport
from pgkeep.pg.relmap import RELMAP_NAME, read_relmap
from pgkeep.repo.packwriter import PackWriter, WrittenPack
from pgkeep.repo.repository import Repository
from pgkeep.store.open import open_store
from pgkeep.values.ids import ClusterUuid, ObjectId

CHUNK: Final = 2 << 20
"""Bytes read and checked at a time: 256 pages, which numpy likes and the processor's cache holds."""
_RELMAP: Final = f"/{RELMAP_NAME}".encode()
REREAD_DELAY: Final = 0.01
"""Seconds before a page that looks damaged is read again: a write in flight is over by then."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker process is built from (picklable)."""

    url: str
    repository: ObjectId
    hash_key: bytes
    cluster: ClusterUuid
    data_directory: str
    level: int
    checksums: bool
    start_lsn: int


@dataclass(frozen=True, slots=True)
class PlacedExtent:
    """Units of a run that lie together: `count` pages or bytes from `ordinal` in the pack."""

    pack: ObjectId
    ordinal: int
    count: int


@dataclass(frozen=True, slots=True)
class PendingPage:
    """A page that is wrong but whose LSN says that WAL replaces it: true if that LSN is not beyond the stop."""

    block: int
    lsn: int


@dataclass(slots=True)
class RunResult:
    """What became of a run.  Blocks are numbers within the file."""

    file: int
    start: int
    length: int
    extents: list[PlacedExtent] = field(default_factory=list)
    vanished: bool = False
    bad: list[int] = field(default_factory=list)
    pending: list[PendingPage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The results of a task's runs, and what this worker has done so far."""

    runs: list[RunResult]
    worker: int
    """Process id."""
    stored: int
    """Bytes of this worker's packs, the one that is being filled included."""
    packs: tuple[ObjectId, ...]
    """Packs that this worker has put into the store since the last result."""


class BackupWorker:
    """See the module's docstring."""

    def __init__(self, settings: WorkerSettings) -> None:
        repository = Repository(open_store(settings.url), settings.repository, HashKeys(settings.hash_key))
        self._settings = settings
        self._writer = PackWriter(repository, settings.cluster, SystemClock(), page_size=BLCKSZ, level=settings.level)
        self._told = 0
        self._checker = PageChecker()
        self._buffer = bytearray(CHUNK)

    def run(self, task: Task) -> TaskResult:
        results: list[RunResult] = []
        root = os.fsencode(self._settings.data_directory)
        for run in task:
            results.append(self._run(root, run))
        new = tuple(pack.id for pack in self._writer.written[self._told :])
        self._told += len(new)
        return TaskResult(results, os.getpid(), self._writer.stored, new)

    def finish(self) -> list[WrittenPack]:
        return self._writer.finish()

    def _run(self, root: bytes, run: FileRun) -> RunResult:
        result = RunResult(run.file, run.start, run.length)
        path = os.path.join(root, run.path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            # DROP and TRUNCATE remove files while we read; WAL from the start on knows (basebackup.c, sendFile).
            result.vanished = True
            return result
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            os.posix_fadvise(descriptor, run.start, run.length, os.POSIX_FADV_SEQUENTIAL)
            if run.path.endswith(_RELMAP):
                self._relmap(path, run, result)
            else:
                self._copy(descriptor, path, run, result)
        except FileNotFoundError:
            result.vanished = True
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(descriptor)
        return result

    def _relmap(self, path: bytes, run: FileRun, result: RunResult) -> None:
        """pg_filenode.map is overwritten in place before 16: a reading whose checksum is wrong is repeated."""
        data = read_relmap(os.fsdecode(path))
        if len(data) != run.length:
            raise Fault("datadir-invalid", f"{os.fsdecode(path)} has {len(data)} bytes, expected {run.length}")
        result.extents.append(PlacedExtent(*self._writer.add_bytes(run.path, 0, memoryview(data)), len(data)))

    def _copy(self, descriptor: int, path: bytes, run: FileRun, result: RunResult) -> None:
        done = 0
        while done < run.length:
            view = memoryview(self._buffer)[: min(CHUNK, run.length - done)]
            _read_exactly(descriptor, view, run.start + done)
            if run.pages:
                place = self._pages(descriptor, run, done, view, result)
                count = len(view) // BLCKSZ
            else:
                place = self._writer.add_bytes(run.path, run.start + done, view)
                count = len(view)
            _extend(result.extents, PlacedExtent(*place, count))
            done += len(view)

    def _pages(
        self, descriptor: int, run: FileRun, done: int, view: memoryview, result: RunResult
    ) -> tuple[ObjectId, int]:
        block = run.first_block + done // BLCKSZ
        report = self._inspect(view, block)
        if report.bad.any():
            report = self._read_again(descriptor, run.start + done, view, block, report)
        file_block = (run.start + done) // BLCKSZ
        result.bad += [file_block + int(page) for page in np.flatnonzero(report.bad)]
        result.pending += [
            PendingPage(file_block + int(page), int(report.lsns[page])) for page in np.flatnonzero(report.pending)
        ]
        return self._writer.add_pages(run.path, file_block, view, report.lsns)

    def _inspect(self, view: memoryview, block: int) -> PageReport:
        settings = self._settings
        return self._checker.inspect(view, block, checksums=settings.checksums, start_lsn=settings.start_lsn)

    def _read_again(self, descriptor: int, offset: int, view: memoryview, block: int, report: PageReport) -> PageReport:
        """A page whose halves were read around its writing is whole the second time."""
        time.sleep(REREAD_DELAY)
        for page in np.flatnonzero(report.bad):
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


def _extend(extents: list[PlacedExtent], extent: PlacedExtent) -> None:
    if extents:
        last = extents[-1]
        if last.pack == extent.pack and last.ordinal + last.count == extent.ordinal:
            extents[-1] = PlacedExtent(last.pack, last.ordinal, last.count + extent.count)
            return
    extents.append(extent)


def _unreadable(path: bytes, error: OSError) -> Fault:
    return Fault(
        "io",
        f"cannot read {os.fsdecode(path)}: {error.strerror}",
        hint="run pgkeep as the account that owns the data directory; look for disk errors in the system's log",
    )
