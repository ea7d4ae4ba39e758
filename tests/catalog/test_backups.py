"""Rows of a list: complete, missing WAL, windows and their ends, and damage that hides nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.format.samples import INFO, INNER
from tests.repo.made import INCARNATION
from tests.walfiles import CLOCK

from pgkeep.catalog.backups import BackupRow, backup_rows
from pgkeep.catalog.continuity import Gap
from pgkeep.format import names
from pgkeep.format.manifest import Outer, WalNeeds, WalRange
from pgkeep.repo.backups import write_backup
from pgkeep.repo.repository import create_repository, register_cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.local import LocalStore
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment

SIZE = INCARNATION.wal_segment_size


@pytest.fixture
def archive(tmp_path: Path) -> WalArchive:
    repository = create_repository(LocalStore.create(tmp_path / "repository"), CLOCK, "test")
    cluster = register_cluster(repository, INCARNATION, CLOCK)
    return WalArchive(cluster, INCARNATION.system_id, SIZE)


def add_backup(archive: WalArchive, day: int, start: int, stop: int, timeline: int = 1, history: bytes = b"") -> str:
    """A backup without files from segment `start` to segment `stop`."""
    name = BackupId.make(datetime(2026, 5, day, tzinfo=UTC), bytes([day] * 4))
    info = replace(
        INFO, backup=name, cluster=archive.cluster.uuid, timeline=timeline, start_timeline=timeline, pages=0,
        start_lsn=start * SIZE + 40, stop_lsn=stop * SIZE + 300, stopped=f"2026-05-{day:02}T11:30:00+00:00",
    )  # fmt: skip
    needs = WalNeeds(ranges=[WalRange(timeline=timeline, first=start, last=stop)], history=history)
    inner = INNER.__class__(INNER.server, INNER.backup_label, b"", needs, [], [], [], [], [], [])
    write_backup(archive.cluster, Outer(info, [], []), inner, [], CLOCK)
    return name


def add_wal(archive: WalArchive, timeline: int, first: int, last: int) -> None:
    for number in range(first, last + 1):
        segment = Segment(timeline, number)
        archive.put(segment.name(SIZE), b"wal", segment.start(SIZE), CLOCK)


def only_row(archive: WalArchive) -> BackupRow:
    (row,) = backup_rows(archive.cluster)
    return row


def test_no_backups(archive: WalArchive) -> None:
    assert backup_rows(archive.cluster) == []


def test_a_window_reaches_to_the_last_segment(archive: WalArchive) -> None:
    name = add_backup(archive, 7, 3, 4)
    add_wal(archive, 1, 3, 9)
    row = only_row(archive)
    assert (row.backup, row.damage, row.missing, row.is_restorable) == (name, "", (), True)
    window = row.window
    assert window is not None
    assert (window.timeline, window.from_lsn, window.to_lsn) == (1, 4 * SIZE + 300, 10 * SIZE)
    assert window.from_time == datetime(2026, 5, 7, 11, 30, tzinfo=UTC)
    assert window.archived == archive.stat(Segment(1, 9)).modified
    assert (window.gap, window.others) == (None, ())


def test_a_gap_ends_the_window(archive: WalArchive) -> None:
    add_backup(archive, 7, 3, 4)
    add_wal(archive, 1, 3, 6)
    add_wal(archive, 1, 9, 9)
    window = only_row(archive).window
    assert window is not None
    assert (window.to_lsn, window.gap) == (7 * SIZE, Gap(1, 7, 8))


def test_wal_of_its_own_is_missing(archive: WalArchive) -> None:
    add_backup(archive, 7, 3, 6)
    add_wal(archive, 1, 3, 3)
    add_wal(archive, 1, 5, 9)
    row = only_row(archive)
    assert (row.missing, row.window, row.is_restorable) == ((Gap(1, 4, 4),), None, False)


def test_its_last_segment_may_be_a_partial(archive: WalArchive) -> None:
    add_backup(archive, 7, 3, 4)
    add_wal(archive, 1, 3, 3)
    start = Lsn(4 * SIZE)
    name = Segment(1, 4).name(SIZE) + ".partial"
    archive.put(name, bytes(200), start, CLOCK, flush=Lsn(start + 200))
    assert only_row(archive).missing == (Gap(1, 4, 4),)
    archive.put(name, bytes(400), start, CLOCK, flush=Lsn(start + 400))
    window = only_row(archive).window
    assert window is not None
    assert window.to_lsn == start + 400


def test_the_window_follows_a_failover(archive: WalArchive) -> None:
    add_backup(archive, 7, 3, 4)
    add_backup(archive, 8, 8, 8, timeline=2, history=f"1\t{Lsn(6 * SIZE + 100)}\tx\n".encode())
    add_wal(archive, 1, 3, 5)
    add_wal(archive, 2, 6, 9)
    archive.put("00000002.history", f"1\t{Lsn(6 * SIZE + 100)}\tx\n".encode(), 0, CLOCK)
    old, new = (row.window for row in backup_rows(archive.cluster))
    assert old is not None
    assert new is not None
    assert (old.timeline, old.to_lsn) == (new.timeline, new.to_lsn) == (2, 10 * SIZE)
    add_wal(archive, 1, 6, 7)  # the old primary goes on
    old = backup_rows(archive.cluster)[0].window
    assert old is not None
    assert (old.timeline, old.others) == (2, (1,))


def test_the_history_may_only_be_in_the_manifest(archive: WalArchive) -> None:
    add_backup(archive, 7, 3, 4, timeline=2, history=f"1\t{Lsn(2 * SIZE)}\tx\n".encode())
    add_wal(archive, 2, 3, 5)
    window = only_row(archive).window
    assert window is not None
    assert (window.timeline, window.to_lsn) == (2, 6 * SIZE)


def test_damage_stays_in_its_row(archive: WalArchive, tmp_path: Path) -> None:
    bad, good = add_backup(archive, 7, 3, 4), add_backup(archive, 8, 3, 4)
    add_wal(archive, 1, 3, 5)
    stored = tmp_path / "repository" / names.backup(archive.cluster.uuid, BackupId(bad))
    stored.write_bytes(stored.read_bytes()[:500])
    rows = backup_rows(archive.cluster)
    assert [row.backup for row in rows] == [bad, good]
    assert (rows[0].info, rows[0].is_restorable) == (None, False)
    assert bad in rows[0].damage
    assert rows[1].is_restorable


def test_a_damaged_history_costs_no_backup_of_another_timeline(archive: WalArchive) -> None:
    add_backup(archive, 7, 3, 4)
    add_wal(archive, 1, 3, 5)
    archive.put("00000002.history", b"nonsense\n", 0, CLOCK)
    assert only_row(archive).is_restorable
