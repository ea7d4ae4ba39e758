"""What waits to be archived, and how long until it fills the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.wal.waiting import make_waiting
from tests.walfiles import CLOCK, SIZE, Failover

from pgkeep.errors import Fault
from pgkeep.wal.backlog import Backlog, alarm, backlog, rate_of
from pgkeep.wal.backlog import waiting as names_waiting


@pytest.fixture
def pg_wal(tmp_path: Path) -> Path:
    (tmp_path / "archive_status").mkdir()
    return tmp_path


def ready(pg_wal: Path, name: str, age: float = 0.0, size: int = SIZE) -> None:
    (pg_wal / name).write_bytes(bytes(size))
    mark = pg_wal / "archive_status" / f"{name}.ready"
    mark.touch()
    finished = CLOCK.now().timestamp() - age
    os.utime(mark, (finished, finished))


def test_the_order_is_postgresqls(pg_wal: Path) -> None:
    names = [
        "00000003.history", "000000010000000000000009", "000000010000000000000009.00000028.backup",
        "00000001000000000000000A.partial", "000000030000000000000001",
    ]  # fmt: skip
    for name in reversed(names):
        ready(pg_wal, name)
    (pg_wal / "archive_status" / "000000010000000000000008.done").touch()
    (pg_wal / "archive_status" / "nonsense.ready").touch()
    assert names_waiting(str(pg_wal)) == names


def test_no_pg_wal_at_all(tmp_path: Path) -> None:
    for ask in (names_waiting, lambda folder: backlog(folder, CLOCK)):
        with pytest.raises(Fault) as caught:
            ask(str(tmp_path))
        assert caught.value.code == "io"


def test_what_waits_and_how_fast_it_grows(pg_wal: Path) -> None:
    for number in range(11):
        ready(pg_wal, f"0000000100000000000000{number:02X}", age=100 - 10 * number)
    found = backlog(str(pg_wal), CLOCK)
    assert (found.files, found.size) == (11, 11 * SIZE)
    assert found.rate == pytest.approx(SIZE / 10, rel=0.05)
    space = os.statvfs(pg_wal)
    assert found.free == pytest.approx(space.f_bavail * space.f_frsize, rel=0.2)
    assert found.seconds_left == pytest.approx(found.free / found.rate)


def test_the_rate_is_not_guessed() -> None:
    assert rate_of([], SIZE, 100.0) == rate_of([90.0], SIZE, 100.0) == 0.0
    assert rate_of([100.0, 100.0], SIZE, 100.0) == 0.0
    assert rate_of([50.0, 50.0, 60.0], SIZE, 100.0) == 2 * SIZE / 50  # a server that has stopped writing slows down


def test_the_alarm_is_a_sentence() -> None:
    assert alarm(Backlog(1, 16 << 20, 0.0, 3 << 30)) == (
        "1 WAL file waits to be archived (16 MB); 3 GB are free for pg_wal"
    )
    assert alarm(Backlog(64, 1 << 30, 4 << 20, 3 << 30)) == (
        "64 WAL files wait to be archived (1 GB); 3 GB are free for pg_wal, which lasts about 12 min 48 s at"
        " 4 MB of WAL a second"
    )


def test_a_failed_push_says_how_long_the_disk_lasts(failover: Failover, tmp_path: Path) -> None:
    waiting = make_waiting(failover, tmp_path)
    waiting.repository.rename(tmp_path / "away")
    ran = waiting.run("-m", "pgkeep")
    assert ran.returncode == 1
    assert f"warning: {len(waiting.names)} WAL files wait to be archived" in ran.stderr
    assert waiting.marked() == [] and not waiting.repository.exists()
