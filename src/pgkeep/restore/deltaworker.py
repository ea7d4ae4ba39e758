"""A delta's worker process: reads what is there, and fetches and writes only what differs.

1. A page is right when the 64-bit keyed hash of its bytes is the one in the pack's page table
   (docs/decisions/0009-delta-by-page-hash.md); its frame is not fetched.  Frames that hold wrong pages are, and only
   the wrong pages are written.
2. Files of bytes have no such table, and are little: they are fetched, and written where they differ.
3. What cannot be read whole (missing, too short) differs.  Nobody but a restore writes there meanwhile.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from pgkeep.format.footer import U64
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import Unit
from pgkeep.repo.packreader import PackReader
from pgkeep.restore import linux
from pgkeep.restore.filewriter import FILES_OPEN
from pgkeep.restore.gather import gather
from pgkeep.restore.layout import ROW, Rows, TargetFile, part_of
from pgkeep.restore.tree import Tree, io_fault
from pgkeep.restore.worker import Done, RestoreWorker, Task, WorkerSettings

CHUNK: Final = 256 << 10
"""Bytes read and hashed at a time, which the processor's cache holds (1 MiB: 5 % slower)."""


@dataclass(frozen=True, slots=True)
class CompareRows:
    """Compare rows of one pack (as bytes of ROW, by unit and ordinal) with the files that they name; mend those."""

    pack: int
    rows: bytes
    files: dict[int, TargetFile]


@dataclass(frozen=True, slots=True)
class Compared(Done):
    """As Done; `examined` are the bytes of the rows, right and wrong."""

    examined: int = 0


class DeltaWorker(RestoreWorker):
    """See the module's docstring."""

    PAGE_HASHES: ClassVar[bool] = True

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self._local = LocalFiles(self._trees)
        self._buffer = bytearray(CHUNK // settings.page_size * settings.page_size)

    def run(self, task: Task | CompareRows) -> Done:
        if isinstance(task, CompareRows):
            return self._compare(task)
        return super().run(task)

    def finish(self) -> None:
        self._local.close()
        super().finish()

    def _compare(self, task: CompareRows) -> Compared:
        reader = self._reader(task.pack)
        rows = np.frombuffer(task.rows, ROW)
        pages, other = rows[rows["unit"] == Unit.PAGES], rows[rows["unit"] == Unit.BYTES]
        self._mend_pages(reader, pages, task.files)
        self._mend_bytes(reader, other, task.files)
        self._writer.drain()
        examined = int(pages["count"].sum()) * reader.page_size + int(other["count"].sum())
        return Compared(written=self._writer.taken(), examined=examined)

    def _mend_pages(self, reader: PackReader, rows: Rows, files: dict[int, TargetFile]) -> None:
        found = [part for row in rows for part in self._wrong(reader, row, files[int(row["file"])])]
        if not found:
            return
        wrong = np.concatenate(found)
        size = reader.page_size
        numbers, starts = wrong["file"].tolist(), wrong["start"].tolist()
        columns = wrong["ordinal"].astype(np.int64), wrong["count"].astype(np.int64)
        for piece in gather(reader, FrameKind.PAGES, *columns):
            number = numbers[piece.run]
            self._writer.write(number, files[number], (starts[piece.run] + piece.skipped) * size, piece.data)
        self._writer.drain()
        for number in set(numbers):
            self._local.start_writing(number, files[number])

    def _wrong(self, reader: PackReader, row: np.void, file: TargetFile) -> Iterator[Rows]:
        """The parts of a row whose pages differ, as rows."""
        number, start, count, ordinal = (int(row[name]) for name in ("file", "start", "count", "ordinal"))
        descriptor = self._local.descriptor(number, file)
        if descriptor is None or reader.footer.hashes is None:
            yield part_of(row, 0, count)
            return
        step = len(self._buffer) // reader.page_size
        for at in range(0, count, step):
            pages = min(step, count - at)
            view = memoryview(self._buffer)[: pages * reader.page_size]
            filled = self._local.read(descriptor, file, (start + at) * reader.page_size, view)
            expected = reader.footer.hashes[ordinal + at : ordinal + at + pages]
            whole = filled // reader.page_size
            hashes = self._repository.keys.pages(view[: whole * reader.page_size], reader.page_size)
            if hashes != expected.tobytes() or whole < pages:
                for begin, length in runs(differing(hashes, expected, pages)):
                    yield part_of(row, at + begin, length)

    def _mend_bytes(self, reader: PackReader, rows: Rows, files: dict[int, TargetFile]) -> None:
        if not len(rows):
            return
        numbers, starts = rows["file"].tolist(), rows["start"].tolist()
        columns = rows["ordinal"].astype(np.int64), rows["count"].astype(np.int64)
        for piece in gather(reader, FrameKind.BYTES, *columns):
            number, offset = numbers[piece.run], starts[piece.run] + piece.skipped
            if not self._local.holds(number, files[number], offset, piece.data):
                self._writer.write(number, files[number], offset, piece.data)


def differing(hashes: bytes, expected: U64, pages: int) -> npt.NDArray[np.bool_]:
    """Which of `pages` pages differ; those without a hash on either side do.

    A pack that has fewer hashes than pages is told by `gather`, which knows the ordinals.
    """
    differ = np.ones(pages, np.bool_)
    found = np.frombuffer(hashes, "<u8")
    known = min(len(found), len(expected))
    differ[:known] = found[:known] != expected[:known]
    return differ


def runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(first, length) of every run of True."""
    places = np.flatnonzero(mask)
    for part in np.split(places, np.flatnonzero(places[1:] != places[:-1] + 1) + 1):
        if len(part):
            yield int(part[0]), len(part)


class LocalFiles:
    """Files that are read where they are; those that are missing are remembered as long as they are asked for."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        self._open: OrderedDict[int, int] = OrderedDict()

    def descriptor(self, number: int, file: TargetFile) -> int | None:
        """Of file `number`, for reading; None when it is not there."""
        if (known := self._open.get(number)) is not None:
            self._open.move_to_end(number)
            return known
        descriptor = self._trees[file.root].open_if_there(file.path)
        if descriptor is None:
            return None
        self._open[number] = descriptor
        if len(self._open) > FILES_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def read(self, descriptor: int, file: TargetFile, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; how many bytes there were."""
        at = 0
        try:
            while at < len(view) and (count := os.preadv(descriptor, [view[at:]], offset + at)):
                at += count
        except OSError as error:
            raise io_fault(error, self._trees[file.root].full(file.path)) from error
        return at

    def holds(self, number: int, file: TargetFile, offset: int, data: memoryview) -> bool:
        """True when `data` lies at `offset` already."""
        descriptor = self.descriptor(number, file)
        if descriptor is None:
            return False
        found = bytearray(len(data))
        return self.read(descriptor, file, offset, memoryview(found)) == len(data) and found == data

    def start_writing(self, number: int, file: TargetFile) -> None:
        """Let the kernel write a file's scattered pages while others are compared: less is left for the fsync."""
        if (descriptor := self.descriptor(number, file)) is not None:
            linux.start_writing(descriptor, 0, 0)

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
