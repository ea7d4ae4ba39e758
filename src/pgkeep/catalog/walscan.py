"""What happened in a stretch of WAL, read beforehand: so a restore knows whether its target can be reached.

WAL is fetched, verified and read in batches by several processes, so that memory and disk are bounded whatever the
range; `walbatch` reads one of them, `walfacts` says what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pgkeep.catalog.walbatch import Batch, BatchReader, Reading, plan_batches
from pgkeep.catalog.walfacts import Sought, WalScan, merge
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

NOTHING_SOUGHT = Sought()
_WORTH_A_PROCESS = 2
"""Batches for which it pays to start a process: that takes as long as reading some 50 MB."""


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
) -> WalScan:
    """Read the WAL of `history`'s lineage from the record at `first` to the end of segment number `last`.

    `partial` continues behind `last` (continuity.reach gives both).  `programs` hold the pg_waldump of the major
    version that wrote the WAL.  Each worker writes at most about BATCH_BYTES, or two segments, to `scratch` (default:
    the system's temporary directory).  Progress is announced in bytes of WAL.

    Faults: wal-gap (a segment is missing, or unreadable although WAL lies behind it), Damaged, postgres-program, io,
    worker-died, and the store's.
    """
    size = archive.segment_size
    if partial is not None and partial.segment.number != last + 1:
        wanted = Segment(history.timeline, last + 1).name(size)
        raise Fault("wal-gap", f"{wanted} is missing before the partial {partial.segment.name(size)}")
    reading = Reading(history, last, partial, programs, sought, scratch)
    batches = plan_batches(first, last + (partial is not None), size)
    total = sum(len(batch.numbers(size)) for batch in batches) * size
    found: list[WalScan] = []
    done = 0
    announce(Progress(0, total))
    for batch, result in _results(archive, reading, batches, workers):
        found.append(result)
        done += len(batch.numbers(size)) * size
        announce(Progress(done, total))
    return merge(sorted(found, key=lambda part: part.start)) if found else WalScan(first, first)


def _results(
    archive: WalArchive, reading: Reading, batches: list[Batch], workers: int
) -> Iterator[tuple[Batch, WalScan]]:
    crew_size = min(workers, len(batches) // _WORTH_A_PROCESS)
    if crew_size < 2:
        yield from map(BatchReader(archive, reading).run, batches)
        return
    address = RepositoryAddress.of(archive.cluster.repository)
    where = (address, archive.cluster.uuid, archive.cluster.incarnations, archive.system_id, archive.segment_size)
    crew: Crew[Batch, tuple[Batch, WalScan], None]
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
