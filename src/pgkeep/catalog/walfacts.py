"""What a scan of WAL keeps: a summary that does not grow with the number of transactions, folded piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pgkeep.pg.waldump import (
    RestorePoint,
    TablespaceCreated,
    TablespaceDropped,
    TransactionEnd,
    WalRecord,
)
from pgkeep.values.lsn import Lsn


@dataclass(frozen=True, slots=True)
class Sought:
    """The transaction end at which recovery would stop: `xid` (32 bits, top-level), or `time` (aware), or neither.

    A time stops at the first transaction that ended after it, or without `inclusive` at or after it
    (recoveryStopsBefore in xlogrecovery.c).
    """

    time: datetime | None = None
    xid: int | None = None
    inclusive: bool = True

    def is_hit(self, record: TransactionEnd) -> bool:
        if self.xid is not None:
            return record.xid == self.xid
        if self.time is None:
            return False
        return record.time > self.time if self.inclusive else record.time >= self.time


@dataclass(frozen=True, slots=True)
class WalScan:
    """What the records from `start` to `end` (the first byte after the last valid one) say, in WAL order."""

    start: Lsn
    end: Lsn
    transactions: int = 0
    """Commits and aborts."""
    first: TransactionEnd | None = None
    last: TransactionEnd | None = None
    last_commit: TransactionEnd | None = None
    latest: datetime | None = None
    """The newest time of any transaction's end: their order in WAL is not that of their times."""
    restore_points: tuple[RestorePoint, ...] = ()
    tablespaces: tuple[TablespaceCreated | TablespaceDropped, ...] = ()
    hit: TransactionEnd | None = None
    """The first transaction end that is what was sought."""
    before: TransactionEnd | None = None
    """The last transaction end before `hit`; without a hit the last of all."""
    owner: TransactionEnd | None = None
    """The transaction whose *sub*transaction has the xid that was sought: recovery cannot stop at that."""

    def created_before(self, stop: Lsn | None) -> tuple[TablespaceCreated, ...]:
        """The CREATE TABLESPACE records that recovery to `stop` (None: to the end) would replay."""
        created = (record for record in self.tablespaces if isinstance(record, TablespaceCreated))
        return tuple(record for record in created if stop is None or record.lsn < stop)


def fold(records: Iterable[WalRecord], sought: Sought, start: Lsn, end: Lsn) -> WalScan:
    """The summary of `records`, which must be in WAL order."""
    count = 0
    first = last = commit = hit = before = owner = None
    latest: datetime | None = None
    points: list[RestorePoint] = []
    tablespaces: list[TablespaceCreated | TablespaceDropped] = []
    for record in records:
        if isinstance(record, TransactionEnd):
            count += 1
            if hit is None:
                before, hit = (last, record) if sought.is_hit(record) else (record, None)
            if owner is None and sought.xid is not None and sought.xid in record.subxacts:
                owner = record
            first, last = first or record, record
            commit = record if record.committed else commit
            latest = record.time if latest is None else max(latest, record.time)
        elif isinstance(record, RestorePoint):
            points.append(record)
        elif isinstance(record, TablespaceCreated | TablespaceDropped):
            tablespaces.append(record)
    return WalScan(
        start, end, count, first, last, commit, latest, tuple(points), tuple(tablespaces), hit, before, owner
    )  # fmt: skip


def merge(parts: Sequence[WalScan]) -> WalScan:
    """The summary of adjoining stretches, at least one, in WAL order."""
    total = parts[0]
    for part in parts[1:]:
        total = _join(total, part)
    return total


def _join(left: WalScan, right: WalScan) -> WalScan:
    times = [time for time in (left.latest, right.latest) if time is not None]
    return replace(
        left,
        end=right.end,
        transactions=left.transactions + right.transactions,
        first=left.first or right.first,
        last=right.last or left.last,
        last_commit=right.last_commit or left.last_commit,
        latest=max(times, default=None),
        restore_points=left.restore_points + right.restore_points,
        tablespaces=left.tablespaces + right.tablespaces,
        hit=left.hit or right.hit,
        before=left.before if left.hit else right.before or left.before,
        owner=left.owner or right.owner,
    )
