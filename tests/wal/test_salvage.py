"""What a dead server left: found, pushed only by its own archiver's right, and never lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.walfiles import SIZE, Failover

from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.events import silent
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.wal import Segment
from pgkeep.wal.push import push
from pgkeep.wal.salvage import Salvaged, left_behind, salvage
from pgkeep.wal.token import known_token

CLOCK = SystemClock()


@pytest.fixture
def dead(failover: Failover, instance: Path) -> Path:
    """A server that archived its first segment, completed two more, and was writing the fourth; then a recycled one."""
    fill(instance, failover.segments(1)[:4])
    segments = failover.segments(1)[:4]
    wal = instance / "pg_wal"
    for path, suffix in zip(segments, ("done", "ready", "ready"), strict=False):
        (wal / "archive_status" / f"{path.name}.{suffix}").touch()
    last = Segment.parse(segments[3].name, SIZE)
    shutil.copy(segments[0], wal / Segment(1, last.number + 1).name(SIZE))
    (wal / Segment(1, last.number + 2).name(SIZE)).write_bytes(bytes(SIZE))
    (wal / "note.txt").write_text("x")
    return instance


def fill(instance: Path, segments: Sequence[Path]) -> None:
    (instance / "pg_wal/archive_status").mkdir()
    for path in segments:
        shutil.copy(path, instance / "pg_wal" / path.name)


def names(failover: Failover) -> list[str]:
    return [path.name for path in failover.segments(1)[:4]]


def saved(archive: WalArchive, dead: Path, *, keep: bool = True) -> Salvaged:
    before = sorted(os.listdir(dead / "pg_wal"))
    outcome = salvage(archive.cluster, str(dead), str(dead.with_name("beside")), CLOCK, silent, keep=keep)
    assert sorted(os.listdir(dead / "pg_wal")) == before, "nothing goes from pg_wal"
    return outcome


def test_what_waits_is_found(failover: Failover, dead: Path) -> None:
    """Neither what is archived nor what holds no WAL of its own; the last one was being written."""
    _, second, third, fourth = names(failover)
    assert [left.name for left in left_behind(str(dead))] == [second, third, f"{fourth}.partial"]


def test_a_segment_that_was_completed_needs_no_status(failover: Failover, dead: Path) -> None:
    """archive_status lost: the next segment shows that nothing more is written to it."""
    shutil.rmtree(dead / "pg_wal/archive_status")
    *finished, last = names(failover)
    assert [left.name for left in left_behind(str(dead))] == [*finished, f"{last}.partial"]


def test_it_is_archived_as_its_own_archiver_would(archive: WalArchive, failover: Failover, dead: Path) -> None:
    first, second, third, fourth = names(failover)
    push(archive.cluster.repository, str(dead / "pg_wal" / first), CLOCK, data_directory=dead)
    outcome = saved(archive, dead)
    assert outcome == Salvaged((second, third, f"{fourth}.partial"))
    assert not dead.with_name("beside").exists()
    listing = archive.listing()
    assert len(listing.segments[1]) == 3
    assert [partial.segment.name(SIZE) for partial in listing.partials] == [fourth]
    assert archive.segment(Segment.parse(third, SIZE)) == (dead / "pg_wal" / third).read_bytes()
    assert saved(archive, dead).pushed == outcome.pushed, "again: it is there already"


def test_an_unclaimed_timeline_is_its_archivers(archive: WalArchive, dead: Path) -> None:
    assert len(saved(archive, dead).pushed) == 3


@pytest.mark.parametrize("keep", [True, False])
def test_a_branch_that_was_never_archived_stays_out(
    archive: WalArchive, failover: Failover, dead: Path, keep: bool
) -> None:
    shutil.rmtree(dead / "pg_wal/archive_status")
    outcome = saved(archive, dead, keep=keep)
    assert not outcome.pushed and len(outcome.kept) == 4 and outcome.why
    assert archive.listing().segments == {} and archive.claim(1)[1] is None
    assert known_token(dead) is None, "looking mints no token"
    beside = dead.with_name("beside")
    assert beside.exists() is keep
    if keep:
        assert outcome.where == str(beside)
        assert sorted(os.listdir(beside)) == sorted(outcome.kept)
        last = names(failover)[3]
        assert (beside / f"{last}.partial").read_bytes() == (dead / "pg_wal" / last).read_bytes()


def test_another_instances_timeline_is_not_pushed_to(
    archive: WalArchive, failover: Failover, dead: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(dead, other)
    push(archive.cluster.repository, str(other / "pg_wal" / names(failover)[0]), CLOCK, data_directory=other)
    outcome = saved(archive, dead)
    assert not outcome.pushed and len(outcome.kept) == 3


def test_no_pg_control_loses_nothing(archive: WalArchive, dead: Path) -> None:
    (dead / "global/pg_control").unlink()
    outcome = saved(archive, dead)
    assert len(outcome.kept) == 3 and "pg_control" in outcome.why


def test_no_place_for_the_copies_stops_everything(archive: WalArchive, dead: Path) -> None:
    dead.with_name("beside").mkdir()
    with pytest.raises(Fault) as caught:
        saved(archive, dead)
    assert caught.value.code == "io" and caught.value.hint


def test_nothing_left(archive: WalArchive, instance: Path) -> None:
    assert saved(archive, instance) == Salvaged()
    assert left_behind("/nowhere") == ()
