"""What is fetched ahead: nothing beyond the plan, nothing twice, never more than there is room for."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.walfiles import CLOCK, SIZE, archive_in_memory, lineage_of

from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment, Switch
from pgkeep.wal.prefetchplan import MOST_BYTES, Way, Window, is_worth_while, plan_step, room_for
from pgkeep.wal.spool import Spool

ANYWHERE = Way(SIZE, 1)


HISTORY = History(2, (Switch(1, Lsn(5 * SIZE + 100)),))


def test_each_segment_from_its_one_right_timeline() -> None:
    way = Way.of(lineage_of(archive_in_memory(), HISTORY, 7), Segment(1, 2), SIZE)
    assert [way.segment(number).timeline for number in range(3, 8)] == [1, 1, 2, 2, 2]
    assert way.after(6) == Segment(2, 7) and way.after(7) is None
    assert Way.of(None, Segment(3, 2), SIZE).after(7) == Segment(3, 8)


def test_a_segment_that_was_partial_when_the_plan_was_made_is_left_to_wal_get() -> None:
    lineage = lineage_of(archive_in_memory(), HISTORY, 7, Lsn(7 * SIZE + 8192))
    assert Way.of(lineage, Segment(1, 2), SIZE).after(6) is None


def test_the_window_moves_as_files_leave() -> None:
    step = plan_step(ANYWHERE, Window(begin=5, next=5, room=3), [], [])
    assert (step.fetch, step.discard, step.next) == ((5, 6, 7), (), 8)
    assert plan_step(ANYWHERE, Window(5, 8, 3), [5, 6], [7]).fetch == ()
    assert plan_step(ANYWHERE, Window(5, 8, 3), [7], []).fetch == (8, 9)


def test_it_begins_anew_where_recovery_reads() -> None:
    step = plan_step(ANYWHERE, Window(begin=3, next=3, room=4), [5, 2], [4])
    assert (step.fetch, step.discard, step.next) == ((3, 6), (2,), 7)


def test_it_shrinks_with_the_room() -> None:
    step = plan_step(ANYWHERE, Window(begin=5, next=9, room=2), [5, 6, 7, 8], [])
    assert (step.fetch, step.discard, step.next) == ((), (7, 8), 7)
    assert plan_step(ANYWHERE, Window(5, 7, 0), [], []).fetch == ()


@given(st.data())
def test_every_segment_comes_once_and_in_time(data: st.DataObject) -> None:
    """A server that takes in order, fetches that end in any order, room that changes: all are had, none is missed."""
    last = data.draw(st.integers(1, 12))
    way = Way(SIZE, 1, last=last)
    held: set[int] = set()
    coming: list[int] = []
    next_, wanted = 1, 1
    for turn in range(40 * last):
        step = plan_step(way, Window(1, next_, data.draw(st.integers(1, 5)) if turn < 50 else 2), held, coming)
        held.difference_update(step.discard)
        assert not set(step.fetch) & (held | set(coming)) and max(step.fetch, default=0) <= last
        coming += step.fetch
        next_ = step.next
        if coming:
            held.add(coming.pop(data.draw(st.integers(0, len(coming) - 1))))
        if wanted in held and (turn % 3 == 0 or data.draw(st.booleans())):
            held.discard(wanted)
            wanted += 1
        if wanted > last:
            return
    raise AssertionError(f"segment {wanted} never came")


def test_room_is_a_share_of_what_is_free_and_never_too_much() -> None:
    much = 1 << 40
    assert room_for(16 << 20, much, much, 0) == MOST_BYTES // (16 << 20)
    assert room_for(16 << 20, 128 << 20, much, 0) == 2
    assert room_for(16 << 20, much, 64 << 20, 64 << 20) == 2
    assert room_for(16 << 20, much, 0, 16 << 20) == 0
    assert room_for(1 << 30, much, much, 0) == 0


def test_a_standby_at_the_end_of_the_archive_starts_nobody(tmp_path: Path) -> None:
    archive = archive_in_memory()
    spool = Spool(f"{tmp_path}/pg_wal/pgkeep.spool.1")
    served = Segment(1, 4)
    assert not is_worth_while(archive, spool, None, served)
    archive.put(Segment(1, 5).name(SIZE), bytes(SIZE), 5 * SIZE, CLOCK)
    assert is_worth_while(archive, spool, None, served)
    asked = spool.asked()
    assert asked is not None and asked[0] == served.name(SIZE)
    assert spool.lock() is not None
    assert not is_worth_while(archive, spool, None, served)


def test_nobody_starts_for_what_the_plan_did_not_know(tmp_path: Path) -> None:
    archive = archive_in_memory()
    spool = Spool(f"{tmp_path}/pg_wal/pgkeep.spool.1")
    assert is_worth_while(archive, spool, lineage_of(archive, HISTORY, 5), Segment(1, 4))
    assert not is_worth_while(archive, spool, lineage_of(archive, HISTORY, 4), Segment(1, 4))


def test_a_spool_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "pg_wal").write_text("no directory")
    assert not is_worth_while(archive_in_memory(), Spool(f"{tmp_path}/pg_wal/pgkeep.spool.1"), None, Segment(1, 4))
