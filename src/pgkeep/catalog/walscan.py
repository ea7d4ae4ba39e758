"""What happened in a stretch of WAL, read beforehand: so a restore knows whether its target can be reached.

1. What the repository's indexes say is not read again; what is read is indexed (`walindex`).
2. WAL is fetched, verified and read in batches by several processes, so that memory and disk are bounded whatever the
   range (`walbatch`); in WAL order, so that nothing is read behind the place that was sought.
3. Everything before that place is known in the end: commit times do not ascend, and every CREATE TABLESPACE that a
   recovery would replay must be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgkeep.catalog.walbatch import Batch, BatchReader, Reading, plan_batches
from pgkeep.catalog.walfacts import Finder, Sought, Stretch, WalScan
from pgkeep.catalog.walindex import IndexDamaged, KnownWal
from pgkeep.catalog.walread import ReadSegment
from pgkeep.clock import SystemClock
from pgkeep.crew import Crew
from pgkeep.errors import Fault
from pgkeep.events import Announce, Progress, silent
from pgkeep.format.objects import IncarnationInfo
from pgkeep.pg.programs import Programs
from pgkeep.repo.check import RepositoryAddress
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import Partial, WalArchive
from pgkeep.values.ids import ClusterUuid
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment

NOTHING_SOUGHT: Final = Sought()
_WORTH_A_PROCESS: Final = 2
"""Batches for which it pays to start a process: that takes as long as reading some 50 MB."""


@dataclass(frozen=True, slots=True)
class Stretched:
    """A range to scan: from the record at `first` to the end of segment number `last`, and `partial` behind it."""

    first: Lsn
    last: int
    partial: Partial | None

    def numbers(self, size: int) -> range:
        return range(self.first // size, self.last + 1 + (self.partial is not None))


def scan(
    archive: WalArchive,
    history: History,
    first: Lsn,
    last: int,
    programs: Programs,
    *,
    partial: Partial | None = None,
    sought: Sought = NOTHING_SOUGHT,
    workers: int = 2,
    announce: Announce = silent,
    scratch: Path | None = None,
    known: KnownWal | None = None,
) -> WalScan:
    """Read the WAL of `history`'s lineage from the record at `first` to the end of segment number `last`.

    It ends earlier, at the end of a segment, when what is `sought` was found.  `partial` continues behind `last`
    (continuity.reach gives both).  `programs` hold the pg_waldump of the major version that wrote the WAL.  Each
    worker writes at most about BATCH_BYTES, or two segments, to `scratch` (default: the system's temporary directory).
    Progress is announced in bytes of WAL.  `known` serves several scans of one lineage.

    Faults: wal-gap (a segment is missing, or unreadable although WAL lies behind it), Damaged, postgres-program, io,
    worker-died, and the store's.
    """
    size = archive.segment_size
    if partial is not None and partial.segment.number != last + 1:
        wanted = Segment(history.timeline, last + 1).name(size)
        raise Fault("wal-gap", f"{wanted} is missing before the partial {partial.segment.name(size)}")
    found = known or KnownWal(archive, history, SystemClock(), announce)
    scanned = Stretched(first, last, partial)
    if not scanned.numbers(size):
        return WalScan(first, first)
    found.look(first // size, last)
    reading = Reading(history, last, partial, programs, scratch)
    run = _Scan(archive, reading, scanned, found, announce, workers)
    while True:
        try:
            return run.search(sought)
        except IndexDamaged as damage:
            found.doubt(damage)


class _Scan:
    """Goes through a range in WAL order, and reads what is not known."""

    def __init__(
        self,
        archive: WalArchive,
        reading: Reading,
        scanned: Stretched,
        known: KnownWal,
        announce: Announce,
        workers: int,
    ) -> None:
        self._archive = archive
        self._reading = reading
        self._scanned = scanned
        self._known = known
        self._announce = announce
        self._workers = workers
        self._size = archive.segment_size

    def search(self, sought: Sought) -> WalScan:
        """IndexDamaged when something that was believed cannot be read."""
        finder = Finder(sought)
        waiting = iter(self._scanned.numbers(self._size))
        number: int | None = next(waiting)
        for _ in self._progress():
            while number is not None and (stretch := self._known.get(number)) is not None and not finder.is_over:
                finder.feed(self._cut(stretch))
                number = next(waiting, None)
            if finder.is_over:
                break
        self._known.keep()
        return finder.answer()

    def _cut(self, stretch: Stretch) -> Stretch:
        return stretch.since(self._scanned.first) if stretch.start < self._scanned.first else stretch

    def _progress(self) -> Iterator[None]:
        """Once for what is known, then after every batch that was read."""
        batches = self._batches()
        total = sum(len(batch.numbers(self._size)) for batch in batches) * self._size
        done = 0
        self._announce(Progress(0, total))
        yield
        for batch, segments in _results(self._archive, self._reading, batches, self._workers):
            self._known.add(segments)
            done += len(batch.numbers(self._size)) * self._size
            self._announce(Progress(done, total))
            yield

    def _batches(self) -> list[Batch]:
        """Cut what is not known into batches, ascending."""
        batches: list[Batch] = []
        numbers = self._scanned.numbers(self._size)
        unknown = [number for number in numbers if self._known.get(number) is None]
        for first, last in _runs(unknown):
            is_end = last == numbers[-1] and (self._scanned.partial is not None or not self._known.exists(last + 1))
            batches += plan_batches(Lsn(first * self._size), last, self._size, is_end=is_end)
        return batches


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of each gapless run."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield numbers[begin], numbers[at - 1]
            begin = at


def _results(
    archive: WalArchive, reading: Reading, batches: list[Batch], workers: int
) -> Iterator[tuple[Batch, list[ReadSegment]]]:
    crew_size = min(workers, len(batches) // _WORTH_A_PROCESS)
    if crew_size < 2:
        reader = BatchReader(archive, reading)
        try:
            yield from map(reader.run, batches)
        finally:
            reader.finish()
        return
    address = RepositoryAddress.of(archive.cluster.repository)
    where = (address, archive.cluster.uuid, archive.cluster.incarnations, archive.system_id, archive.segment_size)
    crew: Crew[Batch, tuple[Batch, list[ReadSegment]], None]
    with Crew(crew_size, _open_reader, *where, reading) as crew:
        yield from crew.run(batches)


def _open_reader(
    address: RepositoryAddress,
    cluster: ClusterUuid,
    incarnations: tuple[IncarnationInfo, ...],
    system_id: int,
    segment_size: int,
    reading: Reading,
) -> BatchReader:
    """In a process of its own: the same archive, opened again."""
    known = Cluster(address.open(), cluster, incarnations)
    return BatchReader(WalArchive(known, system_id, segment_size), reading)
