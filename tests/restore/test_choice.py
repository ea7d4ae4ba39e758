"""Which timeline is followed and which backups may serve, for every kind of target and archive."""

from __future__ import annotations

import pytest

from pgkeep.errors import Fault
from pgkeep.restore.choice import choose
from pgkeep.restore.target import Target
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Switch
from tests.restore.lineages import SIZE, at, backup, view

FIRST, SECOND, THIRD = backup(1, 2, minutes=0), backup(2, 10, minutes=60), backup(3, 20, minutes=120)
ALL = [FIRST, SECOND, THIRD]
UNBROKEN = view({1: list(range(1, 31))})


def chosen(target: Target, archive: object = UNBROKEN, **options: object) -> list[str]:
    choice = choose(ALL, archive, target, **options)  # type: ignore[arg-type]
    return [candidate.info.backup for candidate in choice.candidates]


def refused(target: Target, **options: object) -> Fault:
    with pytest.raises(Fault) as caught:
        chosen(target, **options)
    assert caught.value.code in ("target-unreachable", "backup-unknown")
    return caught.value


def test_newest_first_and_only_what_had_ended() -> None:
    assert chosen(Target.at_time(at(119.9))) == [SECOND.backup, FIRST.backup]
    assert chosen(Target.at_time(at(120))) == [THIRD.backup, SECOND.backup, FIRST.backup]
    assert chosen(Target.at_lsn(Lsn(SECOND.stop_lsn))) == [SECOND.backup, FIRST.backup]
    assert chosen(Target.at_lsn(Lsn(SECOND.stop_lsn - 1))) == [FIRST.backup]
    assert chosen(Target.latest())[0] == THIRD.backup
    assert chosen(Target.at_xid(5)) == [THIRD.backup, SECOND.backup, FIRST.backup]


def test_the_first_stretch_of_interest_ends_with_the_next_backup() -> None:
    choice = choose(ALL, UNBROKEN, Target.at_time(at(70)))
    assert [candidate.until for candidate in choice.candidates] == [20, 10]
    assert {candidate.reach.last for candidate in choice.candidates} == {30}


def test_before_the_first_backup_the_earliest_is_named() -> None:
    fault = refused(Target.at_time(at(-1)))
    assert '--time "2026-05-07 12:00:00+00"' in fault.hint
    assert str(Lsn(FIRST.stop_lsn)) in refused(Target.at_lsn(Lsn(SIZE))).hint
    assert "--backup" in refused(Target.at_time(at(70)), backup=BackupId(THIRD.backup)).hint


def test_a_named_backup_is_the_only_one() -> None:
    assert chosen(Target.latest(), backup=BackupId(FIRST.backup)) == [FIRST.backup]
    assert refused(Target.latest(), backup=BackupId("20200101T000000Z-00000000")).code == "backup-unknown"


def test_a_backup_without_its_own_wal_is_passed_over() -> None:
    holes = view({1: [number for number in range(1, 31) if number != 20]})
    assert chosen(Target.at_xid(5), holes) == [SECOND.backup, FIRST.backup]
    choice = choose(ALL, holes, Target.latest())
    assert choice.candidates[0].reach.gap is not None
    nothing = view({1: [1, 3, 11, 21]})
    with pytest.raises(Fault, match="000000010000000000000014"):
        choose(ALL, nothing, Target.latest())


BRANCH = History(2, (Switch(1, Lsn(15 * SIZE + 0x500), "before"),))


def test_after_a_failover_the_dead_branch_serves_nobody() -> None:
    """The third backup was taken on timeline 1 after timeline 2 had left it."""
    archive = view({1: list(range(1, 31)), 2: list(range(15, 26))}, History(1), BRANCH)
    on_two = choose(ALL, archive, Target.latest(timeline=2))
    assert [candidate.info.backup for candidate in on_two.candidates] == [SECOND.backup, FIRST.backup]
    assert on_two.history == BRANCH
    on_one = choose(ALL, archive, Target.latest(timeline=1))
    assert on_one.candidates[0].info.backup == THIRD.backup


def test_by_default_the_newest_timeline_that_continues_the_newest_backup() -> None:
    archive = view({1: list(range(1, 16)), 2: list(range(15, 26))}, History(1), BRANCH)
    choice = choose([FIRST, SECOND], archive, Target.latest())
    assert choice.history == BRANCH
    # A backup on the branch itself.
    fourth = backup(4, 22, minutes=200, timeline=2)
    assert choose([FIRST, SECOND, fourth], archive, Target.latest()).candidates[0].info is fourth


def test_living_branches_are_named() -> None:
    archive = view({1: list(range(1, 31)), 2: list(range(15, 26))}, History(1), BRANCH)
    assert choose([FIRST, SECOND], archive, Target.latest()).others == (1,)


def test_an_unknown_timeline_lists_the_known_ones() -> None:
    assert "it has: 1" in refused(Target.latest(timeline=9)).message
