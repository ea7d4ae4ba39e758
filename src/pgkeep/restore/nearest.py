"""Targets that cannot be reached: the fault that says why, and the nearest that can, before and after (pure).

The hint is for people: options that can be pasted.  The fault's context has the same for machines: `nearest_before`,
`nearest_after` (docs/json.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pgkeep.catalog.backups import stopped_at
from pgkeep.catalog.continuity import Gap
from pgkeep.catalog.walfacts import WalScan
from pgkeep.errors import Fault
from pgkeep.format.manifest import ManifestInfo
from pgkeep.pg.waldump import RestorePoint, TransactionEnd
from pgkeep.restore.choice import Candidate, Choice
from pgkeep.restore.moment import show_moment
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.lsn import Lsn

_SHOWN = 12
"""Restore points that a hint lists."""


@dataclass(slots=True)
class Seen:
    """What the searches for a transaction or a restore point met on their way, over all backups that were tried."""

    points: list[RestorePoint]
    lower: TransactionEnd | None = None
    higher: TransactionEnd | None = None
    """The ended transactions whose xids are nearest to the one that was sought."""

    def add(self, scan: WalScan, candidate: Candidate) -> None:
        """Only what a recovery from the candidate could stop at."""
        known = {point.lsn for point in self.points}
        self.points += [p for p in scan.restore_points if p.lsn >= candidate.stop and p.lsn not in known]
        lower, higher = (end if end and end.lsn >= candidate.stop else None for end in (scan.lower, scan.higher))
        if lower is not None and (self.lower is None or lower.xid > self.lower.xid):
            self.lower = lower
        if higher is not None and (self.higher is None or higher.xid < self.higher.xid):
            self.higher = higher


def not_found(target: Target, choice: Choice, seen: Seen) -> Fault:
    """No backup's WAL has the transaction or the restore point."""
    before, after = _neighbours(target, seen)
    if target.kind is TargetKind.NAME:
        hint = f"restore points that can be reached: {_points(target, seen.points)}"
    else:
        hint = _both(before, after, "transactions that can be reached") or (
            "take a time or an LSN as the target; `pgkeep accidents` finds transactions"
        )
    if choice.others:
        hint += f"; or look on another timeline: --timeline {choice.others[-1]}"
    return Fault(
        "target-unreachable",
        f"{target.describe()} is not in the archived WAL behind any backup on timeline {choice.history.timeline}",
        hint=hint,
        nearest_before=before,
        nearest_after=after,
    )


def _neighbours(target: Target, seen: Seen) -> tuple[str, str]:
    if target.kind is TargetKind.NAME:
        similar = _similar(target, seen.points)
        return (f"--name {similar[0]}" if similar else "", "")
    return _xid(seen.lower), _xid(seen.higher)


def _xid(end: TransactionEnd | None) -> str:
    return "" if end is None else f"--xid {end.xid}"


def _similar(target: Target, points: Sequence[RestorePoint]) -> list[str]:
    return get_close_matches(target.name or "", list(dict.fromkeys(point.name for point in points)), n=3, cutoff=0.5)


def _points(target: Target, points: Sequence[RestorePoint]) -> str:
    """Similar names first, then the newest."""
    similar = _similar(target, points)
    newest = [point.name for point in sorted(points, key=lambda point: point.lsn, reverse=True)]
    names = list(dict.fromkeys([*similar, *newest]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) or "none"


def _both(before: str, after: str, what: str) -> str:
    named = [text for text in (before and f"{before} before it", after and f"{after} after it") if text]
    return f"the nearest {what}: {', '.join(named)}" if named else ""


def beyond(target: Target, candidate: Candidate, scan: WalScan, choice: Choice) -> Fault:
    """The target lies behind the last WAL that recovery can read, or in a gap."""
    gap = candidate.reach.gap
    before, nearest = _before(target, candidate, scan)
    after = _after(target, candidate, choice.restorable) if gap is not None else ""
    hint = f"the latest that can be reached is {before}"
    if scan.last is None or scan.last.lsn < candidate.stop:
        hint = f"the latest that can be reached is the end of backup {candidate.id}: {before}"
    elif gap is None and target.kind is not TargetKind.LATEST:
        hint += "; --latest recovers everything that is archived"
    if after:
        hint += f"; the earliest behind the gap is {after}"
    if choice.others:
        hint += f"; other timelines hold other WAL: --timeline {', '.join(map(str, choice.others))}"
    return Fault(
        "target-unreachable", f"{target.describe()} cannot be reached: {_end(scan, gap, choice)}", hint=hint,
        nearest=nearest, nearest_before=before, nearest_after=after, timeline=choice.history.timeline,
    )  # fmt: skip


def _before(target: Target, candidate: Candidate, scan: WalScan) -> tuple[str, str]:
    """The option that reaches the last transaction before the target, and its time or LSN."""
    last = scan.last
    if last is None or last.lsn < candidate.stop:
        return f"--backup {candidate.id} --immediate", str(candidate.stop)
    shown = show_moment(last.time)
    return (f'--time "{shown}"' if target.kind is TargetKind.TIME else f"--lsn {last.lsn}"), shown


def _after(target: Target, candidate: Candidate, infos: Iterable[ManifestInfo]) -> str:
    """The first backup that begins behind what the candidate can reach."""
    behind = [info for info in infos if info.stop_lsn > candidate.reach.end]
    if not behind:
        return ""
    first = min(behind, key=lambda info: info.stop_lsn)
    if target.kind is TargetKind.TIME:
        return f'--time "{show_moment(stopped_at(first))}"'
    if target.kind is TargetKind.LSN:
        return f"--lsn {Lsn(first.stop_lsn)}"
    return f"--backup {first.backup}"


def _end(scan: WalScan, gap: Gap | None, choice: Choice) -> str:
    when = f" (the last transaction ended at {show_moment(scan.last.time)})" if scan.last is not None else ""
    if gap is not None and choice.is_pruned(gap):
        return f"the WAL behind {scan.end}{when} was pruned, as the policy says: {gap.describe(choice.size)}"
    if gap is not None:
        return f"the archive has a gap behind {scan.end}{when}: it lacks {gap.describe(choice.size)}"
    return f"the archived WAL ends at {scan.end}{when}"
