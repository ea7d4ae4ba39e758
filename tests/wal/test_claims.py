"""Claims: the first takes it, generations follow, everybody agrees on the newest."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.walfiles import CLOCK, Failover, copy_instance

from pgkeep.repo.walarchive import WalArchive
from pgkeep.wal.claims import adopt, foreign_claim, read_instance


def test_generations(failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path) -> None:
    clone = copy_instance(failover.primary, tmp_path / "clone")
    repository = archive.cluster.repository
    first = adopt(repository, instance, CLOCK)
    assert (first.timeline, first.generation, first.taken_from) == (1, 0, None)
    assert adopt(repository, instance, CLOCK) == first
    second = adopt(repository, clone, CLOCK)
    assert second.generation == 1
    assert second.taken_from is not None
    assert second.taken_from.data_directory == str(instance)
    assert adopt(repository, instance, CLOCK).generation == 2
    assert foreign_claim(archive, 1, read_instance(instance), CLOCK) is None
    assert foreign_claim(archive, 1, read_instance(clone), CLOCK) is not None


def test_a_timeline_that_pg_control_does_not_show_yet(archive: WalArchive, instance: Path) -> None:
    assert adopt(archive.cluster.repository, instance, CLOCK, timeline=7).timeline == 7
    assert archive.claim(7)[0] == 0
    assert archive.claim(1) == (-1, None)


def test_racing_adoptions_end_with_one_holder(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path
) -> None:
    clones = [instance, *(copy_instance(failover.primary, tmp_path / f"clone{n}") for n in range(3))]
    threads = [threading.Thread(target=adopt, args=(archive.cluster.repository, clone, CLOCK)) for clone in clones]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert archive.claim(1)[0] == len(clones) - 1
    holders = [clone for clone in clones if foreign_claim(archive, 1, read_instance(clone), CLOCK) is None]
    assert len(holders) == 1
