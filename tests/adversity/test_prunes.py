"""Prunes beside real backups and restores: what a killed backup left goes, and what runs loses nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.clock import SystemClock
from pgkeep.events import silent
from pgkeep.pg.account import give
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS
from pgkeep.repo.repack import Budget
from pgkeep.repo.sweep import sweep
from tests.clusters import Cluster
from tests.keeping import Kept, keep

WAIT = LEASE_SECONDS + SKEW_SECONDS


@pytest.fixture
def kept(cluster: Callable[..., Cluster], server_tmp: Path, pgkeep_program: tuple[str, ...]) -> Kept:
    made = keep(cluster, server_tmp, pgkeep_program, wal_segsize=1)
    made.config.write_text(f'{made.config.read_text().rstrip()}\nkeep = {{ last = 1, wal = "0s" }}\n')
    give(made.account, [made.config])
    made.cluster.sql("CREATE TABLE orders AS SELECT g, md5(g::text) AS note FROM generate_series(1, 100000) g")
    return made


def age(kept: Kept, seconds: float) -> None:
    """As if everything in the repository had been written so much earlier."""
    for path in kept.repository.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


def swept(kept: Kept) -> dict[str, int]:
    """Packs by what a prune did with them."""
    done = kept.result("prune", "--yes")["result"]["sweep"]
    return {name: done[name]["packs"] for name in ("condemned", "deleted", "waiting", "owned")}


def killed_backup(kept: Kept) -> set[str]:
    """The names of the packs that it left."""
    before = set(map(str, kept.packs()))
    for _ in range(20):
        _kill_one(kept, before)
        assert len(kept.backups()) == 1, "the backup was over before it could be killed"
        if left := set(map(str, kept.packs())) - before:
            return left
    pytest.fail("no backup was killed between its first pack and its manifest")


def _kill_one(kept: Kept, before: set[str]) -> None:
    process = kept.start("backup", "--mode", "full")
    try:
        kept.wait(lambda: set(map(str, kept.packs())) > before or process.poll() is not None, "no pack came")
    finally:
        kept.kill(process)
        process.communicate()


def test_what_a_killed_backup_left_is_deleted(kept: Kept) -> None:
    kept.backup()
    mine = set(map(str, kept.packs()))
    left = killed_backup(kept)
    assert list(kept.repository.glob("*/leases/*/*")), "it held a lease"
    done = swept(kept)
    assert (done["condemned"], done["deleted"], done["owned"]) == (0, 0, len(left))
    age(kept, WAIT + 60)
    done = swept(kept)
    assert (done["condemned"], done["deleted"]) == (len(left), 0)
    age(kept, WAIT + 60)
    assert swept(kept)["deleted"] == len(left)
    assert set(map(str, kept.packs())) == mine
    assert kept.result("verify")["sound"] is True
    age(kept, 2 * 86400)
    swept(kept)
    assert not list(kept.repository.glob("*/leases/*/*"))


def test_prunes_beside_a_backup_that_inherits_what_they_delete(kept: Kept) -> None:
    """The base leaves while the next backup builds on it; whoever comes later, each result is whole."""
    kept.backup()
    for turn in range(2):
        kept.cluster.sql("UPDATE orders SET note = %s WHERE g %% 10 = 0", (f"turn {turn}",))
        backup = kept.start("backup")
        while backup.poll() is None:
            kept.run("prune", "--yes")
            time.sleep(0.05)
        assert backup.returncode == 0, backup.communicate()
        assert kept.result("verify")["sound"] is True
    kept.run("prune", "--yes")
    age(kept, WAIT + 60)
    kept.run("prune", "--yes")
    age(kept, WAIT + 60)
    kept.run("prune", "--yes")
    assert len(kept.backups()) == 1
    assert kept.result("verify")["sound"] is True


def test_a_restore_keeps_its_backup(kept: Kept, tmp_path: Path) -> None:
    first = kept.backup()
    kept.cluster.sql("UPDATE orders SET note = 'changed'")
    target = kept.home / "restored"
    restore = kept.start("restore", str(target), "--backup", first, "--yes")
    kept.wait(lambda: bool(list(kept.repository.glob("*/leases/*/*"))) or restore.poll() is not None, "no lease")
    kept.backup()
    kept.run("prune", "--yes")
    out, err = restore.communicate(timeout=120)
    assert restore.returncode == 0, out + err
    assert (target / "global/pg_control").exists()


def test_a_restore_and_a_delta_read_what_has_moved(kept: Kept, serve: Callable[..., Cluster]) -> None:
    """Most of the first backup's packs is dead; what is left moves, and the packs go."""
    kept.cluster.sql("CREATE TABLE filler AS SELECT g, md5(g::text) AS note FROM generate_series(1, 700000) g")
    kept.backup()
    kept.cluster.sql("DROP TABLE filler")
    kept.cluster.sql("UPDATE orders SET note = 'changed'")
    kept.backup()
    kept.run("prune", "--yes")
    old = set(map(str, kept.packs()))
    for _ in range(3):
        age(kept, WAIT + 60)
        sweep(kept.catalogue(), SystemClock(), silent, budget=Budget(worth=1))
        give(kept.account, list(kept.repository.rglob("*")))
    assert list(kept.repository.glob("*/moves/*")), "nothing was repacked"
    assert not old <= set(map(str, kept.packs()))
    assert kept.result("verify")["sound"] is True
    target = kept.home / "restored"
    kept.run("restore", str(target), "--yes")
    with (target / "base/1/1259").open("r+b") as file:
        file.write(b"damage" * 1000)
    kept.run("restore", str(target), "--delta", "--yes")
    kept.backup()
    assert kept.result("verify")["sound"] is True
    server = serve(target)
    assert server.value("SELECT count(*) FROM orders WHERE note = 'changed'") == 100000
