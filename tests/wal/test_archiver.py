"""archive_command and restore_command as PostgreSQL runs them: the real program, real servers, clones and outages."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.clusters import Cluster
from tests.conftest import MakeCluster, Serve
from tests.keeping import Kept, keep
from tests.servers import pg_versions
from tests.walfiles import SIZE, fill

from pgkeep.catalog.timelines import histories
from pgkeep.errors import Fault
from pgkeep.pg.account import give, give_tree
from pgkeep.pg.runtime import shell_command
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.recovery import FILE_NAME, RecoveryLineage
from pgkeep.values.wal import History


@pytest.fixture
def kept(cluster: MakeCluster, server_tmp: Path, pgkeep_program: tuple[str, ...]) -> Kept:
    """A cluster with 1 MiB segments whose archive_command is the real one."""
    made = keep(cluster, server_tmp, pgkeep_program, wal_segsize=1, wal_keep_size="'0'")
    made.cluster.sql("CREATE TABLE t (n int, filler text)")
    return made


def archive_of_kept(kept: Kept) -> WalArchive:
    known = kept.catalogue()
    (incarnation,) = known.incarnations
    return WalArchive(known, incarnation.system_id, incarnation.wal_segment_size)


def copy_datadir(kept: Kept, name: str) -> Path:
    """What somebody does who wants a second server quickly: stop, cp -a, start."""
    kept.cluster.stop()
    target = kept.home / name
    subprocess.run(["cp", "-a", kept.cluster.datadir, target], check=True)
    return target


def restore_setup(kept: Kept, datadir: Path, history: History | None, **conf: str) -> None:
    """Let the server on `datadir` recover from the archive, by `history`'s plan or without one."""
    command = shell_command([*kept.program, "--config", str(kept.config), "wal", "get"])
    if history is not None:
        archive = archive_of_kept(kept)
        lineage = RecoveryLineage(archive.cluster.repository.id, archive.cluster.uuid, archive.system_id, SIZE, history)
        (datadir / FILE_NAME).write_text(lineage.encode())
        command += f" --lineage {FILE_NAME}"
        conf["recovery_target_timeline"] = f"'{history.timeline}'"
    settings = {"archive_mode": "'off'", "restore_command": "'" + f"{command} %f %p".replace("'", "''") + "'"} | conf
    with (datadir / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())
    (datadir / "recovery.signal").touch()
    give_tree(kept.account, datadir)


def wait_failed(server: Cluster, text: str, seconds: float = 180) -> None:
    """Until the server's log says `text`."""
    deadline = time.monotonic() + seconds
    while text not in server.log.read_text(errors="replace"):
        assert time.monotonic() < deadline, f"{text!r} is not in: {server.log.read_text(errors='replace')[-3000:]}"
        time.sleep(0.1)


def rows(server: Cluster) -> int:
    return int(server.value("SELECT count(*) FROM t"))


def outlast_recovery(server: Cluster, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while server.value("SELECT pg_is_in_recovery()"):
        assert time.monotonic() < deadline, server.log.read_text()[-2000:]
        time.sleep(0.1)


@pg_versions("oldest", "newest")
def test_a_clone_is_refused_and_a_promoted_one_gets_its_own_timeline(kept: Kept, serve: Serve) -> None:
    fill(kept.cluster, 2)
    kept.archive_all()
    datadir = copy_datadir(kept, "clone")
    kept.cluster.start()
    clone = serve(datadir)
    held = {path.name for path in kept.wal()}
    fill(clone, 1)
    wait_failed(clone, "archives since")
    assert "pgkeep init --adopt" in clone.log.read_text()
    kept.wait(lambda: bool(clone.value("SELECT failed_count > 0 FROM pg_stat_archiver")), "no failure was counted")
    fill(kept.cluster, 2)
    kept.archive_all()
    archive = archive_of_kept(kept)
    assert {path.name for path in kept.wal()} > held
    for name in (path.name for path in kept.wal()):
        assert name[:8] == "00000001"
    # The clone is brought up as a server of its own: from a new timeline on, it may archive.
    clone.stop()
    (datadir / "recovery.signal").touch()
    with (datadir / "postgresql.conf").open("a") as file:
        file.write("restore_command = 'false'\nrecovery_target_timeline = 'current'\n")
    give(kept.account, [datadir / "recovery.signal"])
    clone.start()
    outlast_recovery(clone)
    wait_failed(clone, "archives since")
    assert (datadir / "pg_wal" / "00000002.history").exists()
    kept.wait(lambda: 2 in histories(archive), "the new timeline's history was not archived")


def test_recovery_from_the_archive_to_its_end(kept: Kept, serve: Serve) -> None:
    datadir = copy_datadir(kept, "restored")
    kept.cluster.start()
    fill(kept.cluster, 3)
    kept.archive_all()
    expected = rows(kept.cluster)
    restore_setup(kept, datadir, History(1))
    restored = serve(datadir)
    outlast_recovery(restored)
    assert rows(restored) == expected == 1500


def test_a_promotion_is_archived_and_both_branches_can_be_recovered(kept: Kept, serve: Serve) -> None:
    fill(kept.cluster, 1)
    kept.archive_all()
    datadir = copy_datadir(kept, "promoted")
    for name in ("along_one", "along_two"):
        subprocess.run(["cp", "-a", datadir, kept.home / name], check=True)
    command = shell_command([*kept.program, "--config", str(kept.config), "wal", "get"]).replace("'", "''")
    with (datadir / "postgresql.conf").open("a") as file:
        file.write(f"restore_command = '{command} %f %p'\n")
    (datadir / "standby.signal").touch()
    promoted = serve(datadir)
    promoted.sql("SELECT pg_promote()")
    fill(promoted, 2)
    promoted.sql("CHECKPOINT")
    last = promoted.switch_wal()
    kept.wait(lambda: any(path.name >= last for path in kept.wal()), f"{last} was not archived")
    archive = archive_of_kept(kept)
    history = histories(archive)[2]
    (partial,) = archive.listing().partials
    assert partial.segment.number == history.switches[0].lsn // SIZE
    before, after = 500, rows(promoted)
    promoted.stop()
    for name, along, expected in (("along_one", History(1), before), ("along_two", history, after)):
        restore_setup(kept, kept.home / name, along)
        restored = serve(kept.home / name)
        outlast_recovery(restored)
        assert rows(restored) == expected
        restored.stop()


def test_an_outage_and_a_gap_stop_recovery_instead_of_ending_it(kept: Kept, serve: Serve) -> None:
    datadir = copy_datadir(kept, "restored")
    kept.cluster.start()
    fill(kept.cluster, 4)
    kept.archive_all()
    kept.cluster.stop()
    restore_setup(kept, datadir, History(1))
    away = kept.home / "away"
    kept.repository.rename(away)
    restored = serve(datadir, start=False)
    with pytest.raises(Fault):
        restored.start()
    assert "selected new timeline" not in restored.log.read_text()
    away.rename(kept.repository)
    gone = kept.wal()[-3]
    saved = kept.home / "saved"
    shutil.move(gone, saved)
    with suppress(Fault):
        restored.start()
    wait_failed(restored, f'could not restore file "{gone.name}" from archive')
    restored.stop()
    log = restored.log.read_text()
    assert f"{gone.name} is missing from the archive, but later WAL is there" in log
    assert "selected new timeline" not in log
    shutil.move(saved, gone)
    restored.start()
    outlast_recovery(restored)
    assert rows(restored) == 2000


def test_an_outage_of_the_repository_keeps_wal_on_the_server(kept: Kept) -> None:
    fill(kept.cluster, 1)
    kept.archive_all()
    away = kept.home / "away"
    kept.repository.rename(away)
    fill(kept.cluster, 2)
    kept.wait(
        lambda: bool(kept.cluster.value("SELECT failed_count > 0 FROM pg_stat_archiver")), "no failure was counted"
    )
    assert [*(kept.cluster.datadir / "pg_wal" / "archive_status").glob("*.ready")]
    away.rename(kept.repository)
    kept.archive_all()
    assert not archive_gaps(kept)


def archive_gaps(kept: Kept) -> list[int]:
    numbers = archive_of_kept(kept).listing().segments[1]
    return [number for number in range(numbers[0], numbers[-1]) if number not in numbers]
