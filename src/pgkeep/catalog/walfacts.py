"""What is known of a stretch of WAL, and where in it recovery would stop for what is sought.

A `Stretch` is what the records that begin in one segment say.  Its transactions are columns that are loaded only when
they are needed: most segments can be passed by their summary, because no transaction in them ended late enough, or none
had the xid.  So memory does not grow with the number of transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from pgkeep.format.walends import COMMITTED, PREPARED, Ends
from pgkeep.pg.waldump import RestorePoint, TablespaceCreated, TablespaceDropped, TransactionEnd
from pgkeep.values.lsn import Lsn

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds_of(moment: datetime) -> int:
    """Since 1970-01-01 UTC, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """The inverse of `microseconds_of`."""
    return _EPOCH + timedelta(microseconds=microseconds)


@dataclass(frozen=True, slots=True)
class Sought:
    """The transaction end at which recovery would stop; at most one of the fields but `inclusive` is set.

    `xid`: 32 bits, top-level.  `time` (aware): the first that ended after it, or without `inclusive` at or after it
    (recoveryStopsBefore in xlogrecovery.c).  `lsn`: the first that begins behind it, or without `inclusive` at or
    behind it.  `name`: the first that begins behind the first restore point of that name.
    """

    time: datetime | None = None
    xid: int | None = None
    lsn: Lsn | None = None
    name: str | None = None
    inclusive: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """What the records from `start` on that begin in segment `number` say."""

    number: int
    start: Lsn
    end: Lsn
    """The first byte after the last of them; at least the segment's end where a later segment is there."""
    transactions: int
    earliest: int
    latest: int
    """Of the transactions' times, microseconds since 1970."""
    lowest: int
    highest: int
    """Of their xids and subtransactions' xids, 32 bits."""
    restore_points: tuple[RestorePoint, ...]
    tablespaces: tuple[TablespaceCreated | TablespaceDropped, ...]
    load: Callable[[], Ends | None]
    """The transactions; None for none."""

    def since(self, start: Lsn) -> Stretch:
        """Without the records that begin before `start`."""
        if start <= self.start:
            return self
        ends = self.load()
        first = 0 if ends is None else int(np.searchsorted(ends.lsn, np.uint64(start)))
        kept = None if ends is None or first == len(ends) else ends.part(first, len(ends))
        return replace(
            self,
            start=start,
            transactions=0 if kept is None else len(kept),
            restore_points=tuple(point for point in self.restore_points if point.lsn >= start),
            tablespaces=tuple(space for space in self.tablespaces if space.lsn >= start),
            load=lambda: kept,
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """Smallest and largest of what the transactions of a segment have; see Stretch."""

    earliest: int
    latest: int
    lowest: int
    highest: int


def bounds_of(ends: Ends | None) -> Bounds:
    if ends is None or not len(ends):
        return Bounds(0, 0, 0, 0)
    xids = np.concatenate((ends.xid, ends.subxacts))
    return Bounds(int(ends.time.min()), int(ends.time.max()), int(xids.min()), int(xids.max()))


def transaction(ends: Ends, row: int) -> TransactionEnd:
    """One row as a value."""
    behind = int(ends.count[: row + 1].sum())
    flags = int(ends.flags[row])
    return TransactionEnd(
        lsn=Lsn(int(ends.lsn[row])),
        end=Lsn(int(ends.end[row])),
        xid=int(ends.xid[row]),
        committed=bool(flags & COMMITTED),
        time=moment_of(int(ends.time[row])),
        subxacts=tuple(ends.subxacts[behind - int(ends.count[row]) : behind].tolist()),
        prepared=bool(flags & PREPARED),
    )


@dataclass(frozen=True, slots=True)
class WalScan:
    """What the records from `start` to `end` (the first byte after the last valid one) say."""

    start: Lsn
    end: Lsn
    transactions: int = 0
    """Commits and aborts."""
    first: TransactionEnd | None = None
    last: TransactionEnd | None = None
    restore_points: tuple[RestorePoint, ...] = ()
    tablespaces: tuple[TablespaceCreated | TablespaceDropped, ...] = ()
    hit: TransactionEnd | None = None
    """The transaction end that was sought."""
    before: TransactionEnd | None = None
    """The last transaction end before `hit`; without a hit the last of all."""
    previous: TransactionEnd | None = None
    """The one before `before`."""
    after: TransactionEnd | None = None
    """The first transaction end after `hit`."""
    owner: TransactionEnd | None = None
    """The transaction whose *sub*transaction has the xid that was sought: recovery cannot stop at that."""
    point: RestorePoint | None = None
    """The first restore point of the name that was sought."""
    lower: TransactionEnd | None = None
    higher: TransactionEnd | None = None
    """Without a hit: the transactions that ended whose xids are nearest to the one that was sought."""

    def created_before(self, stop: Lsn | None) -> tuple[TablespaceCreated, ...]:
        """The CREATE TABLESPACE records that recovery to `stop` (None: to the end) would replay."""
        created = (record for record in self.tablespaces if isinstance(record, TablespaceCreated))
        return tuple(record for record in created if stop is None or record.lsn < stop)


@dataclass(frozen=True, slots=True)
class _Row:
    """A transaction by its place."""

    stretch: Stretch
    row: int

    def value(self) -> TransactionEnd:
        ends = self.stretch.load()
        assert ends is not None
        return transaction(ends, self.row)


@dataclass(slots=True)
class Finder:
    """Looks for what is sought while stretches come in, in WAL order and adjoining."""

    sought: Sought
    _seen: list[Stretch] = field(default_factory=list)
    _filled: list[Stretch] = field(default_factory=list)
    """Those with transactions."""
    _point: RestorePoint | None = None
    _hit: _Row | None = None
    _hit_at: int = 0
    """Index of the hit's stretch in `_filled`."""
    _owner: _Row | None = None

    def feed(self, stretch: Stretch) -> None:
        """The next stretch."""
        self._seen.append(stretch)
        if self._point is None and self.sought.name is not None:
            self._point = next((p for p in stretch.restore_points if p.name == self.sought.name), None)
        if not stretch.transactions:
            return
        self._filled.append(stretch)
        if self._hit is None and self._may_hold(stretch):
            self._look(stretch)

    @property
    def is_over(self) -> bool:
        """True when later WAL cannot change what matters: the hit, and the transactions around it."""
        if self._hit is None or self.sought.name is not None:  # a name may come again, which is worth a warning
            return False
        return self.sought.xid is None or self._after() is not None

    def answer(self) -> WalScan:
        """What was found in everything that came, which is at least one stretch."""
        first = _Row(self._filled[0], 0).value() if self._filled else None
        last = _last(self._filled[-1]).value() if self._filled else None
        before = self._before(1)
        after = self._after()
        missed = self.sought.xid is not None and self._hit is None
        return WalScan(
            start=self._seen[0].start,
            end=max(stretch.end for stretch in self._seen),
            transactions=sum(stretch.transactions for stretch in self._filled),
            first=first,
            last=last,
            restore_points=tuple(point for stretch in self._seen for point in stretch.restore_points),
            tablespaces=tuple(record for stretch in self._seen for record in stretch.tablespaces),
            hit=_value(self._hit),
            before=_value(before),
            previous=_value(self._before(2)),
            after=_value(after),
            owner=_value(self._owner),
            point=self._point,
            lower=_value(self._nearest(below=True)) if missed else None,
            higher=_value(self._nearest(below=False)) if missed else None,
        )

    def _may_hold(self, stretch: Stretch) -> bool:
        sought = self.sought
        if sought.xid is not None:
            return stretch.lowest <= sought.xid <= stretch.highest
        if sought.time is not None:
            # A summary of more than the stretch (it was cut) may only promise too much.
            return stretch.latest >= microseconds_of(sought.time)
        return sought.lsn is not None or self._point is not None

    def _look(self, stretch: Stretch) -> None:
        ends = stretch.load()
        assert ends is not None
        rows = self._matching(ends)
        if len(rows):
            self._hit, self._hit_at = _Row(stretch, int(rows[0])), len(self._filled) - 1
        elif self.sought.xid is not None and self._owner is None:
            places = np.flatnonzero(ends.subxacts == np.uint32(self.sought.xid))
            if len(places):
                owners = np.cumsum(ends.count, dtype=np.int64)
                self._owner = _Row(stretch, int(np.searchsorted(owners, places[0], side="right")))

    def _matching(self, ends: Ends) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Rows that are what is sought."""
        sought, inclusive = self.sought, self.sought.inclusive
        if sought.xid is not None:
            return np.flatnonzero(ends.xid == np.uint32(sought.xid))
        if sought.time is not None:
            time = np.int64(microseconds_of(sought.time))
            return np.flatnonzero(ends.time > time if inclusive else ends.time >= time)
        place = self._point.lsn if self._point is not None else sought.lsn
        assert place is not None
        return np.flatnonzero(ends.lsn > np.uint64(place) if inclusive else ends.lsn >= np.uint64(place))

    def _before(self, steps: int) -> _Row | None:
        """The transaction so many rows before the hit, or before the end of what was seen."""
        stretch = self._hit_at if self._hit is not None else len(self._filled) - 1
        row = (self._hit.row if self._hit is not None else _length(self._filled, stretch)) - steps
        while row < 0 <= stretch:
            stretch -= 1
            row += _length(self._filled, stretch)
        return _Row(self._filled[stretch], row) if stretch >= 0 else None

    def _after(self) -> _Row | None:
        if self._hit is None:
            return None
        if self._hit.row + 1 < self._hit.stretch.transactions:
            return _Row(self._hit.stretch, self._hit.row + 1)
        following = self._filled[self._hit_at + 1 : self._hit_at + 2]
        return _Row(following[0], 0) if following else None

    def _nearest(self, *, below: bool) -> _Row | None:
        """The ended top-level transaction with the next lower (or higher) xid; in the order of 32-bit numbers."""
        xid = self.sought.xid
        assert xid is not None
        best: tuple[int, _Row] | None = None
        for stretch in reversed(self._filled) if below else self._filled:
            if best is not None and not (best[0] < stretch.highest if below else stretch.lowest < best[0]):
                continue
            if (stretch.lowest if below else xid) >= (xid if below else stretch.highest):
                continue
            ends = stretch.load()
            assert ends is not None
            rows = np.flatnonzero(ends.xid < xid if below else ends.xid > xid)
            if len(rows):
                row = int(rows[np.argmax(ends.xid[rows]) if below else np.argmin(ends.xid[rows])])
                found = int(ends.xid[row])
                if best is None or (found > best[0] if below else found < best[0]):
                    best = found, _Row(stretch, row)
        return None if best is None else best[1]


def _value(row: _Row | None) -> TransactionEnd | None:
    return None if row is None else row.value()


def _last(stretch: Stretch) -> _Row:
    return _Row(stretch, stretch.transactions - 1)


def _length(filled: Sequence[Stretch], index: int) -> int:
    return filled[index].transactions if 0 <= index < len(filled) else 0


def find(stretches: Sequence[Stretch], sought: Sought) -> WalScan:
    """What adjoining stretches, at least one, in WAL order, say about `sought`."""
    finder = Finder(sought)
    for stretch in stretches:
        finder.feed(stretch)
    return finder.answer()
