"""Which timeline a restore follows, and which backups may serve its target (pure).

1. A backup serves a target when it lies on the target timeline's lineage and had ended at or before the target:
   recovery cannot stop before the backup is consistent (xlogrecovery.c, "requested recovery stop point is before
   consistent recovery point").
2. Candidates come newest first: the newest one has the least WAL to replay.
3. Where a target cannot be reached, the fault names the nearest that can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgkeep.catalog.backups import stopped_at
from pgkeep.catalog.continuity import Gap, Reach, gaps, reach
from pgkeep.catalog.timelines import continues, default_timeline
from pgkeep.errors import Fault
from pgkeep.format.manifest import ManifestInfo
from pgkeep.repo.walarchive import Listing
from pgkeep.repo.walstock import NOTHING_PRUNED, Pruned
from pgkeep.restore.moment import show_moment
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, history_name, last_segment_number


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """The WAL archive of one system identifier, listed once."""

    listing: Listing
    histories: Mapping[int, History]
    without: tuple[int, ...] = ()
    """Timelines with WAL whose history is missing or damaged: they may continue any other."""
    pruned: Pruned = NOTHING_PRUNED
    """What prunes took out of it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backup that may serve the target, and how far WAL goes from its start along the lineage."""

    info: ManifestInfo
    reach: Reach
    until: int
    """Segment number up to which its WAL is of interest first: to the end of the next newer backup, or of the reach."""

    @property
    def id(self) -> BackupId:
        return BackupId(self.info.backup)

    @property
    def stop(self) -> Lsn:
        return Lsn(self.info.stop_lsn)

    @property
    def start(self) -> Lsn:
        return Lsn(self.info.start_lsn)


@dataclass(frozen=True, slots=True)
class Choice:
    """The lineage to follow, and its candidates, newest first, at least one."""

    history: History
    candidates: tuple[Candidate, ...]
    others: tuple[int, ...]
    """Living branches beside it, when nobody named a timeline."""
    size: int
    """Bytes of a WAL segment."""
    restorable: tuple[ManifestInfo, ...] = ()
    """Every backup on the lineage whose own WAL is there, whatever the target; newest first."""
    without_history: tuple[int, ...] = ()
    """Timelines with WAL that may continue this one: their history is missing or damaged."""
    pruned: Pruned = NOTHING_PRUNED

    def is_pruned(self, gap: Gap) -> bool:
        """Whether a gap begins with WAL that a prune took out."""
        return self.pruned.holds(self.candidates[0].info.system_id, gap.timeline, gap.first)


def choose(infos: Sequence[ManifestInfo], view: ArchiveView, target: Target, backup: BackupId | None = None) -> Choice:
    """`infos` are all backups of one system identifier (at least one).  `target-unreachable`, `backup-unknown`."""
    newest_first = sorted(infos, key=lambda info: info.stop_lsn, reverse=True)
    if target.timeline in view.without:
        raise _without_history(target.timeline or 0, "cannot be placed among the others")
    history, others = _lineage(newest_first, view, target, backup)
    if history.timeline > 1 and history.timeline not in view.listing.timelines_with_history:
        raise _without_history(history.timeline, "cannot be recovered to")
    on_lineage = [info for info in newest_first if continues(history, info.timeline, Lsn(info.stop_lsn))]
    named = [info for info in on_lineage if backup is None or info.backup == backup]
    if not named:
        raise _not_on_lineage(history, newest_first, backup)
    early = [info for info in named if _ends_before(info, target)]
    if not early:
        raise _before_the_first(target, named, backup)
    size = view.listing.segment_size
    reaches = {info.backup: reach(view.listing, history, info.start_lsn // size) for info in on_lineage}
    restorable = tuple(info for info in on_lineage if reaches[info.backup].end >= info.stop_lsn)
    candidates: list[Candidate] = []
    for info in early:
        if info not in restorable:
            continue
        reached = reaches[info.backup]
        newer = min((i.stop_lsn for i in on_lineage if i.stop_lsn > info.stop_lsn), default=None)
        until = reached.last if newer is None else min(reached.last, last_segment_number(newer, size))
        candidates.append(Candidate(info, reached, until))
    if not candidates:
        raise _without_wal(early[0], history, view)
    return Choice(history, tuple(candidates), others, size, restorable, view.without, view.pruned)


def _lineage(
    newest_first: Sequence[ManifestInfo], view: ArchiveView, target: Target, backup: BackupId | None
) -> tuple[History, tuple[int, ...]]:
    known = dict(view.histories)
    for info in newest_first:
        known.setdefault(info.timeline, History(info.timeline))
    if target.timeline is not None:
        if target.timeline not in known:
            listed = ", ".join(map(str, sorted(known)))
            raise Fault(
                "target-unreachable",
                f"the archive knows no timeline {target.timeline} (it has: {listed})",
                hint="name one of them with --timeline, or leave it out for the newest",
            )
        return known[target.timeline], ()
    base = next((info for info in newest_first if info.backup == backup), newest_first[0])
    default = default_timeline(known, view.listing, base.timeline, Lsn(base.stop_lsn))
    return known[default.timeline], default.others


def _without_history(timeline: int, why: str) -> Fault:
    """PostgreSQL asks for the target timeline's history first (validateRecoveryParameters in xlogrecovery.c)."""
    name = history_name(timeline)
    return Fault(
        "target-unreachable",
        f"timeline {timeline} cannot be followed: the archive lacks {name} (or it is damaged), without which it {why}",
        hint=f"archive it from a server that has it (in its data directory: pgkeep wal push pg_wal/{name}), or name"
        " another timeline with --timeline",
        timeline=timeline,
    )


def _ends_before(info: ManifestInfo, target: Target) -> bool:
    match target.kind:
        case TargetKind.TIME:
            assert target.time is not None
            return stopped_at(info) <= target.time
        case TargetKind.LSN:
            assert target.lsn is not None
            return info.stop_lsn <= target.lsn
        case _:
            return True


def _not_on_lineage(history: History, infos: Sequence[ManifestInfo], backup: BackupId | None) -> Fault:
    timelines = ", ".join(sorted({str(info.timeline) for info in infos}))
    if backup is not None and backup not in {info.backup for info in infos}:
        return Fault(
            "backup-unknown", f"there is no backup {backup} of this cluster", hint="see the backups with: pgkeep list"
        )
    what = f"backup {backup} does" if backup is not None else "no backup does"
    return Fault(
        "target-unreachable",
        f"timeline {history.timeline} cannot be reached: {what} lie on its lineage (backups are on: {timelines})",
        hint="name another timeline with --timeline, or another backup with --backup",
        timeline=history.timeline,
    )


def _before_the_first(target: Target, infos: Sequence[ManifestInfo], backup: BackupId | None) -> Fault:
    oldest = min(infos, key=lambda info: info.stop_lsn)
    whose = f"backup {backup}" if backup is not None else f"the oldest backup ({oldest.backup})"
    if target.kind is TargetKind.TIME:
        end = show_moment(stopped_at(oldest))
        nearest = f'--time "{end}"'
    else:
        end = str(Lsn(oldest.stop_lsn))
        nearest = f"--lsn {end}"
    older = "; or leave out --backup, so that an older one is chosen" if backup is not None else ""
    return Fault(
        "target-unreachable",
        f"{target.describe()} is before the end of {whose}, at {end}: recovery cannot stop there",
        hint=f"the earliest that can be reached is {nearest}{older}",
        nearest=end,
        nearest_after=nearest,
    )


def _without_wal(info: ManifestInfo, history: History, view: ArchiveView) -> Fault:
    size = view.listing.segment_size
    missing = gaps(view.listing, history, info.start_lsn // size, last_segment_number(info.stop_lsn, size))
    listed = ", ".join(gap.describe(size) for gap in missing) or "its last segment"
    return Fault(
        "target-unreachable",
        f"backup {info.backup} cannot become consistent: the archive lacks its own WAL, {listed}",
        hint="archive these segments if a server or a standby still has them, or choose another backup (pgkeep list)",
    )
