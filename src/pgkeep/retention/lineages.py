"""Backups by lineage: which branch is the cluster's own, which came before it, and which lie beside it.

1. A lineage is the history of a timeline that lives (catalog.timelines): one with WAL that no other continues.  A
   backup belongs to the first lineage that continues it, the cluster's own before the others.
2. The cluster's own branch and those of earlier system identifiers (before a pg_upgrade) are one *succession*: days and
   weeks are counted over it.  Whatever lies beside it (an abandoned branch, a copy) takes no day from it.
3. Two branches that both archived WAL lately, at the same time, are not told apart by guessing: one of them is a copy.
4. Positions in WAL order the backups of a lineage, never clocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pgkeep.catalog.timelines import continues, lives_beside, with_wal
from pgkeep.errors import Fault
from pgkeep.repo.walstock import WalObject
from pgkeep.retention.facts import ArchiveFacts, BackupFacts, RetentionFacts
from pgkeep.retention.policy import show_span
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History

QUIET: Final = timedelta(days=7)
"""A branch that archived nothing for so long, while another did, is over."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Lineage:
    """One branch and its backups, ascending by position."""

    system_id: int
    history: History
    backups: tuple[BackupFacts, ...]
    """Those that belong to it."""
    reachable: tuple[BackupFacts, ...]
    """Those that can be recovered along it: also what it shares with another branch."""
    last_archived: datetime | None
    """When its newest WAL was archived; None without any."""
    is_beside: bool
    """Not of the succession."""

    @property
    def timeline(self) -> int:
        return self.history.timeline


def lineages(facts: RetentionFacts, anchor: datetime, timeline: int | None = None) -> tuple[Lineage, ...]:
    """Every lineage: the cluster's own first, then its predecessors, the newest first, then what lies beside.

    `timeline` says which branch is the cluster's own.  Fault `usage` when that cannot be known, or is none.
    """
    succession: list[Lineage] = []
    beside: list[Lineage] = []
    for archive in reversed(facts.archives):
        backups = [backup for backup in facts.backups if backup.system_id == archive.system_id]
        living = _living(archive, backups)
        if not living:
            continue
        own = _own(archive, living, anchor, timeline) if archive is facts.archives[-1] else _newest(archive, living)
        found = list(_sorted_in(archive, own, living, backups))
        succession.append(found[0])
        beside += found[1:]
    return (*succession, *beside)


def _living(archive: ArchiveFacts, backups: Sequence[BackupFacts]) -> list[History]:
    """The leaves: with WAL that no other timeline continues, or with a backup that none does; the newest first."""
    known = {backup.timeline: backup.history for backup in backups} | dict(archive.histories)
    histories = [known[one] for one in with_wal(archive.listing) if one in known and one not in archive.unknown]
    living = [one for one in histories if _lives(archive, one, histories)]
    for backup in sorted(backups, key=lambda one: (-one.timeline, -one.stop_lsn)):
        if not any(continues(one, backup.timeline, backup.stop_lsn) for one in living):
            living.append(backup.history)
    return sorted(living, key=lambda one: -one.timeline)


def _lives(archive: ArchiveFacts, history: History, histories: Sequence[History]) -> bool:
    others = (other for other in histories if history.timeline in other.timelines()[:-1])
    return all(lives_beside(archive.listing, history, other) for other in others)


def _sorted_in(
    archive: ArchiveFacts, own: History, living: Sequence[History], backups: Sequence[BackupFacts]
) -> Iterator[Lineage]:
    in_order = sorted(backups, key=lambda one: (one.stop_lsn, one.start_lsn, one.backup))
    taken: set[BackupId] = set()
    for history in (own, *(one for one in living if one is not own)):
        reachable = tuple(one for one in in_order if continues(history, one.timeline, one.stop_lsn))
        mine = tuple(one for one in reachable if one.backup not in taken)
        taken.update(one.backup for one in mine)
        last = _last_archived(archive, history)
        yield Lineage(archive.system_id, history, mine, reachable, last, history is not own)


def _own(archive: ArchiveFacts, living: Sequence[History], anchor: datetime, timeline: int | None) -> History:
    """The cluster's own branch; Fault `usage`."""
    if timeline is not None:
        chosen = next((one for one in living if one.timeline == timeline), None)
        if chosen is None:
            branches = ", ".join(str(one.timeline) for one in living)
            raise Fault("usage", f"no branch ends on timeline {timeline}, expected one of: {branches}")
        return chosen
    newest = _newest(archive, living)
    rivals = [one for one in living if one is not newest and _rivals(archive, one, newest, anchor)]
    if rivals:
        raise _several(archive, [newest, *rivals])
    return newest


def _newest(archive: ArchiveFacts, living: Sequence[History]) -> History:
    """The branch that archived last."""
    return max(living, key=lambda one: (_last_archived(archive, one) or _NEVER, one.timeline))


def _last_archived(archive: ArchiveFacts, history: History) -> datetime | None:
    """When the lineage's newest WAL was archived; None without any."""
    for timeline in reversed(history.timelines()):
        if objects := archive.by_timeline.get(timeline):
            return objects[-1].archived
    return None


def _rivals(archive: ArchiveFacts, branch: History, newest: History, anchor: datetime) -> bool:
    """True when `branch` archived WAL of its own lately, and after `newest` had begun to."""
    last = _last_archived(archive, branch)
    if last is None or last <= anchor - QUIET:
        return False
    begun = next((one.archived for one in _apart(archive, newest, branch)), None)
    return begun is not None and last > begun


def _apart(archive: ArchiveFacts, history: History, other: History) -> Iterator[WalObject]:
    """The WAL of a branch's own timeline that another branch does not contain, ascending."""
    left = other.left_at(history.timeline) if history.timeline in other.timelines() else Lsn(0)
    for one in archive.by_timeline.get(history.timeline, ()):
        if left is not None and one.number >= left // archive.segment_size:
            yield one


def _several(archive: ArchiveFacts, branches: Sequence[History]) -> Fault:
    shown = "; ".join(
        f"timeline {one.timeline}, last archived {_last_archived(archive, one):%Y-%m-%d %H:%M:%S%z}"
        for one in sorted(branches, key=lambda one: one.timeline)
    )
    return Fault(
        "usage",
        f"{len(branches)} branches of the cluster archived WAL at the same time ({shown}), expected to know which one"
        " is the cluster's own",
        hint="say which: --timeline N; the others' backups then take no day or week from it."
        f" A branch that is quiet for {show_span(QUIET)} is over, and no longer asked about",
    )
