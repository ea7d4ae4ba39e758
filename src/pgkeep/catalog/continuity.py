"""Unbroken WAL along a lineage of timelines: spans, gaps, how far it reaches, which partial may end it.

Everything here is pure.  A segment is named by its number (LSN // segment size); along a lineage each number has one
right timeline (values.wal.History.segment_timeline), and only that timeline's file counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgkeep.repo.walarchive import Listing, Partial
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment

if TYPE_CHECKING:
    from pgkeep.format.manifest import WalNeeds


@dataclass(frozen=True, slots=True)
class Span:
    """Segment numbers first..last (inclusive) of one timeline."""

    timeline: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def segments(self) -> Iterator[Segment]:
        return (Segment(self.timeline, number) for number in range(self.first, self.last + 1))


class Gap(Span):
    """A span that the archive lacks."""

    __slots__ = ()

    def describe(self, size: int) -> str:
        """'00000001000000000000000A' or 'FIRST to LAST (n segments)'."""
        first = Segment(self.timeline, self.first).name(size)
        if len(self) == 1:
            return first
        return f"{first} to {Segment(self.timeline, self.last).name(size)} ({len(self)} segments)"


@dataclass(frozen=True, slots=True)
class Reach:
    """How far WAL goes without a gap from a segment on."""

    first: int
    last: int
    """The last full segment without a gap; `first` - 1 when already the first is missing."""
    end: Lsn
    """Where the WAL ends: the end of `last`, or of the partial."""
    timeline: int
    """The timeline of the last WAL that is reached."""
    partial: Partial | None
    """The partial segment that continues `last`, when it may be served."""
    gap: Gap | None
    """What is missing behind `last` although the lineage goes on; None when that is its end."""


def spans(history: History, size: int, first: int, last: int) -> Iterator[Span]:
    """The right timeline of each segment first..last, as runs, ascending."""
    timelines = history.timelines()
    begins = [0, *(switch.lsn // size for switch in history.switches)]
    ends = [*(begin - 1 for begin in begins[1:]), last]
    for timeline, begin, end in zip(timelines, begins, ends, strict=True):
        if max(begin, first) <= min(end, last):
            yield Span(timeline, max(begin, first), min(end, last))


def gaps(listing: Listing, history: History, first: int, last: int) -> tuple[Gap, ...]:
    """What is missing of the segments first..last along the lineage, ascending."""
    return tuple(gap for span in spans(history, listing.segment_size, first, last) for gap in missing(listing, span))


def missing(listing: Listing, span: Span) -> tuple[Gap, ...]:
    """What the archive lacks of a span, ascending."""
    return tuple(_holes(listing, span))


def _holes(listing: Listing, span: Span) -> Iterator[Gap]:
    present = listing.segments.get(span.timeline, [])
    expected = span.first
    for at in range(bisect_left(present, span.first), len(present)):
        number = present[at]
        if number > span.last:
            break
        if number > expected:
            yield Gap(span.timeline, expected, number - 1)
        expected = number + 1
    if expected <= span.last:
        yield Gap(span.timeline, expected, span.last)


def newest(listing: Listing, history: History) -> Segment | None:
    """The last full segment that is archived along the lineage; None when there is none."""
    for timeline in reversed(history.timelines()):
        for number in reversed(listing.segments.get(timeline, [])):
            if history.segment_timeline(number, listing.segment_size) == timeline:
                return Segment(timeline, number)
    return None


def proven_until(history: History, size: int) -> int:
    """The last segment number of which the lineage's switch points prove that its WAL was once written; -1: none."""
    return history.switches[-1].lsn // size - 1 if history.switches else -1


def reach(listing: Listing, history: History, first: int) -> Reach:
    """How far recovery that begins in segment `first` can go along the lineage, its partial segment included.

    An archive that ends is no gap; a hole is one when something lies, or was once written, behind it.
    """
    size = listing.segment_size
    last = newest(listing, history)
    expected = max(first - 1, proven_until(history, size), -1 if last is None else last.number)
    gap = next(iter(gaps(listing, history, first, expected)), None)
    reached = expected if gap is None else gap.first - 1
    partial = None
    if gap is None:
        wanted = Segment(history.timeline, reached + 1)
        found = (one for one in listing.partials if one.segment == wanted)
        partial = max(found, key=lambda one: one.flush, default=None)
    end = Lsn((reached + 1) * size) if partial is None else partial.flush
    timeline = history.segment_timeline(reached + (partial is not None), size)
    return Reach(first, reached, end, timeline, partial, gap)


def needs_gaps(listing: Listing, needs: WalNeeds) -> tuple[Gap, ...]:
    """What is missing of a backup's own WAL; empty when it can become consistent."""
    wanted = (Span(needed.timeline, needed.first, needed.last) for needed in needs.ranges)
    return tuple(gap for span in wanted for gap in missing(listing, span))


def forks(histories: Iterable[History], timeline: int) -> tuple[Lsn, ...]:
    """Where other timelines left `timeline`, ascending."""
    left = {switch.lsn for history in histories for switch in history.switches if switch.timeline == timeline}
    return tuple(sorted(left))


def servable(partials: Iterable[Partial], forked: Iterable[Lsn]) -> tuple[Partial, ...]:
    """The partials of one segment that recovery may read, the longest first.

    There must be no full segment and no later one: the caller has looked.  `forked` is where the timelines that
    recovery might follow instead left this one: at and behind such a point lies WAL of a dead branch.  A restore's
    plan has chosen its lineage, so that other timelines do not count; without a plan every one does.
    """
    points = tuple(forked)
    alive = (partial for partial in partials if all(partial.flush < point for point in points))
    return tuple(sorted(alive, key=lambda partial: partial.flush, reverse=True))
