"""Windows, lineages and gaps of archives whose shape is known; and a picture of each that can be read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.catalog.test_backups import SIZE, add_backup, add_wal
from tests.repo.made import INCARNATION
from tests.walfiles import CLOCK

from pgkeep.catalog.backups import backup_rows
from pgkeep.catalog.continuity import Gap, Reach
from pgkeep.catalog.windows import Ending, IncarnationView, LastCommit, Stretch, holes, view
from pgkeep.format import names
from pgkeep.format.deletion import PrunedRange
from pgkeep.repo.repository import create_repository, register_cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.walstock import record_pruned
from pgkeep.store.local import LocalStore
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History

SWITCH = 10
"""Timeline 2 leaves timeline 1 within this segment."""
HISTORY = f"1\t{Lsn(SWITCH * SIZE + 500)}\tno recovery target specified\n".encode()
LAST = LastCommit(datetime(2026, 5, 9, tzinfo=UTC), Lsn(5), 700)


@pytest.fixture
def archive(tmp_path: Path) -> WalArchive:
    repository = create_repository(LocalStore.create(tmp_path / "repository"), CLOCK, "test")
    return WalArchive(register_cluster(repository, INCARNATION, CLOCK), INCARNATION.system_id, SIZE)


def last(_archive: WalArchive, _history: History, _reach: Reach, _begin: Lsn, _version: int) -> LastCommit:
    return LAST


def seen(archive: WalArchive) -> IncarnationView:
    (one,) = view(archive.cluster, last)
    return one


def shape(windows: tuple[Stretch, ...]) -> list[tuple[int, int, int, Ending, int]]:
    """(timeline, first segment, segment after the last, why it ends, backups) of each."""
    return [
        (one.timeline, one.begin // SIZE, -(-one.end // SIZE), one.ending, len(one.backups)) for one in windows
    ]  # fmt: skip


def test_nothing(archive: WalArchive) -> None:
    assert (seen(archive).windows, seen(archive).branches) == ((), ())


def test_one_window_begins_with_its_oldest_backup(archive: WalArchive) -> None:
    names_ = (add_backup(archive, 1, 3, 3), add_backup(archive, 2, 6, 7))
    add_wal(archive, 1, 1, 9)
    (window,) = seen(archive).windows
    assert shape((window,)) == [(1, 3, 10, Ending.ARCHIVE, 2)]
    assert (window.backups, window.last, window.gap) == (names_, LAST, None)
    assert window.begin_time == datetime(2026, 5, 1, 11, 30, tzinfo=UTC)
    assert window.archived is not None


def test_a_gap_makes_two_windows(archive: WalArchive) -> None:
    add_backup(archive, 1, 3, 3)
    add_backup(archive, 2, 7, 7)
    add_wal(archive, 1, 1, 4)
    add_wal(archive, 1, 6, 9)
    found = seen(archive)
    assert shape(found.windows) == [(1, 3, 5, Ending.GAP, 1), (1, 7, 10, Ending.ARCHIVE, 1)]
    assert found.windows[0].gap == Gap(1, 5, 5)
    assert holes(found.branches[0]) == (Gap(1, 5, 5),)


def test_a_backup_in_a_gap_is_no_window_and_is_named(archive: WalArchive) -> None:
    name = add_backup(archive, 1, 4, 5)
    add_wal(archive, 1, 1, 4)
    found = seen(archive)
    assert not found.windows
    assert [(mark.backup, mark.restorable) for mark in found.backups] == [(name, False)]
    assert "lacks" in found.backups[0].problem


def promoted(archive: WalArchive) -> None:
    """A backup on timeline 1, a promotion, a backup on timeline 2."""
    add_backup(archive, 1, 3, 3)
    add_wal(archive, 1, 1, SWITCH - 1)
    archive.put("00000002.history", HISTORY, 0, CLOCK)
    add_wal(archive, 2, SWITCH, SWITCH + 3)
    add_backup(archive, 2, SWITCH + 1, SWITCH + 1, timeline=2, history=HISTORY)


def test_a_promotion_that_everybody_followed_is_one_window(archive: WalArchive) -> None:
    promoted(archive)
    found = seen(archive)
    assert shape(found.windows) == [(2, 3, SWITCH + 4, Ending.ARCHIVE, 2)]
    assert [(one.timeline, one.parent, one.lives, one.children) for one in found.branches] == [
        (1, None, False, (2,)), (2, 1, True, ()),
    ]  # fmt: skip


def test_a_branch_that_went_on_is_a_lineage_of_its_own(archive: WalArchive) -> None:
    promoted(archive)
    add_wal(archive, 1, SWITCH, SWITCH + 5)
    found = seen(archive)
    assert shape(found.windows) == [
        (1, 3, SWITCH + 6, Ending.FORK, 1), (2, 3, SWITCH + 4, Ending.ARCHIVE, 2),
    ]  # fmt: skip
    assert [one.lives for one in found.branches] == [True, True]


def test_a_missing_history_is_a_problem_of_its_timeline(archive: WalArchive) -> None:
    add_backup(archive, 1, 3, 3)
    add_wal(archive, 1, 1, SWITCH - 1)
    add_wal(archive, 2, SWITCH, SWITCH + 3)
    found = seen(archive)
    assert shape(found.windows) == [(1, 3, SWITCH, Ending.FORK, 1)]
    assert "history file is missing" in found.branches[1].problem
    assert not found.branches[0].problem


def test_a_damaged_history_and_an_unreadable_manifest_hide_nothing_else(archive: WalArchive) -> None:
    promoted(archive)
    name = add_backup(archive, 3, 5, 5)
    store = archive.cluster.repository.store
    for key in (archive.key("00000002.history"), f"{archive.cluster.uuid}/backups/{name}"):
        data = bytearray(store.get(key))
        data[700] ^= 1
        store.delete(key)
        store.put(key, [bytes(data)])
    found = seen(archive)
    assert [one.problem != "" for one in found.backups] == [False, False, True]
    assert found.windows


def test_a_damaged_incarnation_hides_no_other_cluster(archive: WalArchive) -> None:
    from msgspec.structs import replace

    from pgkeep.errors import Damaged
    from pgkeep.repo.repository import cluster_named, cluster_of_system, clusters, damaged_incarnations

    repository = archive.cluster.repository
    other = register_cluster(repository, replace(INCARNATION, system_id=77, cluster_name="other"), CLOCK)
    key = names.incarnation(other.uuid, 77)
    data = bytearray(repository.store.get(key))
    data[600] ^= 1
    repository.store.delete(key)
    repository.store.put(key, [bytes(data)])
    assert [cluster.name for cluster in clusters(repository)] == [archive.cluster.name]
    assert cluster_named(repository, archive.cluster.name).uuid == archive.cluster.uuid
    assert cluster_of_system(repository, INCARNATION.system_id).uuid == archive.cluster.uuid
    assert [one.key for one in damaged_incarnations(repository)] == [key]
    # Its own server is not unknown: nobody may register it a second time.
    with pytest.raises(Damaged, match=key):
        cluster_of_system(repository, 77)
    with pytest.raises(Damaged, match=key):
        cluster_named(repository, "other")
    with pytest.raises(Damaged, match=key):
        register_cluster(repository, replace(INCARNATION, system_id=77, cluster_name="new"), CLOCK)


def pruned(archive: WalArchive, first: int, last: int) -> None:
    row = PrunedRange(system_id=archive.system_id, timeline=1, first=first, last=last)
    record_pruned(archive.cluster, [row], CLOCK)


def test_a_gap_that_a_prune_made_is_none_of_fault(archive: WalArchive) -> None:
    """One old backup with its own WAL, and the window; within what was pruned nothing is lost."""
    add_backup(archive, 1, 3, 3)
    add_backup(archive, 2, 9, 9)
    add_wal(archive, 1, 3, 3)
    add_wal(archive, 1, 9, 12)
    pruned(archive, 4, 8)
    found = seen(archive)
    assert shape(found.windows) == [(1, 3, 4, Ending.PRUNED, 1), (1, 9, 13, Ending.ARCHIVE, 1)]
    assert (found.windows[0].last, found.windows[1].last) == (None, LAST)
    (branch,) = found.branches
    assert (holes(branch), branch.lost) == ((Gap(1, 4, 8),), ())
    assert all(mark.restorable for mark in found.backups)
    rows = backup_rows(archive.cluster)
    assert [row.window and (row.window.is_pruned, row.window.gap) for row in rows] == [
        (True, Gap(1, 4, 8)), (False, None),
    ]  # fmt: skip


def test_what_was_lost_beside_what_was_pruned_is_a_gap(archive: WalArchive) -> None:
    add_backup(archive, 1, 3, 3)
    add_backup(archive, 2, 9, 9)
    add_wal(archive, 1, 3, 4)
    add_wal(archive, 1, 9, 12)
    pruned(archive, 6, 8)
    found = seen(archive)
    assert found.windows[0].ending is Ending.GAP
    assert found.branches[0].lost == (Gap(1, 5, 5),)
