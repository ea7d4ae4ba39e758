"""Records in memory as the search for a target sees them: what a test says instead of what pg_waldump printed."""

from __future__ import annotations

from collections.abc import Iterable

from pgkeep.catalog.walfacts import Sought, Stretch, WalScan, find
from pgkeep.catalog.walread import Gathered, stretch_of
from pgkeep.pg.waldump import WalRecord
from pgkeep.values.lsn import Lsn


def stretches(records: Iterable[WalRecord], start: int, end: int, size: int = 1 << 20) -> list[Stretch]:
    """The segments of `size` bytes from the one that holds `start` to the one that ends at or holds `end`."""
    gathered = Gathered(range(start // size, max((end - 1) // size, start // size) + 1), size)
    gathered.take(records)
    numbers = range(start // size, max((end - 1) // size, start // size) + 1)
    ends = [Lsn(min((number + 1) * size, end)) for number in numbers]
    return [stretch_of(read, size).since(Lsn(start)) for read in gathered.segments(ends)]


def fold(records: Iterable[WalRecord], sought: Sought, start: int, end: int, size: int = 1 << 20) -> WalScan:
    """What a scan of these records says."""
    return find(stretches(records, start, end, size), sought)
