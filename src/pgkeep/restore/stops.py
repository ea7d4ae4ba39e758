"""Where recovery will stop: a target held against what the WAL says (pure; rules of recoveryStopsBefore and ...After).

A time, and the moment before a transaction, are turned into a position: the end of the last transaction before it.

1. Commit times do not ascend; a position does not depend on them.
2. The server would stop for them just before a COMMIT record, with everything replayed that came before that: the lock
   of a DROP TABLE, which then hides the table from whoever looks at a paused server, or the removal of a database's
   files, which happens before its DROP commits (measured).  Right after the transaction before, none of that has been.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgkeep.catalog.continuity import Gap
from pgkeep.catalog.walfacts import Sought, WalScan
from pgkeep.errors import Fault
from pgkeep.pg.waldump import TransactionEnd
from pgkeep.restore.choice import Candidate, Choice
from pgkeep.restore.moment import show_moment
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.lsn import Lsn
from pgkeep.values.xid import XidSnapshot

_XID_MASK = 0xFFFFFFFF


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
    warnings: tuple[str, ...] = ()


def sought(target: Target) -> Sought:
    """What a scan of the WAL should look for."""
    if target.kind is TargetKind.TIME:
        return Sought(time=target.time, inclusive=target.inclusive)
    if target.kind is TargetKind.XID:
        assert target.xid is not None
        return Sought(xid=target.xid & _XID_MASK)
    return Sought()


def last_segment(target: Target, candidate: Candidate, size: int) -> int:
    """Number of the last full segment that must be scanned for the target; not beyond the reach."""
    match target.kind:
        case TargetKind.IMMEDIATE:
            wanted = (candidate.stop - 1) // size
        case TargetKind.LSN:
            assert target.lsn is not None
            # The record at the target may go on in the next segment.
            wanted = target.lsn // size + 1
        case TargetKind.LATEST:
            wanted = candidate.reach.last
        case _:
            wanted = candidate.until
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
                raise _beyond(target, candidate, scan, choice)
            return Stop(target, last=scan.last)
        case TargetKind.IMMEDIATE:
            return Stop(target, candidate.stop)
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
        raise _beyond(target, candidate, scan, choice)
    return Stop(target, target.lsn)


def _settle_time(target: Target, candidate: Candidate, scan: WalScan, choice: Choice, *, complete: bool) -> Stop | None:
    hit, before = scan.hit, scan.before
    if hit is not None:
        if hit.lsn < candidate.stop:
            return None  # the server's clock went back: the backup holds what ended after the target
        return _just_before(hit, before, candidate)
    if not complete:
        return None
    if target.inclusive and before is not None and before.time == target.time and before.lsn >= candidate.stop:
        return Stop(Target.at_lsn(before.lsn), before.lsn, last=before)
    raise _beyond(target, candidate, scan, choice)


def _just_before(hit: TransactionEnd, before: TransactionEnd | None, candidate: Candidate) -> Stop:
    """Where `hit` has not ended: after the transaction before it, or where the backup is consistent."""
    if before is None or before.lsn < candidate.stop:
        return Stop(Target.immediate(), candidate.stop, last=before, next=hit)
    return Stop(Target.at_lsn(before.lsn), before.lsn, last=before, next=hit)


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
        return _just_before(hit, scan.before, candidate)
    warnings = () if hit.committed else (f"transaction {target.xid} was rolled back, at {show_moment(hit.time)}",)
    return Stop(Target.at_xid(hit.xid), hit.lsn, last=hit, warnings=warnings)


def _settle_name(target: Target, candidate: Candidate, scan: WalScan) -> Stop | None:
    points = [point for point in scan.restore_points if point.name == target.name]
    if not points or points[0].lsn < candidate.stop:
        return None
    warnings: tuple[str, ...] = ()
    if len(points) > 1:
        later = ", ".join(f"{point.lsn} ({show_moment(point.time)})" for point in points[1:])
        warnings = (f"{len(points)} restore points have this name; the first is taken, later ones are at {later}",)
    return Stop(target, points[0].lsn, warnings=warnings)


def not_found(target: Target, choice: Choice, names: tuple[str, ...]) -> Fault:
    """No backup's WAL has the transaction or the restore point; `names` are the restore points that were seen."""
    timeline = choice.history.timeline
    if target.kind is TargetKind.NAME:
        seen = ", ".join(dict.fromkeys(names)) or "none"
        hint = f"restore points that can be reached: {seen}"
    else:
        hint = "take a time or an LSN as the target; `pgkeep accidents` finds transactions"
    if choice.others:
        hint += f"; or look on another timeline: --timeline {choice.others[-1]}"
    return Fault(
        "target-unreachable",
        f"{target.describe()} is not in the archived WAL behind any backup on timeline {timeline}",
        hint=hint,
    )


def _beyond(target: Target, candidate: Candidate, scan: WalScan, choice: Choice) -> Fault:
    """The target lies behind the last WAL that recovery can read, or in a gap."""
    last, gap = scan.last, candidate.reach.gap
    ends = _end(scan, gap, choice)
    if last is None or last.lsn < candidate.stop:
        nearest, hint = (
            candidate.stop,
            f"the latest that can be reached is the end of backup {candidate.id}: --immediate",
        )
        return _unreachable(target, ends, hint, str(nearest), choice)
    nearest_text = f'--time "{show_moment(last.time)}"' if target.kind is TargetKind.TIME else f"--lsn {last.lsn}"
    hint = f"the latest that can be reached is {nearest_text}"
    if gap is None and target.kind is not TargetKind.LATEST:
        hint += "; --latest recovers everything that is archived"
    return _unreachable(target, ends, hint, show_moment(last.time), choice)


def _end(scan: WalScan, gap: Gap | None, choice: Choice) -> str:
    when = f" (the last transaction ended at {show_moment(scan.last.time)})" if scan.last is not None else ""
    if gap is not None:
        return f"the archive has a gap behind {scan.end}{when}: it lacks {gap.describe(choice.size)}"
    return f"the archived WAL ends at {scan.end}{when}"


def _unreachable(target: Target, ends: str, hint: str, nearest: str, choice: Choice) -> Fault:
    if choice.others:
        hint += f"; other timelines hold other WAL: --timeline {', '.join(map(str, choice.others))}"
    return Fault(
        "target-unreachable", f"{target.describe()} cannot be reached: {ends}", hint=hint, nearest=nearest,
        timeline=choice.history.timeline,
    )  # fmt: skip
