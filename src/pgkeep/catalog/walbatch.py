"""A stretch of WAL read on its own: which segments it needs, how they are laid out, and what is read from them.

1. A batch reads the records that *begin* in it.  One that crosses its end goes on in the next segment, whose beginning
   is fetched as far as the record reaches.
2. All segments are named as if they were of the lineage's last timeline, so that pg_waldump follows records over a
   switch: a new timeline's first segment holds a copy of its parent's bytes up to the switch.
3. The last batch reads on to the end of WAL; every other must be readable to its own end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from pgkeep.catalog.walread import Gathered, ReadSegment
from pgkeep.errors import Fault
from pgkeep.format.limits import MAX_FRAME_DATA
from pgkeep.pg.programs import Programs
from pgkeep.pg.walborder import first_record
from pgkeep.pg.waldump import WalRange, end_of_wal, read_records
from pgkeep.pg.walrecord import WAL_PAGE
from pgkeep.repo.walarchive import Partial, WalArchive
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment

BATCH_BYTES: Final = 128 << 20
"""WAL that a batch holds on disk, unless a single segment is larger."""
_ZEROS: Final = bytes(MAX_FRAME_DATA)
_LOOK: Final = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that begin at or after `start` and before `end`, which is the end of a segment."""

    start: Lsn
    end: Lsn
    is_last: bool

    def numbers(self, size: int) -> range:
        """Its segments of `size` bytes."""
        return range(self.start // size, self.end // size)


@dataclass(frozen=True, slots=True)
class Reading:
    """What every batch of a scan needs to know besides its borders; picklable."""

    history: History
    last: int
    """Number of the last full segment."""
    partial: Partial | None
    programs: Programs
    scratch: Path | None


def plan_batches(first: Lsn, last: int, size: int, *, is_end: bool = True) -> list[Batch]:
    """Cut the segments of `size` bytes from the one that holds `first` to number `last` into batches, ascending.

    `is_end` says that no WAL follows: the last batch is then read to the end of what is valid.
    """
    step = max(BATCH_BYTES // size, 1)
    borders = [*range(first // size, last + 1, step), last + 1]
    return [
        Batch(Lsn(max(first, begin * size)), Lsn(end * size), is_end and end == last + 1)
        for begin, end in pairwise(borders)
    ]


class BatchReader:
    """Reads batches, one after the other, in whatever process it was made; its files go with `finish` or `abandon`.

    The files of one batch are written over with the next: memory for them need not be found again.
    """

    def __init__(self, archive: WalArchive, reading: Reading) -> None:
        self._archive = archive
        self._reading = reading
        self._size = archive.segment_size
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._spare: list[Path] = []
        self._named = 0

    def run(self, batch: Batch) -> tuple[Batch, list[ReadSegment]]:
        """What the records say that begin in each of the batch's segments.  Faults as `walscan.scan`."""
        directory = self._directory()
        for number in batch.numbers(self._size):
            self._place(directory, number, self._content(number))
        return batch, self._read(directory, batch)

    def finish(self) -> None:
        """Remove the files."""
        if self._scratch is not None:
            self._scratch.cleanup()

    abandon = finish

    def _directory(self) -> Path:
        """Where the next batch is laid out; what was laid out there before is spare."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="pgkeep-wal-", dir=self._reading.scratch)
        directory = Path(self._scratch.name)
        for path in directory.iterdir():
            if path not in self._spare:
                self._named += 1
                self._spare.append(path.rename(directory / f"spare-{self._named}"))
        return directory

    def _read(self, directory: Path, batch: Batch) -> list[ReadSegment]:
        start = self._start(directory, batch)
        behind = None if batch.is_last else self._fetch_crossing(directory, batch)
        found = Gathered(batch.numbers(self._size), self._size)
        if start < batch.end:  # otherwise one record fills the whole batch
            source = WalRange(directory, self._reading.history.timeline, start, behind)
            records = read_records(self._reading.programs, source)
            found.take(record for record in records if record.lsn < batch.end)
        if behind is None:
            behind = end_of_wal(self._reading.programs, directory, self._reading.history.timeline, start)
        return found.segments(self._ends(directory, batch, behind))

    def _ends(self, directory: Path, batch: Batch, behind: Lsn) -> list[Lsn]:
        """Where the last record that begins in each segment, or goes on through it, ends."""
        found: list[Lsn] = []
        for number in batch.numbers(self._size)[1:]:
            with self._path(directory, number).open("rb") as file:
                found.append(first_record(file.read(WAL_PAGE), number * self._size, self._size))
        return [*found, behind]

    def _start(self, directory: Path, batch: Batch) -> Lsn:
        """The first record of the batch: a caller's own start is one, a border is in the middle of one."""
        if batch.start % self._size:
            return batch.start
        with self._path(directory, batch.start // self._size).open("rb") as file:
            return first_record(file.read(WAL_PAGE), batch.start, self._size)

    def _fetch_crossing(self, directory: Path, batch: Batch) -> Lsn:
        """Lay out what the last record needs behind the batch; where that record ends."""
        number = batch.end // self._size
        beginning = b"".join(self._content(number, WAL_PAGE))
        end = first_record(beginning, batch.end, self._size)
        while number * self._size < end:
            self._place(directory, number, self._content(number, end - number * self._size))
            number += 1
        return end

    def _content(self, number: int, length: int | None = None) -> Iterable[bytes | memoryview]:
        """A segment's bytes in pieces, or at least its first `length`.  Fault 'wal-gap' when it is not there."""
        reading = self._reading
        try:
            if number > reading.last and reading.partial is not None:
                return [self._archive.partial(reading.partial)]
            segment = Segment(reading.history.segment_timeline(number, self._size), number)
            if length is None or length >= self._size:
                return self._archive.pieces(segment)
            return [self._archive.beginning(segment, length)]
        except Fault as fault:
            if fault.code != "object-missing":
                raise
            raise Fault("wal-gap", f"{fault.message}, and the WAL to be read needs it") from None

    def _path(self, directory: Path, number: int) -> Path:
        return directory / Segment(self._reading.history.timeline, number).name(self._size)

    def _place(self, directory: Path, number: int, content: Iterable[bytes | memoryview]) -> None:
        """Write a segment's file, sparse where there are zeros and behind `content`; Fault 'io'."""
        path = self._path(directory, number)
        try:
            if self._spare:
                self._spare.pop().rename(path)
            with path.open("r+b" if path.exists() else "wb") as file:
                for piece in content:
                    # The rest of a segment that was switched is zeros: they need no place on disk.
                    if _is_zeros(piece):
                        file.truncate()  # here and behind, a spare file has other bytes
                        file.seek(len(piece), os.SEEK_CUR)
                    else:
                        file.write(piece)
                file.truncate()
                file.truncate(self._size)
        except OSError as error:
            raise Fault(
                "io",
                f"{path} could not be written: {error.strerror}",
                hint="free space in the temporary directory, or name another one with TMPDIR",
            ) from error


def _is_zeros(piece: bytes | memoryview) -> bool:
    # A look at the beginning spares a copy of nearly all that are not.
    return bytes(piece[:_LOOK]) == _ZEROS[: min(_LOOK, len(piece))] and bytes(piece) == _ZEROS[: len(piece)]
