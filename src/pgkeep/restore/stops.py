"""Where recovery will stop: a target held against what the WAL says (pure; rules of recoveryStopsBefore and ...After).

A time, and the moment before a transaction, are turned into a position: the end of the last transaction before it.

1. Commit times do not ascend; a position does not depend on them.
2. The server would stop for them just before a COMMIT record, with everything replayed that came before that: the lock
   of a DROP TABLE, which then hides the table from whoever looks at a paused server, or the removal of a database's
   files, which happens before its DROP commits (measured).  Right after the transaction before, none of that has been.
3. Who cannot be served is told the nearest that can be, before and after the target (`nearest`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pgkeep.catalog.walfacts import Sought, WalScan
from pgkeep.errors import Fault
from pgkeep.pg.waldump import TransactionEnd
from pgkeep.pg.walrecord import LONG_HEADER, SHORT_HEADER, WAL_PAGE
from pgkeep.restore.choice import Candidate, Choice
from pgkeep.restore.moment import show_moment
from pgkeep.restore.nearest import beyond
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.lsn import Lsn
from pgkeep.values.xid import XidSnapshot

_XID_MASK = 0xFFFFFFFF
_BEHIND = 8
"""Segments behind the stop that are looked at for the next transaction."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where recovery will stop: what the server is told, and the transactions around that point as far as known.

    `position` is None when only the server can tell (the end of WAL, the end of the backup).
    """

    recover_to: Target
    position: Lsn | None = None
    last: TransactionEnd | None = None
    """The last transaction that will be there."""
    next: TransactionEnd | None = None
    """The first that will not."""
    previous: TransactionEnd | None = None
    """The one before `last`."""
    warnings: tuple[str, ...] = ()

    def replayed_before(self) -> Lsn | None:
        """Records that begin before this may be replayed; None: all that were scanned.

        An inclusive LSN of the user's need not be where a record begins: the next one is replayed then.
        """
        told = self.recover_to
        if self.position is None:
            return None
        if told.kind is TargetKind.LSN and not (self.last is not None and self.last.lsn == self.position):
            return None if told.inclusive else self.position
        return Lsn(self.position + 1)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far behind the target a transaction ended (negative: before it); both None where there is no measure."""

    seconds: float | None = None
    bytes: int | None = None


def distance(end: TransactionEnd, target: Target) -> Distance:
    """In the target's own measure: a time's in seconds, a position's in bytes of WAL."""
    if target.time is not None:
        return Distance(seconds=(end.time - target.time).total_seconds())
    if target.lsn is not None:
        return Distance(bytes=end.lsn - target.lsn)
    return Distance()


def sought(target: Target, candidate: Candidate, size: int) -> Sought:
    """What a scan of the WAL should look for: the first transaction that will not be there, or the xid itself."""
    match target.kind:
        case TargetKind.TIME:
            return Sought(time=target.time, inclusive=target.inclusive)
        case TargetKind.XID:
            assert target.xid is not None
            return Sought(xid=target.xid & _XID_MASK)
        case TargetKind.LSN:
            assert target.lsn is not None
            return Sought(lsn=_record_at(target.lsn, size), inclusive=target.inclusive)
        case TargetKind.NAME:
            return Sought(name=target.name)
        case TargetKind.IMMEDIATE:
            return Sought(lsn=candidate.stop, inclusive=False)
        case TargetKind.LATEST:
            return Sought()


def _record_at(lsn: Lsn, size: int) -> Lsn:
    """Where a record that would begin at `lsn` does: at the start of a page there is a header."""
    if lsn % WAL_PAGE:
        return lsn
    return Lsn(lsn + (SHORT_HEADER if lsn % size else LONG_HEADER))


def last_segment(target: Target, candidate: Candidate, size: int) -> int:
    """Number of the last full segment that must be scanned for the target; not beyond the reach."""
    match target.kind:
        case TargetKind.IMMEDIATE:
            wanted = (candidate.stop - 1) // size + _BEHIND
        case TargetKind.LSN:
            assert target.lsn is not None
            wanted = target.lsn // size + _BEHIND
        case TargetKind.LATEST:
            wanted = candidate.reach.last
        case TargetKind.TIME:
            wanted = candidate.until
        case _:
            wanted = candidate.until + _BEHIND
    return min(wanted, candidate.reach.last)


def is_over(snapshot: XidSnapshot, xid: int) -> bool:
    """True when the transaction had ended when the snapshot was taken: an older backup is needed to stop at it.

    An xid below 2**32 is taken as the nearest one of the snapshot's epoch or its neighbours.
    """
    full = xid
    if xid <= _XID_MASK:
        full = (snapshot.xmax & ~_XID_MASK) | xid
        full += (snapshot.xmax - full + (1 << 31)) >> 32 << 32
    return full < snapshot.xmin or (full < snapshot.xmax and full not in snapshot.in_progress)


def settle(target: Target, candidate: Candidate, scan: WalScan, choice: Choice, *, complete: bool) -> Stop | None:
    """Where recovery from the candidate stops; None when this needs an older backup, or more WAL to be scanned.

    `complete` says that the scan goes to the end of the candidate's reach.  `target-unreachable` when no other backup
    and no more WAL can help.
    """
    match target.kind:
        case TargetKind.LATEST:
            if candidate.reach.gap is not None:
                raise beyond(target, candidate, scan, choice)
            return Stop(target, last=scan.last, previous=scan.previous)
        case TargetKind.IMMEDIATE:
            return Stop(target, candidate.stop, last=scan.before, next=scan.hit, previous=scan.previous)
        case TargetKind.LSN:
            return _settle_lsn(target, candidate, scan, choice, complete=complete)
        case TargetKind.TIME:
            return _settle_time(target, candidate, scan, choice, complete=complete)
        case TargetKind.XID:
            return _settle_xid(target, candidate, scan)
        case TargetKind.NAME:
            return _settle_name(target, candidate, scan)


def _settle_lsn(target: Target, candidate: Candidate, scan: WalScan, choice: Choice, *, complete: bool) -> Stop:
    assert target.lsn is not None
    if target.lsn >= scan.end and complete:
        raise beyond(target, candidate, scan, choice)
    return Stop(target, target.lsn, last=scan.before, next=scan.hit, previous=scan.previous)


def _settle_time(target: Target, candidate: Candidate, scan: WalScan, choice: Choice, *, complete: bool) -> Stop | None:
    hit, before = scan.hit, scan.before
    if hit is not None:
        if hit.lsn < candidate.stop:
            return None  # the server's clock went back: the backup holds what ended after the target
        return _just_before(scan, candidate)
    if not complete:
        return None
    if target.inclusive and before is not None and before.time == target.time and before.lsn >= candidate.stop:
        return Stop(Target.at_lsn(before.lsn), before.lsn, last=before, previous=scan.previous)
    raise beyond(target, candidate, scan, choice)


def _just_before(scan: WalScan, candidate: Candidate) -> Stop:
    """Where the hit has not ended: after the transaction before it, or where the backup is consistent."""
    before = scan.before
    stop = Stop(Target.immediate(), candidate.stop, last=before, next=scan.hit, previous=scan.previous)
    if before is None or before.lsn < candidate.stop:
        return stop
    return replace(stop, recover_to=Target.at_lsn(before.lsn), position=before.lsn)


def _settle_xid(target: Target, candidate: Candidate, scan: WalScan) -> Stop | None:
    hit, owner = scan.hit, scan.owner
    if hit is None and owner is not None:
        raise Fault(
            "target-unreachable",
            f"transaction {target.xid} is a subtransaction of {owner.xid}: recovery stops at top-level ones only",
            hint=f"use --xid {owner.xid}, which ended at {show_moment(owner.time)}",
            nearest=owner.xid,
        )
    if hit is None or hit.lsn < candidate.stop:
        return None
    if not target.inclusive:
        return _just_before(scan, candidate)
    warnings = () if hit.committed else (f"transaction {target.xid} was rolled back, at {show_moment(hit.time)}",)
    return Stop(Target.at_xid(hit.xid), hit.lsn, hit, scan.after, scan.before, warnings)


def _settle_name(target: Target, candidate: Candidate, scan: WalScan) -> Stop | None:
    points = [point for point in scan.restore_points if point.name == target.name]
    if not points or points[0].lsn < candidate.stop:
        return None
    warnings: tuple[str, ...] = ()
    if len(points) > 1:
        later = ", ".join(f"{point.lsn} ({show_moment(point.time)})" for point in points[1:])
        warnings = (f"{len(points)} restore points have this name; the first is taken, later ones are at {later}",)
    return Stop(target, points[0].lsn, scan.before, scan.hit, scan.previous, warnings)
