"""A backup's worker process: reads runs of files, checks their pages, packs them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.backup.inheriting import BaseSettings, Inheritance, InheritedFile
from pgkeep.backup.report import Report, Reported, Settled
from pgkeep.backup.tasks import BaseFile, FileRun, How, Task
from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.format.manifest import Place
from pgkeep.format.runs import first_of_runs, lengths
from pgkeep.pg.page import BLCKSZ, PageChecker, PageReport
from pgkeep.pg.relmap import RELMAP_NAME, read_relmap
from pgkeep.repo.check import RepositoryAddress
from pgkeep.repo.packwriter import HEADROOM, PackWriter, WrittenPack
from pgkeep.values.ids import ClusterUuid, ObjectId

CHUNK: Final = 2 << 20
"""Bytes read and checked at a time: 256 pages, which numpy likes and the processor's cache holds."""
Blocks = npt.NDArray[np.int64]
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
    base: BaseSettings | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of a task's runs, and what this worker has done so far."""

    reported: Reported
    worker: int
    """Process id."""
    stored: int
    """Bytes of this worker's packs, the one that is being filled included."""
    packs: tuple[ObjectId, ...]
    """Packs that this worker has put into the store since the last result, or has begun to."""


@dataclass(frozen=True, slots=True)
class Finished:
    """All that one worker has made."""

    packs: list[WrittenPack]
    live: dict[ObjectId, bytes]
    """Of the base's packs: bitmaps of the frames that its files need."""


class BackupWorker:
    """See the module's docstring."""

    def __init__(self, settings: WorkerSettings) -> None:
        repository = settings.repository.open()
        self._settings = settings
        self._writer = PackWriter(
            repository, settings.cluster, SystemClock(), page_size=BLCKSZ, level=settings.level, ahead=True
        )
        self._keys = repository.keys
        self._base = Inheritance(repository, settings.cluster, settings.base) if settings.base else None
        self._told = 0
        self._checker = PageChecker()
        self._memory = memoryview(bytearray(HEADROOM + CHUNK))
        self._buffer = self._memory[HEADROOM:]
        self._gathered = bytearray(CHUNK)

    def run(self, task: Task) -> TaskResult:
        """Copy the task's runs.

        The empty task is the last one: a base that cannot be read is told of while the backup can still do without it.
        """
        if not task and self._base:
            self._base.live.bitmaps()
        report = Report()
        root = os.fsencode(self._settings.data_directory)
        for run in task:
            self._run(root, run, report)
        new = tuple(pack.id for pack in self._writer.written[self._told :])
        self._told += len(new)
        return TaskResult(report.done(), os.getpid(), self._writer.stored, new)

    def finish(self) -> Finished:
        return Finished(self._writer.finish(), self._base.live.bitmaps() if self._base else {})

    def abandon(self) -> None:
        """A result that nobody has read names packs that nobody else would remove."""
        self._writer.discard()

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
            if run.base is None or run.base.how is not How.SUMMARY:
                os.posix_fadvise(descriptor, run.start, run.length, os.POSIX_FADV_SEQUENTIAL)
            if run.path.endswith(_RELMAP):
                self._relmap(path, run, report)
            elif run.pages and run.base is not None:
                self._inherit(descriptor, run, run.base, report)
            elif not run.pages and 0 < run.length <= CHUNK and not run.start:
                view = memoryview(self._buffer)[: run.length]
                _read_exactly(descriptor, view, 0)
                self._whole(run, view, report)
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
        self._whole(run, memoryview(data), report)

    def _whole(self, run: FileRun, data: memoryview, report: Report) -> None:
        """A file that is no pages and small: taken over when the base has the same content."""
        digest = self._keys.file(data)
        known = self._base.takes_over(run, digest) if self._base else None
        if known is None:
            pack, at = self._writer.add_bytes(run.path, 0, data)
            known = Settled(Place.INLINE, pack, at, hash=digest)
        report.settle(run.file, known)

    def _inherit(self, descriptor: int, run: FileRun, base: BaseFile, report: Report) -> None:
        assert self._base is not None
        file = self._base.file(run, base)
        changed = (
            self._named(descriptor, run, file) if base.how is How.SUMMARY else self._differing(descriptor, run, file)
        )
        for blocks, data in changed:
            seen = self._judge(descriptor, run, blocks, data, report)
            file.place(blocks, *self._writer.add_blocks(run.path, blocks, data, seen.lsns))
            report.store(len(blocks))
        if run.is_part:
            report.place_part(run.file, run.start, self._base.extents(file), BLCKSZ)
            if self._base.keeps(file):
                report.keep(run.file, base.settled, run.length, run.whole)
        elif run.length:
            report.settle(run.file, self._base.settle(run, file, self._writer))

    def _differing(self, descriptor: int, run: FileRun, file: InheritedFile) -> Iterator[tuple[Blocks, memoryview]]:
        """All of the run is read; what differs from the base, as (numbers within the file, pages), a buffer at a time.

        Few pages of a chunk differ, and to judge twenty costs as much as to judge two hundred.
        """
        gathered = np.frombuffer(self._gathered, np.uint8).reshape(-1, BLCKSZ)
        found: list[Blocks] = []
        held = 0
        for done in range(0, run.length, CHUNK):
            view = memoryview(self._buffer)[: min(CHUNK, run.length - done)]
            _read_exactly(descriptor, view, run.start + done)
            rows = file.differing((run.start + done) // BLCKSZ, view)
            if held + len(rows) > len(gathered):
                yield np.concatenate(found), memoryview(self._gathered)[: held * BLCKSZ]
                found, held = [], 0
            np.take(
                np.frombuffer(view, np.uint8).reshape(-1, BLCKSZ), rows, axis=0, out=gathered[held : held + len(rows)]
            )
            found.append(rows + (run.start + done) // BLCKSZ)
            held += len(rows)
        if held:
            yield np.concatenate(found), memoryview(self._gathered)[: held * BLCKSZ]

    def _named(self, descriptor: int, run: FileRun, file: InheritedFile) -> Iterator[tuple[Blocks, memoryview]]:
        """What must be stored is known before it is read."""
        for blocks in file.named(descriptor):
            view = memoryview(self._buffer)[: len(blocks) * BLCKSZ]
            first = first_of_runs(blocks)
            offsets = (blocks[first] * BLCKSZ).tolist()
            sizes = (lengths(first, len(blocks)) * BLCKSZ).tolist()
            for offset, size in zip(offsets, sizes, strict=True):
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
            at = 0
            for offset, size in zip(offsets, sizes, strict=True):
                part = view[at : at + size]
                if os.preadv(descriptor, [part], offset) != size:  # most runs are of one page: no call more
                    _read_exactly(descriptor, part, offset)
                at += size
            yield blocks, view

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
        first = (run.start + done) // BLCKSZ
        blocks = np.arange(first, first + len(view) // BLCKSZ)
        seen = self._judge(descriptor, run, blocks, view, report)
        report.store(len(blocks))
        return self._writer.add_pages(run.path, first, self._memory[: HEADROOM + len(view)], seen.lsns, HEADROOM)

    def _judge(self, descriptor: int, run: FileRun, blocks: Blocks, view: memoryview, report: Report) -> PageReport:
        """Check the pages `blocks` (numbers within the file) that `view` holds; wrong ones are reported."""
        numbers = blocks + (run.first_block - run.start // BLCKSZ)
        seen = self._inspect(view, numbers)
        if seen.bad.any():
            seen = self._read_again(descriptor, view, blocks, numbers, seen)
        for page in np.flatnonzero(seen.bad):
            report.doubt(run.file, int(blocks[page]))
        for page in np.flatnonzero(seen.pending):
            report.doubt(run.file, int(blocks[page]), int(seen.lsns[page]))
        return seen

    def _inspect(self, view: memoryview, numbers: Blocks) -> PageReport:
        settings = self._settings
        return self._checker.inspect(view, numbers, checksums=settings.checksums, start_lsn=settings.start_lsn)

    def _read_again(
        self, descriptor: int, view: memoryview, blocks: Blocks, numbers: Blocks, seen: PageReport
    ) -> PageReport:
        """A page whose halves were read around its writing is whole the second time."""
        time.sleep(REREAD_DELAY)
        for page in np.flatnonzero(seen.bad):
            at = int(page) * BLCKSZ
            _read_exactly(descriptor, view[at : at + BLCKSZ], int(blocks[page]) * BLCKSZ)
        return self._inspect(view, numbers)


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
