"""A timeline's history comes into the archive with whoever claims the timeline."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.walfiles import CLOCK, Failover

from pgkeep.errors import Fault
from pgkeep.repo.walarchive import WalArchive
from pgkeep.wal.claims import adopt
from pgkeep.wal.history import archive_own_history
from pgkeep.wal.push import push

NAME = "00000002.history"


@pytest.fixture
def history(failover: Failover, promoted: Path) -> bytes:
    """The promoted server's own history, in its pg_wal, not yet archived."""
    shutil.copy(failover.new / NAME, promoted / "pg_wal" / NAME)
    return (failover.new / NAME).read_bytes()


def test_the_first_push_brings_it(failover: Failover, archive: WalArchive, promoted: Path, history: bytes) -> None:
    """As of a server that was promoted while archive_mode was off: PostgreSQL never pushes it."""
    segment = failover.segments(2)[0]
    push(archive.cluster.repository, str(segment), CLOCK, data_directory=promoted)
    assert archive.history(2) == history
    assert not push(archive.cluster.repository, str(failover.new / NAME), CLOCK, data_directory=promoted).new


def test_an_adoption_brings_it(archive: WalArchive, promoted: Path, history: bytes) -> None:
    adopt(archive.cluster.repository, promoted, CLOCK, timeline=2)
    assert archive.history(2) == history


def test_another_history_of_the_timeline_leaves_it_to_its_owner(
    archive: WalArchive, promoted: Path, history: bytes
) -> None:
    other = history.replace(b"\t0/", b"\t1/")
    assert other != history
    archive.put(NAME, other, 0, CLOCK)
    with pytest.raises(Fault) as caught:
        adopt(archive.cluster.repository, promoted, CLOCK, timeline=2)
    assert caught.value.code == "wal-refused"
    assert archive.claim(2) == (-1, None)


def test_none_is_needed_on_timeline_1_or_where_none_lies(archive: WalArchive, promoted: Path) -> None:
    archive_own_history(archive, 1, str(promoted), CLOCK)
    archive_own_history(archive, 2, str(promoted), CLOCK)
    assert not archive.listing().timelines_with_history


def test_nonsense_is_not_archived(archive: WalArchive, promoted: Path, history: bytes) -> None:
    (promoted / "pg_wal" / NAME).write_bytes(b"nonsense\n")
    with pytest.raises(Fault) as caught:
        archive_own_history(archive, 2, str(promoted), CLOCK)
    assert caught.value.code == "wal-refused"
