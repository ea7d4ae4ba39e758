"""Histories of an archive, and the timeline that a restore follows by default."""

from __future__ import annotations

import pytest
from tests.walfiles import CLOCK, SIZE, archive_in_memory

from pgkeep.catalog.timelines import children, continues, default_timeline, histories, read_timelines, with_wal
from pgkeep.errors import Damaged
from pgkeep.repo.walarchive import Listing, Partial, WalArchive
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment, Switch

MIB = 1 << 20


@pytest.fixture
def archive() -> WalArchive:
    return archive_in_memory()


def add_segment(archive: WalArchive, timeline: int, number: int) -> None:
    segment = Segment(timeline, number)
    archive.put(segment.name(SIZE), bytes(8192), segment.start(SIZE), CLOCK)


def test_every_timeline_has_a_history(archive: WalArchive) -> None:
    add_segment(archive, 1, 3)
    archive.put("00000002.history", b"1\t0/300000\tx\n", 0, CLOCK)
    start = Lsn(5 * MIB)
    archive.put(f"{Segment(3, 5).name(SIZE)}.partial", b"abc", start, CLOCK, flush=Lsn(start + 3))
    assert histories(archive) == {
        1: History(1), 2: History(2, (Switch(1, Lsn(0x300000), "x"),)), 3: History(3),
    }  # fmt: skip
    assert with_wal(archive.listing()) == (1, 3)


def test_a_backup_may_know_more(archive: WalArchive) -> None:
    add_segment(archive, 2, 3)
    known = History(2, (Switch(1, Lsn(MIB)),))
    assert read_timelines(archive, known=[known]).histories == {2: known}


def test_a_damaged_history_hides_no_other(archive: WalArchive) -> None:
    archive.put("00000002.history", b"1\t0/300000\tx\n", 0, CLOCK)
    archive.put("00000003.history", b"nonsense\n", 0, CLOCK)
    timelines = read_timelines(archive)
    assert [*timelines.histories] == [2]
    assert [*timelines.damaged] == [3]
    with pytest.raises(Damaged, match=r"00000003\.history"):
        histories(archive)


ONE = History(1)
TWO = History(2, (Switch(1, Lsn(5 * MIB)),))
THREE = History(3, (*TWO.switches, Switch(2, Lsn(8 * MIB))))
FOUR = History(4, (Switch(1, Lsn(6 * MIB)),))
KNOWN = {1: ONE, 2: TWO, 3: THREE, 4: FOUR}


def held(*partials: Partial, **by_timeline: list[int]) -> Listing:
    return Listing(SIZE, {int(name[1:]): numbers for name, numbers in by_timeline.items()}, partials, ())


def test_children() -> None:
    assert children(KNOWN, 1) == (2, 4)
    assert children(KNOWN, 2) == (3,)
    assert children(KNOWN, 3) == ()


def test_continues() -> None:
    assert continues(THREE, 1, Lsn(5 * MIB))
    assert not continues(THREE, 1, Lsn(5 * MIB + 1))
    assert continues(THREE, 3, Lsn(99 * MIB))
    assert not continues(FOUR, 2, Lsn(0))


def test_the_newest_descendant_is_followed() -> None:
    known = {1: ONE, 2: TWO, 3: THREE}
    chosen = default_timeline(known, held(t1=[3, 4], t2=[5, 6, 7], t3=[8]), 1, Lsn(4 * MIB))
    assert (chosen.timeline, chosen.others) == (3, ())


def test_a_backup_made_after_the_switch_stays_on_its_branch() -> None:
    known = {1: ONE, 2: TWO}
    chosen = default_timeline(known, held(t1=[3, 4, 5, 6, 7], t2=[5, 6]), 1, Lsn(6 * MIB))
    assert (chosen.timeline, chosen.others) == (1, ())


def test_living_branches_are_named() -> None:
    chosen = default_timeline(KNOWN, held(t1=[3, 4, 5, 6, 7], t2=[5, 6, 7], t3=[8, 9], t4=[6, 7]), 1, Lsn(4 * MIB))
    assert (chosen.timeline, chosen.others) == (4, (1, 2, 3))


def test_the_completed_segment_of_the_switch_is_no_life() -> None:
    known = {1: ONE, 2: TWO}
    assert default_timeline(known, held(t1=[3, 4, 5], t2=[5, 6]), 1, Lsn(4 * MIB)).others == ()


def test_an_unknown_timeline_is_its_own() -> None:
    assert default_timeline({}, held(), 7, Lsn(MIB)).timeline == 7
