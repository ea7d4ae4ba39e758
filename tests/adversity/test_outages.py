"""A repository that is away while the server goes on writing: nothing is lost, nothing wrongly noted as archived."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.wal import Segment
from tests.clusters import Cluster
from tests.keeping import Kept
from tests.walfiles import SIZE

MakeKept = Callable[..., Kept]


def test_a_store_that_is_away_under_load(make_kept: MakeKept) -> None:
    _be_away(make_kept, seconds=8)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_store_that_is_away_for_ten_minutes_under_load(make_kept: MakeKept) -> None:
    _be_away(make_kept, seconds=600)


def _be_away(make_kept: MakeKept, *, seconds: float) -> None:
    kept = make_kept(wal_segsize=1, wal_keep_size="'16GB'", max_wal_size="'1GB'")
    server = kept.cluster
    server.sql("CREATE TABLE t (n int, filler text)")
    _write(server)
    kept.archive_all()
    away = kept.repository.with_name("away")
    kept.repository.rename(away)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _write(server)
        _check_noted(server, away)
        time.sleep(0.2)
    assert not kept.repository.exists(), "an absent repository was made anew"
    assert len(_names(server, ".ready")) > 5
    kept.wait(lambda: "WAL files wait to be archived" in server.log.read_text(), "the server's log has no alarm")
    away.rename(kept.repository)
    server.switch_wal()
    kept.wait(lambda: not _names(server, ".ready"), "the archive does not catch up", seconds=120 + seconds)
    kept.archive_all()
    _check_noted(server, kept.repository)
    _check_unbroken(server, _archive(kept))


def _write(server: Cluster) -> None:
    server.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 2000) n")
    server.switch_wal()


def _names(server: Cluster, mark: str) -> set[str]:
    status = server.datadir / "pg_wal" / "archive_status"
    return {name.removesuffix(mark) for name in os.listdir(status) if name.endswith(mark)}


def _check_noted(server: Cluster, repository: Path) -> None:
    """What PostgreSQL has noted as archived is there."""
    noted = {name for name in _names(server, ".done") if len(name) == 24}
    assert noted <= {path.name for path in repository.rglob("*") if len(path.name) == 24}


def _archive(kept: Kept) -> WalArchive:
    known = kept.catalogue()
    return WalArchive(known, known.incarnations[0].system_id, SIZE)


def _check_unbroken(server: Cluster, archive: WalArchive) -> None:
    """Every segment from the first to the last, each with the bytes that the server still has."""
    numbers = archive.listing().segments[1]
    assert numbers == [*range(numbers[0], numbers[-1] + 1)]
    compared = 0
    for number in numbers:
        file = server.datadir / "pg_wal" / Segment(1, number).name(SIZE)
        if file.exists():
            compared += 1
            assert archive.segment(Segment(1, number)) == file.read_bytes()
    assert compared > 10


def test_a_data_directory_rolled_back_by_copying(make_kept: MakeKept) -> None:
    """The markers of what was archived before the roll-back come back with the copy, and are not believed."""
    kept = make_kept(wal_segsize=1, wal_keep_size="'1GB'")
    server = kept.cluster
    server.sql("CREATE TABLE t (n int, filler text)")
    _write(server)
    kept.archive_all()
    server.stop()
    saved = server.datadir.with_name("saved")
    shutil.copytree(server.datadir, saved, symlinks=True)
    server.start()
    for _ in range(4):
        _write(server)
    kept.archive_all()
    server.stop()
    before = {path.name: path.read_bytes() for path in kept.wal()}
    for source in [path for path in saved.rglob("*") if path.is_file()]:
        (server.datadir / source.relative_to(saved)).write_bytes(source.read_bytes())  # keeps the inodes
    server.start()
    server.sql("INSERT INTO t SELECT n, 'another life' FROM generate_series(1, 20000) n")
    server.switch_wal()
    kept.wait(lambda: "archived already with other content" in server.log.read_text(), "the roll-back goes unnoticed")
    assert {path.name: path.read_bytes() for path in kept.wal()} == before
