"""Which timelines a cluster has had, how they descend from each other, and which one a restore should follow.

A timeline without a history file is a first one: timeline 1, or where the archive began later (then the history that a
backup brought along may know its ancestors).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgkeep.errors import Damaged
from pgkeep.format import names
from pgkeep.repo.walarchive import Listing, WalArchive
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History


@dataclass(frozen=True, slots=True)
class DefaultTimeline:
    """The timeline that a restore follows when nobody names one."""

    timeline: int
    others: tuple[int, ...]
    """Living branches that were not chosen: timelines with WAL of their own that the chosen one does not continue."""


def parse_history(timeline: int, text: bytes, obj: str) -> History:
    """A history file's text; Damaged (naming `obj`) when PostgreSQL could not read it."""
    try:
        return History.parse(timeline, text.decode("utf-8", "replace"))
    except ValueError as error:
        raise Damaged(obj, f"is no timeline history ({error})") from None


def read_history(archive: WalArchive, timeline: int) -> History:
    """The archived history of one timeline; object-missing, Damaged."""
    obj = names.history(archive.cluster.uuid, archive.system_id, timeline)
    return parse_history(timeline, archive.history(timeline), obj)


@dataclass(frozen=True, slots=True)
class Timelines:
    """Every timeline of an archive: its history, or why the history cannot be read."""

    histories: dict[int, History]
    damaged: dict[int, Damaged]
    without: tuple[int, ...] = ()
    """Timelines behind the first that have WAL and no history anywhere: which one they descend from is not known."""


def read_timelines(archive: WalArchive, listing: Listing | None = None, known: Iterable[History] = ()) -> Timelines:
    """The history of every timeline that has WAL or a history file.

    `known` are histories from elsewhere (backups bring theirs), used where the archive has no readable file.
    """
    listed = listing or archive.listing()
    found = {history.timeline: history for history in known}
    damaged: dict[int, Damaged] = {}
    for timeline in listed.timelines_with_history:
        try:
            found[timeline] = read_history(archive, timeline)
        except Damaged as damage:
            if timeline not in found:
                damaged[timeline] = damage
    first = min(with_wal(listed), default=1)
    without = [t for t in with_wal(listed) if t > first and t not in found and t not in damaged]
    for timeline in with_wal(listed):
        if timeline not in damaged:
            found.setdefault(timeline, History(timeline))
    return Timelines(dict(sorted(found.items())), damaged, tuple(without))


def histories(archive: WalArchive) -> dict[int, History]:
    """The history of every timeline that has WAL or a history file, by timeline, ascending.  Damaged."""
    timelines = read_timelines(archive)
    for damage in timelines.damaged.values():
        raise damage
    return timelines.histories


def with_wal(listing: Listing) -> tuple[int, ...]:
    """Timelines of which at least one full or partial segment is archived, ascending."""
    return tuple(sorted({*listing.segments, *(partial.segment.timeline for partial in listing.partials)}))


def children(known: Mapping[int, History], timeline: int) -> tuple[int, ...]:
    """The timelines that began directly on `timeline`, ascending."""
    return tuple(
        child
        for child, history in sorted(known.items())
        if history.switches and history.switches[-1].timeline == timeline
    )


def continues(history: History, timeline: int, lsn: Lsn) -> bool:
    """True when the lineage passes through `timeline` and leaves it at or after `lsn`: it holds that WAL."""
    if timeline not in history.timelines():
        return False
    left = history.left_at(timeline)
    return left is None or left >= lsn


def default_timeline(known: Mapping[int, History], listing: Listing, timeline: int, lsn: Lsn) -> DefaultTimeline:
    """The newest timeline that continues `timeline` from `lsn` on (where a backup stopped), as PostgreSQL's 'latest'.

    Living branches beside it (a restored copy that archives here, an old primary that went on) are named, because
    the newest one is then only a guess.
    """
    candidates = {number: history for number, history in known.items() if continues(history, timeline, lsn)}
    if not candidates:
        return DefaultTimeline(timeline, ())
    chosen = max(candidates)
    others = tuple(
        number
        for number, history in sorted(candidates.items())
        if number != chosen and lives_beside(listing, history, candidates[chosen])
    )
    return DefaultTimeline(chosen, others)


def lives_beside(listing: Listing, branch: History, chosen: History) -> bool:
    """True when `branch` has WAL that `chosen` does not contain."""
    numbers = listing.segments.get(branch.timeline, [])
    if branch.timeline not in chosen.timelines():
        return bool(numbers)
    left = chosen.left_at(branch.timeline)
    # The segment of the switch may have been completed before the promotion was known; a later one was not.
    return left is not None and bool(numbers) and numbers[-1] > left // listing.segment_size
