"""Spans, gaps, reach and partials along a lineage, compared with counting segment by segment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgkeep.catalog.continuity import Gap, Span, forks, gaps, needs_gaps, newest, reach, servable, spans
from pgkeep.format.manifest import WalNeeds, WalRange
from pgkeep.repo.walarchive import Listing, Partial
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment, Switch

SIZE = 1 << 20
MIB = 1 << 20


def listing(*partials: Partial, **by_timeline: list[int]) -> Listing:
    """`listing(t1=[1, 2], t2=[3])`."""
    segments = {int(name[1:]): sorted(numbers) for name, numbers in by_timeline.items() if numbers}
    return Listing(SIZE, segments, partials, ())


def partial(timeline: int, number: int, length: int = 100) -> Partial:
    return Partial(Segment(timeline, number), Lsn(number * SIZE + length), f"{timeline}/{number}/{length}")


TWO = History(2, (Switch(1, Lsn(5 * MIB + 700)),))
"""Timeline 1 was left in segment 5."""
THREE = History(3, (Switch(1, Lsn(5 * MIB + 700)), Switch(2, Lsn(5 * MIB + 900))))
"""Timeline 2 has no segment of its own: it was left in the segment in which it began."""


def test_spans_change_at_the_segment_of_the_switch() -> None:
    assert [*spans(TWO, SIZE, 3, 8)] == [Span(1, 3, 4), Span(2, 5, 8)]
    assert [*spans(THREE, SIZE, 3, 8)] == [Span(1, 3, 4), Span(3, 5, 8)]
    assert [*spans(TWO, SIZE, 6, 8)] == [Span(2, 6, 8)]
    assert [*spans(TWO, SIZE, 2, 3)] == [Span(1, 2, 3)]
    assert [*spans(TWO, SIZE, 8, 7)] == []


def test_a_switch_on_a_border_begins_with_the_next_segment() -> None:
    history = History(2, (Switch(1, Lsn(5 * MIB)),))
    assert [*spans(history, SIZE, 3, 8)] == [Span(1, 3, 4), Span(2, 5, 8)]


def test_gaps_are_runs() -> None:
    held = listing(t1=[1, 2, 4, 5, 9], t2=[5, 8])
    assert gaps(held, TWO, 0, 10) == (Gap(1, 0, 0), Gap(1, 3, 3), Gap(2, 6, 7), Gap(2, 9, 10))
    assert gaps(held, History(1), 1, 2) == ()


def test_a_gap_says_its_names() -> None:
    assert Gap(1, 3, 3).describe(SIZE) == "000000010000000000000003"
    assert Gap(1, 3, 5).describe(SIZE) == "000000010000000000000003 to 000000010000000000000005 (3 segments)"


def test_reach_to_the_end() -> None:
    found = reach(listing(t1=[1, 2, 3, 4], t2=[5, 6]), TWO, 2)
    assert (found.last, found.end, found.timeline, found.gap) == (6, 7 * SIZE, 2, None)


def test_reach_stops_at_a_gap() -> None:
    found = reach(listing(partial(2, 8), t1=[1, 2, 4], t2=[5, 6, 7]), TWO, 1)
    assert (found.last, found.end, found.timeline, found.gap) == (2, 3 * SIZE, 1, Gap(1, 3, 3))
    assert found.partial is None


def test_a_dead_branch_is_no_reach() -> None:
    found = reach(listing(t1=[1, 2, 3, 4, 5, 6, 7]), TWO, 1)
    assert (found.last, found.timeline, found.gap) == (4, 1, None)


def test_the_history_proves_what_nobody_archived() -> None:
    found = reach(listing(t1=[1, 2]), TWO, 1)
    assert (found.last, found.gap) == (2, Gap(1, 3, 4))


def test_nothing_from_the_start() -> None:
    found = reach(listing(), History(1), 7)
    assert (found.last, found.end, found.gap) == (6, 7 * SIZE, None)
    found = reach(listing(t1=[9]), History(1), 7)
    assert (found.last, found.gap) == (6, Gap(1, 7, 8))
    found = reach(listing(t1=[3]), History(1), 7)
    assert (found.last, found.gap) == (6, None)


def test_a_partial_carries_on() -> None:
    held = listing(partial(2, 7), partial(2, 7, 300), partial(2, 9), partial(1, 7, 900), t1=[3, 4], t2=[5, 6])
    found = reach(held, TWO, 3)
    assert (found.last, found.end, found.partial) == (6, 7 * SIZE + 300, partial(2, 7, 300))


def test_a_switch_partial_ends_the_left_timeline_when_it_was_chosen() -> None:
    held = listing(partial(1, 5, 8192), t1=[3, 4], t2=[5, 6])
    assert reach(held, History(1), 3).end == 5 * SIZE + 8192
    assert reach(held, TWO, 3).end == 7 * SIZE


def test_servable_partials() -> None:
    candidates = [partial(1, 5, 100), partial(1, 5, 800), partial(1, 5, 300)]
    assert servable(candidates, []) == (candidates[1], candidates[2], candidates[0])
    assert servable(candidates, [Lsn(5 * MIB + 300)]) == (candidates[0],)
    assert servable(candidates, [Lsn(5 * MIB + 100), Lsn(6 * MIB)]) == ()


def test_forks() -> None:
    assert forks([TWO, THREE, History(1)], 1) == (Lsn(5 * MIB + 700),)
    assert forks([TWO, THREE], 2) == (Lsn(5 * MIB + 900),)
    assert forks([TWO, THREE], 3) == ()


def test_what_a_backup_needs() -> None:
    needs = WalNeeds(ranges=[WalRange(timeline=1, first=3, last=4), WalRange(timeline=2, first=5, last=6)], history=b"")
    assert needs_gaps(listing(t1=[3, 4], t2=[5, 6]), needs) == ()
    assert needs_gaps(listing(t1=[3], t2=[6]), needs) == (Gap(1, 4, 4), Gap(2, 5, 5))


numbers = st.lists(st.integers(0, 12), unique=True)
points = st.lists(st.integers(0, 10 * MIB), max_size=3).map(sorted)


@given(st.lists(numbers, min_size=4, max_size=4), points, st.integers(0, 12), st.integers(0, 12))
def test_against_counting(held: list[list[int]], switches: list[int], first: int, last: int) -> None:
    lineage = History(len(switches) + 1, tuple(Switch(n + 1, Lsn(lsn)) for n, lsn in enumerate(switches)))
    archive = listing(t1=held[0], t2=held[1], t3=held[2], t4=held[3])

    def is_there(number: int) -> bool:
        return number in archive.segments.get(lineage.segment_timeline(number, SIZE), [])

    missing = [n for n in range(first, last + 1) if not is_there(n)]
    assert [segment.number for gap in gaps(archive, lineage, first, last) for segment in gap.segments()] == missing
    counted = [n for n in range(13) if is_there(n)]
    found = newest(archive, lineage)
    assert (None if found is None else found.number) == (max(counted) if counted else None)
    reached = reach(archive, lineage, first)
    assert all(is_there(n) for n in range(first, reached.last + 1))
    assert not is_there(reached.last + 1)
    proven = switches[-1] // SIZE - 1 if switches else -1
    beyond = max([*counted, proven])
    assert (reached.gap is not None) == (reached.last < beyond)
    if reached.gap is not None:
        assert reached.gap.first == reached.last + 1
        assert not any(is_there(n) for n in range(reached.gap.first, reached.gap.last + 1))
