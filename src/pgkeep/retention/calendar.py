"""Which backups represent the days, weeks, months and years of a policy.

1. A backup belongs to the day on which it *started*, in the policy's zone: what its name and `list` show.  Days last 23
   or 25 hours when clocks change; weeks are ISO weeks.
2. `daily = 7` means the last seven days that have a backup, not the last seven of the calendar: a server that was off
   for a month, or a clock that jumped, deletes nothing.  Backups that cannot be restored make no day, and stay as long
   as others of their day would.
3. The newest backup of a day represents it; one with damaged pages only when no clean one is there, one of which a
   verify found packs damaged only when there is none of these, and one whose WAL is missing only when there is no
   other.
4. Days are counted along the succession, by position in WAL, from the newest backup back.  A branch beside it keeps its
   own backups of the days that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from enum import IntEnum

from pgkeep.retention.facts import BackupFacts
from pgkeep.retention.lineages import Lineage
from pgkeep.retention.policy import PERIODS, KeepPolicy
from pgkeep.values.ids import BackupId


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A day, week, month or year: comparable within its period, and as people write it."""

    ordinal: int
    label: str


class Quality(IntEnum):
    """What a backup is worth; the higher, the better."""

    LOST = 0
    """WAL that makes it consistent is missing."""
    DAMAGED = 1
    """A verify found packs of it damaged: whole again only when they are put back."""
    BAD_PAGES = 2
    """The server itself had damaged pages."""
    CLEAN = 3

    @property
    def counts(self) -> bool:
        """Whether it can be restored as it was taken, and so makes a day of its own."""
        return self >= Quality.BAD_PAGES


Judge = Callable[[BackupFacts], Quality]


def slot(period: str, moment: datetime, zone: tzinfo) -> Slot:
    """The slot of an aware moment: '2026-11-20', '2026-W47', '2026-11' or '2026'."""
    day = moment.astimezone(zone).date()
    if period == "daily":
        return Slot(day.toordinal(), day.isoformat())
    if period == "weekly":
        year, week, _ = day.isocalendar()
        return Slot(year * 100 + week, f"{year}-W{week:02}")
    if period == "monthly":
        return Slot(day.year * 100 + day.month, f"{day.year}-{day.month:02}")
    return Slot(day.year, str(day.year))


def representatives(
    policy: KeepPolicy, lineages: Sequence[Lineage], zone: tzinfo, judge: Judge
) -> Iterator[tuple[BackupId, str, str]]:
    """(backup, period, its slot) for everything that the calendar keeps; `lineages` as of lineages.lineages."""
    for period in PERIODS:
        counted = _counted(policy.counts[period], period, lineages, zone, judge)
        if counted is None:
            continue
        for lineage in lineages:
            for label, backup in _best(period, lineage, zone, judge, counted).items():
                yield backup.backup, period, label


@dataclass(frozen=True, slots=True)
class _Counted:
    """The slots that count: those of the succession, and for what lies beside it everything from the oldest on."""

    slots: frozenset[Slot]
    oldest: Slot | None
    """None: fewer than the policy asks for, so that every slot counts."""

    def holds(self, slot_: Slot, *, counts: bool) -> bool:
        """True for a backup of that slot; `counts` is False for one that makes no slot of its own."""
        return self.oldest is None or slot_ in self.slots or (not counts and slot_ >= self.oldest)


def _counted(
    count: int, period: str, lineages: Sequence[Lineage], zone: tzinfo, judge: Judge
) -> _Counted | None:  # fmt: skip
    if not count:
        return None
    found: dict[Slot, None] = {}
    for backup in succession(lineages):
        if judge(backup).counts:
            found.setdefault(slot(period, backup.started, zone))
            if len(found) == count:
                return _Counted(frozenset(found), min(found))
    return _Counted(frozenset(found), None)


def succession(lineages: Sequence[Lineage]) -> Iterator[BackupFacts]:
    """The backups of the cluster's own branch and of its predecessors, newest first."""
    for lineage in lineages:
        if not lineage.is_beside:
            yield from reversed(lineage.backups)


def _best(
    period: str, lineage: Lineage, zone: tzinfo, judge: Judge, counted: _Counted
) -> dict[str, BackupFacts]:  # fmt: skip
    best: dict[Slot, BackupFacts] = {}
    for backup in lineage.backups:  # ascending: of equals the newest stays
        here = slot(period, backup.started, zone)
        if here not in best or judge(backup) >= judge(best[here]):
            best[here] = backup
    return {
        here.label: backup
        for here, backup in best.items()
        if counted.holds(here, counts=not lineage.is_beside and judge(backup).counts)
    }
