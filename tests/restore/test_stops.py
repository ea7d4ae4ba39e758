"""Where recovery will stop, held against the rules of the server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Fault
from pgkeep.pg.waldump import RestorePoint, TransactionEnd
from pgkeep.restore.choice import Choice, choose
from pgkeep.restore.stops import Stop, is_over, last_segment, settle, sought
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.lsn import Lsn
from pgkeep.values.xid import XidSnapshot
from tests.restore.lineages import SIZE, at, backup, end, point, view
from tests.walfacts import fold

BACKUP = backup(1, 2, minutes=0)
STOP = BACKUP.stop_lsn
END = 8 * SIZE


def choice_of(segments: list[int]) -> Choice:
    return choose([BACKUP], view({1: segments}), Target.latest())


CHOICE = choice_of(list(range(2, 8)))
LONG = choice_of(list(range(2, 100))).candidates[0]


def settled(
    target: Target, records: list[TransactionEnd], *, complete: bool = True, choice: Choice = CHOICE
) -> Stop | None:
    candidate = choice.candidates[0]
    scan = fold(records, sought(target, candidate, SIZE), BACKUP.start_lsn, END, SIZE)
    return settle(target, candidate, scan, choice, complete=complete)


def refused(target: Target, records: list[TransactionEnd], choice: Choice = CHOICE) -> Fault:
    with pytest.raises(Fault) as caught:
        settled(target, records, choice=choice)
    assert caught.value.code == "target-unreachable"
    return caught.value


ONE, TWO, THREE = end(STOP + 0x100, 10, 701), end(STOP + 0x200, 20, 702), end(STOP + 0x300, 30, 703)


def test_a_time_stops_after_the_last_transaction_that_had_ended() -> None:
    stop = settled(Target.at_time(at(25)), [ONE, TWO, THREE])
    assert stop is not None
    assert (stop.last, stop.next) == (TWO, THREE)
    assert stop.recover_to == Target.at_lsn(TWO.lsn)


def test_inclusive_and_exclusive_times() -> None:
    inclusive = settled(Target.at_time(TWO.time), [ONE, TWO, THREE])
    exclusive = settled(Target.at_time(TWO.time, inclusive=False), [ONE, TWO, THREE])
    assert inclusive is not None and inclusive.last == TWO
    assert exclusive is not None and exclusive.last == ONE and exclusive.next == TWO


def test_times_that_do_not_ascend_stop_at_the_first_that_is_later() -> None:
    """recoveryStopsBefore: 15 minutes is never reached behind the transaction of minute 30."""
    stop = settled(Target.at_time(at(15)), [ONE, end(STOP + 0x180, 30), end(STOP + 0x190, 12)])
    assert stop is not None and stop.last == ONE


def test_before_the_first_transaction_the_backups_end_is_the_stop() -> None:
    stop = settled(Target.at_time(at(5)), [ONE, TWO])
    assert stop is not None
    assert stop.recover_to.kind is TargetKind.IMMEDIATE and stop.next == ONE


def test_what_ended_during_the_backup_but_later_by_the_clock_needs_an_older_backup() -> None:
    assert settled(Target.at_time(at(5)), [end(STOP - 0x100, 7), ONE]) is None


def test_behind_the_last_transaction_only_its_own_time_can_be_reached() -> None:
    stop = settled(Target.at_time(THREE.time), [ONE, TWO, THREE])
    assert stop is not None and stop.last == THREE and stop.next is None
    fault = refused(Target.at_time(at(31)), [ONE, TWO, THREE])
    assert '--time "2026-05-07 12:30:00+00"' in fault.hint and "--latest" in fault.hint
    assert settled(Target.at_time(at(31)), [ONE], complete=False) is None  # more WAL may tell
    assert "--immediate" in refused(Target.at_time(at(31)), []).hint


def test_a_gap_is_named() -> None:
    gap = choice_of([2, 3, 4, 6, 7])
    fault = refused(Target.at_time(at(31)), [ONE, TWO, THREE], gap)
    assert "000000010000000000000005" in fault.message and "--latest" not in fault.hint
    assert "000000010000000000000005" in refused(Target.latest(), [ONE], gap).message


def test_transactions() -> None:
    found = settled(Target.at_xid(702), [ONE, TWO, THREE])
    before = settled(Target.at_xid(702, inclusive=False), [ONE, TWO, THREE])
    wide = settled(Target.at_xid(702 + (5 << 32)), [ONE, TWO, THREE])
    assert found is not None and found.recover_to == Target.at_xid(702) and found.last == TWO
    assert before is not None and before.recover_to == Target.at_lsn(ONE.lsn) and before.next == TWO
    assert wide is not None and wide.recover_to == Target.at_xid(702)
    assert settled(Target.at_xid(9), [ONE]) is None
    assert settled(Target.at_xid(650), [end(STOP - 0x100, 0, 650), ONE]) is None
    owner = end(STOP + 0x200, 20, 702, subxacts=(710, 711))
    assert "--xid 702" in refused(Target.at_xid(711), [ONE, owner]).hint
    aborted = settled(Target.at_xid(702), [end(STOP + 0x200, 20, 702, committed=False)])
    assert aborted is not None and "rolled back" in aborted.warnings[0]


def test_restore_points() -> None:
    target = Target.at_name("here")
    candidate = CHOICE.candidates[0]

    def found(*points: RestorePoint) -> Stop | None:
        scan = fold(points, sought(target, candidate, SIZE), BACKUP.start_lsn, END, SIZE)
        return settle(target, candidate, scan, CHOICE, complete=True)

    assert found(point(STOP + 8, "there")) is None
    one = found(point(STOP + 8, "here"))
    assert one is not None and one.position == STOP + 8 and not one.warnings
    two = found(point(STOP + 8, "here"), point(STOP + 800, "here"))
    assert two is not None and str(Lsn(STOP + 800)) in two.warnings[0]
    # The server would stop at it, and complain that it is not consistent yet.
    assert found(point(STOP - 8, "here"), point(STOP + 800, "here")) is None


def test_an_lsn_behind_the_last_record_is_refused() -> None:
    stop = settled(Target.at_lsn(Lsn(END - 1)), [ONE])
    assert stop is not None and stop.position == END - 1
    assert f"--lsn {ONE.lsn}" in refused(Target.at_lsn(Lsn(END)), [ONE]).hint


def test_no_more_is_scanned_than_the_target_needs() -> None:
    candidate = CHOICE.candidates[0]
    assert last_segment(Target.immediate(), LONG, SIZE) == 10
    assert last_segment(Target.at_lsn(Lsn(13 * SIZE)), LONG, SIZE) == 21
    assert last_segment(Target.at_lsn(Lsn(90 * SIZE)), candidate, SIZE) == 7
    assert last_segment(Target.latest(), candidate, SIZE) == 7


@given(
    epoch=st.integers(1, 1000),
    xmin=st.integers(100, (1 << 32) - 100),
    ahead=st.integers(0, 50),
    xid=st.integers(-99, 99),
)
def test_short_and_long_transaction_ids_are_judged_alike(epoch: int, xmin: int, ahead: int, xid: int) -> None:
    low = (epoch << 32) + xmin
    snapshot = XidSnapshot(low, low + ahead, (low,) if ahead else ())
    full = low + xid
    assert is_over(snapshot, full) == is_over(snapshot, full & 0xFFFFFFFF)
    assert is_over(snapshot, full) == (full < low or (full < low + ahead and full != low))
