"""Incremental backups that something ends, and bases that something damaged: what was there stays right."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pgkeep.backup import detection
from pgkeep.backup.detection import Mode
from pgkeep.errors import Fault
from pgkeep.pg.account import give
from pgkeep.repo.backups import read_manifest
from pgkeep.repo.check import RepositoryAddress
from pgkeep.values.ids import BackupId
from tests import requirements
from tests.aim import Aim
from tests.backup.ground import Ground, Taken
from tests.keeping import Kept
from tests.store.faulty import Crash, Effect, FaultyStore, Strike

MakeGround = Callable[..., Ground]
MakeKept = Callable[..., Kept]
SAMPLED = 12


# ---- the store


@pytest.mark.timeout(600)
def test_a_store_that_fails_at_sampled_calls(own: MakeGround, seed: int) -> None:
    _fail_at(own(), seed, lambda calls: sorted(random.Random(seed).sample(range(1, calls + 1), SAMPLED)))


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_a_store_that_fails_at_every_call(own: MakeGround, seed: int) -> None:
    _fail_at(own(), seed, lambda calls: list(range(1, calls + 1)) * 3)


def _fail_at(made: Ground, seed: int, chosen: Callable[[int], list[int]]) -> None:
    """At each of these calls of an incremental backup the store fails, before or behind the call, or all ends there."""
    chance = random.Random(seed)
    path = made.table("t")
    base = made.backup("full")
    made.sql("UPDATE t SET n = n + 1 WHERE id % 50 = 0", "VACUUM FULL pg_class", "CHECKPOINT")
    whole = FaultyStore(made.catalogue.repository.store)
    made.forget(_through(made, whole, "auto"))
    for number in chosen(len(whole.calls)):
        kind = chance.choice([Effect.BEFORE, Effect.AFTER, Effect.TORN, None])
        inner = made.catalogue.repository.store
        store = FaultyStore.dying_at(number, inner) if kind is None else FaultyStore(inner, Strike(kind, nth=number))
        before = made.kept.backups()
        try:
            _through(made, store, chance.choice(["auto", "lsn", "rescan"]))
        except (Fault, Crash) as error:
            assert not isinstance(error, Fault) or error.code == "store-unreachable", f"call {number}: {error}"
        left = made.kept.backups()
        assert left[: len(before)] == before and len(left) <= len(before) + 1, f"call {number}, {kind}"
        if left != before or chance.random() < 0.25:
            report = made.verified()
            assert report.is_sound, f"--seed {seed}, call {number}, {kind}: {report}"
        for backup in left[len(before) :]:
            made.forget(Taken(read_manifest(made.catalogue, BackupId(backup)).info, {}))
    last = made.backup("auto")
    assert last.info.base == base.info.backup and not made.wrong(last) and path.exists()
    assert made.verified().is_sound


def _through(made: Ground, store: FaultyStore, mode: Mode) -> Taken:
    """A backup whose every store call, the workers' too, goes through `store`."""
    catalogue = made.catalogue
    cluster = replace(catalogue, repository=replace(catalogue.repository, store=store))
    with pytest.MonkeyPatch.context() as patch:
        address = SimpleNamespace(open=lambda: cluster.repository)
        patch.setattr(RepositoryAddress, "of", classmethod(lambda _cls, _repository: address))
        return made.backup(mode, cluster=cluster)


# ---- the process


def test_kills_leave_whole_incremental_backups(kept: MakeKept, seed: int) -> None:
    _kill(kept(), times=3, seed=seed)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_many_kills_leave_whole_incremental_backups(kept: MakeKept, seed: int) -> None:
    _kill(kept(), times=100, seed=seed)


def _kill(kept: Kept, *, times: int, seed: int) -> None:
    chance = random.Random(seed)
    rows = "SELECT g AS id, 0 AS n, md5(g::text) AS pad FROM generate_series(1, 100000) g"
    kept.cluster.sql(f"CREATE TABLE t AS {rows}")
    began = time.monotonic()
    kept.backup()
    aim = Aim(chance, time.monotonic() - began)
    for _ in range(times):
        kept.cluster.sql(f"UPDATE t SET n = n + 1 WHERE id % {chance.choice([3, 100, 5000])} = 0")
        before = kept.backups()
        process = kept.start("backup", "--mode", chance.choice(["auto", "lsn", "rescan"]))
        time.sleep(aim.moment())
        kept.kill(process)
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        aim.came(late=process.returncode == 0)
        left = kept.backups()
        assert left[: len(before)] == before and len(left) <= len(before) + 1
    aim.check()
    ground = Ground(kept, kept.cluster)
    kept.cluster.sql("CHECKPOINT")
    taken = ground.backup()
    assert taken.info.method == "lsn" and not ground.wrong(taken)
    assert kept.result("verify")["sound"] is True


# ---- the disk


@pytest.fixture
def small_packs(kept: MakeKept) -> Iterator[Kept]:
    """A cluster whose packs lie on 8 MB."""
    requirements.need_root()
    made = kept()
    packs = next(path for path in made.repository.glob("*-*") if path.is_dir()) / "packs"
    packs.mkdir(exist_ok=True)
    give(made.account, [packs])
    os.system(f"mount -t tmpfs -o size=8m,mode=777 tmpfs {packs}")
    yield made
    os.system(f"umount {packs}")


def test_a_full_disk_ends_an_incremental_backup_and_keeps_its_base(small_packs: Kept) -> None:
    made = small_packs
    base = made.backup()
    packs = made.packs()
    made.cluster.sql("CREATE TABLE noise AS SELECT gen_random_uuid() AS a, gen_random_uuid() AS b"
                     " FROM generate_series(1, 250000)")  # fmt: skip
    answer = made.json("backup", status=1)
    assert answer["error"]["code"] == "store-full"
    assert made.backups() == [base] and made.packs() == packs
    made.cluster.sql("DROP TABLE noise")
    made.backup()
    assert made.result("verify")["sound"] is True


# ---- the base


def test_a_damaged_pack_is_stored_again_once_a_verify_has_found_it(own: MakeGround) -> None:
    made = own()
    made.table("t")
    made.backup("full")
    _flip(_largest(made), 5000)
    unknowing = made.backup("lsn")
    assert unknowing.info.pages_changed < 100
    report = made.verified()
    assert [bool(verdict.problems) for verdict in report.backups] == [True, True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "damaged_packs", lambda _cluster: frozenset())
        broken = made.backup("lsn")
    assert [bool(verdict.problems) for verdict in made.verified().backups] == [True, True, True]
    made.forget(broken)
    mended = made.backup("lsn")
    assert mended.info.pages_changed > 1000 and not made.wrong(mended)
    assert [bool(verdict.problems) for verdict in made.verified().backups] == [True, True, False]


def test_flipped_bytes_in_the_base(own: MakeGround, seed: int) -> None:
    """Wherever: what is taken over is right, as the byte's return shows; tables that are damaged are not believed."""
    chance = random.Random(seed)
    made = own()
    made.table("t")
    made.backup("full")
    made.sql("UPDATE t SET n = 1 WHERE id % 100 = 0", "CHECKPOINT")
    pack = _largest(made)
    size = pack.stat().st_size
    places = [chance.randrange(size) for _ in range(2)] + [size - chance.randrange(1, 20000) for _ in range(4)]
    for at in (10, size - 10, *places):
        _flip(pack, at)
        modes: list[Mode] = ["rescan", "lsn", "summaries"]
        taken = made.backup(chance.choice(modes))
        _flip(pack, at)
        assert not made.wrong(taken), f"--seed {seed}: byte {at} of {size}, {taken.info.method}"
        made.forget(taken)


def _largest(made: Ground) -> Path:
    return max(made.kept.packs(), key=lambda path: path.stat().st_size)


def _flip(path: Path, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte: Any = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))
