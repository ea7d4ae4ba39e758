"""The WAL archive as a stock: every object with its size and age, what a prune took out of it, and taking it out.

1. What goes is written down first (`pruned/`): from then on its absence is no gap.  Then the objects, the oldest of a
   run first, so that whoever is stopped leaves runs that still end where they did.
2. Histories and claims are never deleted here: whoever comes back must find which timeline was whose.
3. A WAL index goes when nothing of what it describes is left; whoever misses it makes it anew.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.deletion import PrunedInfo, PrunedRange
from pgkeep.format.header import ObjectType
from pgkeep.format.objects import decode_info, encode_object
from pgkeep.repo.features import WRITER
from pgkeep.repo.repository import Cluster, Entropy
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.windex import drop_index, list_indexes, open_index
from pgkeep.values.ids import ObjectId
from pgkeep.values.wal import Segment, WalFileKind, wal_file_kind


@dataclass(frozen=True, slots=True, order=True)
class WalObject:
    """An archived segment, partial segment or .backup file: its timeline and segment number, stored bytes, and when it
    was archived by the store's clock."""

    timeline: int
    number: int
    name: str
    """The last part of its key: the WAL file's name; of a partial segment with its flush position."""
    bytes: int
    archived: datetime
    is_segment: bool = True
    """A full one."""


def wal_stock(archive: WalArchive) -> list[WalObject]:
    """Every segment, partial segment and .backup file, ascending, by one listing of the store."""
    found: list[WalObject] = []
    for stat in archive.cluster.repository.store.list(names.wal_root(archive.cluster.uuid, archive.system_id)):
        name = stat.key.rsplit("/", 1)[1]
        kind = WalFileKind.PARTIAL if name[24:33] == ".partial." else wal_file_kind(name)
        if kind in (None, WalFileKind.HISTORY):
            continue
        with suppress(ValueError):
            segment = Segment.parse(name[:24], archive.segment_size)
            is_segment = kind is WalFileKind.SEGMENT
            found.append(WalObject(segment.timeline, segment.number, name, stat.size, stat.modified, is_segment))
    return sorted(found)


Ranges = Mapping[tuple[int, int], Sequence[tuple[int, int]]]
"""(system identifier, timeline) -> segment numbers first..last, ascending, apart from each other."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The WAL that prunes took out on purpose."""

    ranges: Ranges = field(default_factory=dict)

    def holds(self, system_id: int, timeline: int, number: int) -> bool:
        """Whether a segment was taken out."""
        ranges = self.ranges.get((system_id, timeline), ())
        at = bisect_right(ranges, number, key=lambda one: one[0]) - 1
        return at >= 0 and number <= ranges[at][1]

    def lost(self, system_id: int, timeline: int, first: int, last: int) -> Iterator[tuple[int, int]]:
        """What of the segments first..last was *not* taken out: ranges, ascending."""
        for begin, end in self.ranges.get((system_id, timeline), ()):
            if end < first:
                continue
            if begin > last:
                break
            if begin > first:
                yield first, begin - 1
            first = end + 1
        if first <= last:
            yield first, last


NOTHING_PRUNED: Final = Pruned()


def read_pruned(cluster: Cluster) -> Pruned:
    """What was taken out of the cluster's archives.  A record that cannot be read says nothing.  The store's faults."""
    return Pruned(_merged(row for _, rows in _records(cluster) for row in rows))


def _records(cluster: Cluster) -> list[tuple[str, list[PrunedRange]]]:
    """(key, rows) of every record; those that cannot be read have no rows, and stay."""
    found: list[tuple[str, list[PrunedRange]]] = []
    for stat in list(cluster.repository.store.list(names.pruned_records(cluster.uuid))):
        try:
            found.append(
                (
                    stat.key,
                    decode_info(cluster.repository.read(stat.key, ObjectType.PRUNED), PrunedInfo, stat.key).ranges,
                )
            )
        except Fault as fault:
            if fault.code not in ("format-damaged", "format-unsupported", "object-missing"):
                raise
    return found


def _merged(rows: Iterable[PrunedRange]) -> Ranges:
    by_timeline: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in sorted(rows, key=lambda one: (one.system_id, one.timeline, one.first)):
        ranges = by_timeline.setdefault((row.system_id, row.timeline), [])
        if ranges and row.first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], row.last))
        else:
            ranges.append((row.first, row.last))
    return by_timeline


def record_pruned(
    cluster: Cluster, rows: Iterable[PrunedRange], clock: Clock, entropy: Entropy = os.urandom
) -> None:  # fmt: skip
    """Write down what will be taken out, with what earlier prunes took; their records go once this one is durable."""
    known = _records(cluster)
    merged = _merged([*(row for _, old in known for row in old), *rows])
    ranges = [
        PrunedRange(system_id=system_id, timeline=timeline, first=first, last=last)
        for (system_id, timeline), found in merged.items()
        for first, last in found
    ]
    repository, key = cluster.repository, names.pruned_record(cluster.uuid, ObjectId(entropy(16)))
    info = PrunedInfo(writer=WRITER, created=clock.now().isoformat(), ranges=ranges)
    repository.store.put(key, encode_object(repository.header(ObjectType.PRUNED, key, clock), info))
    for old, _ in known:
        repository.store.delete(old)


def delete_wal(archive: WalArchive, objects: Iterable[WalObject], tick: Callable[[WalObject], None]) -> None:
    """Delete objects in the order given, after `record_pruned`; `tick` is called before each.  The store's faults."""
    store = archive.cluster.repository.store
    for one in objects:
        tick(one)
        store.delete(names.wal_file(archive.cluster.uuid, archive.system_id, one.name))


def drop_indexes(archive: WalArchive, timeline: int, is_left: Callable[[int], bool]) -> int:
    """Delete the indexes of a timeline of whose segments none `is_left`; how many.  The store's faults."""
    dropped = 0
    for first, key in list_indexes(archive, timeline):
        if is_left(first):
            continue
        try:
            count = len(open_index(archive, key).index.segments)
        except Fault as fault:
            if fault.code not in ("format-damaged", "format-unsupported", "object-missing"):
                raise
            count = 1
        if not any(is_left(number) for number in range(first, first + count)):
            drop_index(archive, key)
            dropped += 1
    return dropped
