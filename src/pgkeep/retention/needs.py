"""Which archived WAL is needed: for the window, around older backups, by holds and by jobs that run.

1. The window begins with the newest backup that is *older* than its start: no moment can be recovered to without one.
   From there to the end of the branch every segment stays.
2. Of clocks, only the order in WAL is believed: a backup counts as older than the start only when no backup before it
   says otherwise.  A clock in the future counts as none.
3. A backup before the window keeps the segments from its start to its end, and no more.
4. The newest backup of every branch keeps the WAL behind it, to the end: also the last state of an abandoned branch, or
   of the server before a pg_upgrade, can be recovered to.
5. What is not understood stays: WAL of a timeline whose history is unknown, of a system identifier without a backup,
   and around a manifest that cannot be read.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pgkeep.repo.walstock import WalObject
from pgkeep.retention.facts import ArchiveFacts, BackupFacts, RetentionFacts
from pgkeep.retention.lineages import Lineage
from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.ids import BackupId
from pgkeep.values.wal import History, Segment

SLACK: Final = timedelta(days=1)
"""By how much a server's clock may be ahead before it counts as wrong."""

_END: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class NeededWal:
    """Segments first..last of a timeline (`last` None: to its end), and what for."""

    system_id: int
    timeline: int
    first: int
    last: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a branch: from when on every moment stays reachable, and from which backup and segment."""

    system_id: int
    timeline: int
    start: datetime | None
    """None: the policy names no span, so it is the oldest kept backup's."""
    base: BackupId | None
    """None: no backup can be restored along the branch."""
    first_segment: str
    """'' without a base."""
    is_filled: bool
    """False while no backup is as old as the start."""


def along(lineage: Lineage | History, size: int, first: int, last: int | None) -> Iterator[tuple[int, int, int | None]]:
    """(timeline, first, last) of the segments first..last of a lineage; last None: to its end.

    The segment in which a timeline was left is named on both: PostgreSQL reads the child's, a restore that stops on the
    parent the parent's.
    """
    history = lineage if isinstance(lineage, History) else lineage.history
    for timeline in history.timelines():
        left = history.left_at(timeline)
        begin = max(history.began_at(timeline) // size, first)
        end = last if left is None else min(left // size, last if last is not None else left // size)
        if end is None or begin <= end:
            yield timeline, begin, end


def window_start(policy: KeepPolicy, anchor: datetime, facts: RetentionFacts) -> datetime | None:
    """Where the window begins; earlier while a backup runs that began before it.  None: the policy names no span."""
    if policy.wal is None:
        return None
    try:
        start = anchor - policy.wal
    except OverflowError:
        start = datetime.min.replace(tzinfo=UTC)
    return min([start, *(lease.began for lease in facts.leases)])


def base_of(
    lineage: Lineage, start: datetime, facts: RetentionFacts, anchor: datetime
) -> tuple[BackupFacts | None, bool]:
    """(the backup that the window begins with, whether it is as old as the start); None when none can be restored.

    One with damaged packs only where there is no other: they may be put back, and WAL may not.
    """
    sound = [one for one in lineage.reachable if one.backup not in facts.damaged]
    base, is_filled = _base_among(sound, start, facts, anchor)
    if is_filled or len(sound) == len(lineage.reachable):
        return base, is_filled
    other, is_filled = _base_among(lineage.reachable, start, facts, anchor)
    return (other, True) if is_filled else (other or base, False)


def first_sound(lineage: Lineage, facts: RetentionFacts) -> BackupFacts | None:
    """The oldest that can be restored: where the base has damaged packs, the moments from it on need no repair."""
    sound = (one for one in lineage.reachable if facts.is_consistent(one) and one.backup not in facts.damaged)
    return next(sound, None)


def _base_among(
    backups: Iterable[BackupFacts], start: datetime, facts: RetentionFacts, anchor: datetime
) -> tuple[BackupFacts | None, bool]:
    base: BackupFacts | None = None
    oldest: BackupFacts | None = None
    latest: datetime | None = None
    for backup in backups:
        if not facts.is_consistent(backup):
            continue
        oldest = oldest or backup
        if backup.stopped > anchor + SLACK:
            continue
        latest = backup.stopped if latest is None else max(latest, backup.stopped)
        if latest <= start:
            base = backup
    return (base, True) if base is not None else (oldest, False)


def windows(
    policy: KeepPolicy, lineages: Sequence[Lineage], facts: RetentionFacts, anchor: datetime, kept: Container[BackupId]
) -> Iterator[tuple[Lineage, Window, BackupFacts | None]]:
    """The window of every branch that reaches into it, with its base; `kept` are the backups that stay anyway."""
    start = window_start(policy, anchor, facts)
    for at, lineage in enumerate(lineages):
        if at and start is not None and (lineage.last_archived is None or lineage.last_archived < start):
            continue  # over, and the window has passed its end
        base, filled = (
            next((one for one in lineage.reachable if one.backup in kept and facts.is_consistent(one)), None),
            True,
        )
        if start is not None:
            base, filled = base_of(lineage, start, facts, anchor)
        yield lineage, _window(lineage, start, base, is_filled=filled), base


def _window(lineage: Lineage, start: datetime | None, base: BackupFacts | None, *, is_filled: bool) -> Window:
    if base is None:
        return Window(lineage.system_id, lineage.timeline, start, None, "", False)
    first = Segment(base.wal[0].timeline, base.first_segment).name(base.segment_size)
    return Window(lineage.system_id, lineage.timeline, start, base.backup, first, is_filled)


def of_backup(backup: BackupFacts, why: str) -> Iterator[NeededWal]:
    """What makes a backup consistent."""
    for span in backup.wal:
        yield NeededWal(backup.system_id, span.timeline, span.first, span.last, why)


def behind(
    backup: BackupFacts, lineage: Lineage | History, why: str, last: int | None = None
) -> Iterator[NeededWal]:  # fmt: skip
    """Everything from a backup's start on, along a lineage, to segment `last` or its end."""
    for timeline, first, end in along(lineage, backup.segment_size, backup.first_segment, last):
        yield NeededWal(backup.system_id, timeline, first, end, why)


def everything(archive: ArchiveFacts, timelines: Iterable[int], why: str) -> Iterator[NeededWal]:
    """All WAL of these timelines."""
    for timeline in timelines:
        yield NeededWal(archive.system_id, timeline, 0, None, why)


def around_unreadable(facts: RetentionFacts, archive: ArchiveFacts) -> Iterator[NeededWal]:
    """What manifests that cannot be read may need: the WAL between the readable backups before and after each.

    Names of backups are in the order of their start times.
    """
    for one in facts.unreadable:
        before = max((b for b in facts.backups if b.backup < one.backup), key=lambda b: b.backup, default=None)
        after = min((b for b in facts.backups if b.backup > one.backup), key=lambda b: b.backup, default=None)
        here = [b is not None and b.system_id == archive.system_id for b in (before, after)]
        if not any(here) and (before is not None or after is not None):
            continue
        first = before.first_segment if before is not None and here[0] else 0
        last = after.last_segment if after is not None and here[1] else None
        why = f"{one.backup} cannot be read, and may need it"
        for timeline in archive.by_timeline:
            yield NeededWal(archive.system_id, timeline, first, last, why)


def unneeded(archive: ArchiveFacts, needed: Iterable[NeededWal]) -> Iterator[WalObject]:
    """The objects that nothing names, ascending by timeline and number."""
    by_timeline: dict[int, list[NeededWal]] = {}
    for one in needed:
        if one.system_id == archive.system_id:
            by_timeline.setdefault(one.timeline, []).append(one)
    for timeline, objects in sorted(archive.by_timeline.items()):
        yield from _outside(objects, sorted(by_timeline.get(timeline, []), key=lambda one: one.first))


def _outside(objects: Iterable[WalObject], needed: Sequence[NeededWal]) -> Iterator[WalObject]:
    """Both ascend: each range is looked at once, however many segments there are."""
    at, reach = 0, -1
    for found in objects:
        while at < len(needed) and needed[at].first <= found.number:
            last = needed[at].last
            reach, at = max(reach, _END if last is None else last), at + 1
        if found.number > reach:
            yield found
