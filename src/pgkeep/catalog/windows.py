"""Recoverable windows: for every lineage, from when to when its backups and WAL reach without a gap, and why they end.

1. A lineage is the history of a timeline that lives: one with WAL that no other continues.  What branched off and was
   left is shown for itself, because it can be recovered to as well.
2. A window begins where its first backup ended, and goes on as far as WAL does; a backup behind a gap begins the next.
3. What cannot be read is part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import pairwise

from pgkeep.catalog.backups import own_history, stopped_at
from pgkeep.catalog.continuity import Gap, Reach, reach
from pgkeep.catalog.timelines import Timelines, children, continues, lives_beside, read_timelines, with_wal
from pgkeep.errors import Fault
from pgkeep.format.manifest import ManifestInfo
from pgkeep.repo.backups import backup_ids, read_info
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.walstock import Pruned, read_pruned
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment


class Ending(Enum):
    """Why a window ends."""

    ARCHIVE = "archive-end"
    """There is no more WAL: what the server writes next goes on from here."""
    GAP = "gap"
    PRUNED = "pruned"
    """A prune took out what lies behind, on purpose."""
    FORK = "left"
    """The timeline was left, and nothing of it lies behind."""


@dataclass(frozen=True, slots=True)
class LastCommit:
    """The last transaction that recovery can reach in a window."""

    time: datetime
    lsn: Lsn
    xid: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A window: any moment from `begin` to `end` can be recovered to along the timeline `timeline`."""

    timeline: int
    begin: Lsn
    begin_time: datetime
    """The end of its first backup, by the server's clock (UTC)."""
    end: Lsn
    last: LastCommit | None
    """None when it is not known: no transaction near the end, or no pg_waldump of this version."""
    archived: datetime | None
    """When the last full segment was archived, by the store's clock: its commits are not younger."""
    backups: tuple[str, ...]
    """Oldest first."""
    ending: Ending
    gap: Gap | None


@dataclass(frozen=True, slots=True)
class Branch:
    """One timeline: where it came from, what is archived of it, where it was left."""

    timeline: int
    parent: int | None
    began: Lsn
    """Where its parent was left; 0 for a first one."""
    reason: str
    """Why, as its history file says."""
    runs: tuple[tuple[int, int], ...]
    """Segment numbers (first, last) that are archived without a gap."""
    children: tuple[int, ...]
    lives: bool
    """No other timeline continues all of its WAL."""
    problem: str = ""
    """Why its history cannot be read."""
    lost: tuple[Gap, ...] = ()
    """What is missing between the runs, and no prune took out."""


@dataclass(frozen=True, slots=True)
class BackupMark:
    """A backup on a timeline; `info` None when the manifest is unreadable (then `problem` says why)."""

    backup: str
    timeline: int = 0
    stop: Lsn | None = None
    stopped: datetime | None = None
    restorable: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class IncarnationView:
    """Everything of one system identifier; lists ascend."""

    system_id: int
    server_version: int
    segment_size: int
    branches: tuple[Branch, ...]
    windows: tuple[Stretch, ...]
    backups: tuple[BackupMark, ...]


FindLast = Callable[[WalArchive, History, Reach, Lsn, int], LastCommit | None]
"""(archive, lineage, reach, first LSN of interest, server_version_num): the last commit, as far as it can be known."""


def view(cluster: Cluster, find_last: FindLast) -> tuple[IncarnationView, ...]:
    """Every incarnation of the cluster that can be read.  The store's faults."""
    pruned = read_pruned(cluster)
    return tuple(
        _Incarnation(cluster, one.system_id, one.wal_segment_size, one.server_version, find_last, pruned).view()
        for one in cluster.incarnations
    )


class _Incarnation:
    """One system identifier, listed once."""

    def __init__(
        self, cluster: Cluster, system_id: int, size: int, version: int, find_last: FindLast, pruned: Pruned
    ) -> None:
        self._cluster = cluster
        self._archive = WalArchive(cluster, system_id, size)
        self._listing = self._archive.listing()
        self._version = version
        self._find_last = find_last
        self._pruned = pruned
        self._infos: list[ManifestInfo] = []
        self._marks: list[BackupMark] = []
        self._read_backups()
        own = [own_history(cluster, info, self._timelines()) for info in self._infos]
        self._known = self._timelines(own)

    def _timelines(self, known: Sequence[History] = ()) -> Timelines:
        return read_timelines(self._archive, self._listing, known)

    def _read_backups(self) -> None:
        for backup in backup_ids(self._cluster):
            try:
                info = read_info(self._cluster, backup)
                stopped_at(info)
            except Fault as fault:
                if fault.code not in ("format-damaged", "format-unsupported"):
                    if fault.code == "backup-unknown":  # deleted since it was listed
                        continue
                    raise
                self._marks.append(BackupMark(backup, problem=fault.message))
                continue
            if info.system_id == self._archive.system_id:
                self._infos.append(info)

    def view(self) -> IncarnationView:
        histories = self._known.histories
        branches = tuple(self._branch(timeline) for timeline in sorted({*histories, *self._known.damaged}))
        windows = [one for branch in branches if branch.lives for one in self._windows(histories[branch.timeline])]
        unique = {(one.begin, one.end, one.timeline): one for one in windows}
        held = {backup for one in windows for backup in one.backups}
        marks = [self._mark(info, held) for info in self._infos]
        return IncarnationView(
            self._archive.system_id,
            self._version,
            self._archive.segment_size,
            branches,
            tuple(sorted(unique.values(), key=lambda one: (one.begin, one.timeline))),
            tuple(sorted([*self._marks, *marks], key=lambda mark: mark.backup)),
        )

    def _mark(self, info: ManifestInfo, held: set[str]) -> BackupMark:
        restorable = info.backup in held
        problem = "" if restorable else "the archive lacks WAL that makes it consistent"
        return BackupMark(info.backup, info.timeline, Lsn(info.stop_lsn), stopped_at(info), restorable, problem)

    def _branch(self, timeline: int) -> Branch:
        histories, size = self._known.histories, self._archive.segment_size
        history = histories.get(timeline)
        switch = history.switches[-1] if history is not None and history.switches else None
        problem = ""
        if timeline in self._known.damaged:
            problem = self._known.damaged[timeline].message
        elif timeline in self._known.without:
            problem = "its history file is missing: where it left its parent is not known"
        runs = _runs(self._listing.segments.get(timeline, []), 0 if switch is None else switch.lsn // size)
        lives = history is not None and timeline in with_wal(self._listing) and self._lives(history, histories)
        return Branch(
            timeline,
            None if switch is None else switch.timeline,
            Lsn(0) if switch is None else switch.lsn,
            "" if switch is None else switch.reason,
            runs,
            children(histories, timeline),
            lives,
            problem,
            tuple(lost for hole in _between(timeline, runs) for lost in self._lost(hole)),
        )

    def _lost(self, hole: Gap) -> Iterator[Gap]:
        for first, last in self._pruned.lost(self._archive.system_id, hole.timeline, hole.first, hole.last):
            yield Gap(hole.timeline, first, last)

    def _lives(self, history: History, histories: Mapping[int, History]) -> bool:
        """True unless another timeline continues it with all of its WAL."""
        others = (other for other in histories.values() if history.timeline in other.timelines()[:-1])
        return all(lives_beside(self._listing, history, other) for other in others)

    def _windows(self, history: History) -> list[Stretch]:
        """Backups with the same reach are one window."""
        size = self._archive.segment_size
        groups: dict[tuple[int, int], list[ManifestInfo]] = {}
        reaches: dict[tuple[int, int], Reach] = {}
        for info in self._infos:
            if not continues(history, info.timeline, Lsn(info.stop_lsn)):
                continue
            reached = reach(self._listing, history, info.start_lsn // size)
            if reached.end >= info.stop_lsn:
                key = (reached.last, reached.end)
                groups.setdefault(key, []).append(info)
                reaches[key] = reached
        return [self._window(history, infos, reaches[key]) for key, infos in groups.items()]

    def _window(self, history: History, infos: list[ManifestInfo], reached: Reach) -> Stretch:
        first = min(infos, key=lambda info: info.stop_lsn)
        begin = Lsn(first.stop_lsn)
        ending = self._ending(history, reached)
        # Around a backup that a policy keeps for itself there is nothing to look for.
        pruned = ending is Ending.PRUNED
        return Stretch(
            history.timeline,
            begin,
            stopped_at(first),
            reached.end,
            None if pruned else self._find_last(self._archive, history, reached, begin, first.server_version),
            self._archived(history, reached),
            tuple(sorted(info.backup for info in infos)),
            ending,
            reached.gap,
        )

    def _ending(self, history: History, reached: Reach) -> Ending:
        if (gap := reached.gap) is not None:
            is_pruned = self._pruned.holds(self._archive.system_id, gap.timeline, gap.first)
            return Ending.PRUNED if is_pruned else Ending.GAP
        newest = max(with_wal(self._listing), default=history.timeline)
        return Ending.ARCHIVE if history.timeline == newest else Ending.FORK

    def _archived(self, history: History, reached: Reach) -> datetime | None:
        timeline = history.segment_timeline(reached.last, self._archive.segment_size)
        try:
            return self._archive.stat(Segment(timeline, reached.last)).modified
        except Fault as fault:
            if fault.code != "object-missing":
                raise
            return None


def _runs(numbers: Sequence[int], first: int) -> tuple[tuple[int, int], ...]:
    """Gapless runs of ascending segment numbers, from `first` on."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if number < first:
            continue
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)


def holes(branch: Branch) -> tuple[Gap, ...]:
    """What is not there between the archived runs of a timeline, lost or pruned."""
    return tuple(_between(branch.timeline, branch.runs))


def _between(timeline: int, runs: Sequence[tuple[int, int]]) -> Iterator[Gap]:
    return (Gap(timeline, before[1] + 1, after[0] - 1) for before, after in pairwise(runs))
