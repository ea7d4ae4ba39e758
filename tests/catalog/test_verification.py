"""verify finds every damage, names the backups that it costs, and never calls damage sound."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console
from tests.clusters import Cluster
from tests.format.samples import BACKUP, INFO, INNER
from tests.keeping import Kept, keep
from tests.repo.dumped import add_dump
from tests.repo.made import Made, make

from pgkeep.catalog.verification import VerifyReport, verify
from pgkeep.cli.render.verification import report_json, report_text
from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.events import Event, Phase, Warned, silent
from pgkeep.format.manifest import Outer
from pgkeep.repo.backups import backup_ids, read_manifest, write_backup
from pgkeep.repo.deleting import damaged_packs
from pgkeep.repo.dumps import open_dump_manifest
from pgkeep.repo.repository import Cluster as RepositoryCluster
from pgkeep.repo.repository import cluster_named, open_repository
from pgkeep.store.open import create_store, open_store
from pgkeep.store.wrap.read_only import ReadOnlyStore


@pytest.fixture
def sound(
    cluster: Callable[..., Cluster], server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> Iterator[tuple[Kept, Path]]:
    """A repository with two backups and WAL between and after them, and a place for damaged copies."""
    kept = keep(cluster, server_tmp, pgkeep_program, wal_segsize=1)
    kept.cluster.sql("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 2000) g")
    kept.backup()
    kept.cluster.sql("CREATE TABLE u AS SELECT g, md5(g::text) FROM generate_series(1, 30000) g")
    kept.backup()
    kept.archive_all()
    kept.archive_all()
    kept.cluster.stop()
    yield kept, server_tmp / "copy"


def _verify(root: Path) -> VerifyReport:
    cluster = cluster_named(open_repository(open_store(str(root))), "main")
    with ThreadPoolExecutor(2) as pool:
        return verify(cluster, pool, SystemClock(), silent)


def _copy(kept: Kept, copy: Path) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(kept.repository, copy)
    return copy


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    path.chmod(0o600)
    path.write_bytes(data)


def test_every_kind_of_damage_is_found(sound: tuple[Kept, Path]) -> None:
    kept, copy = sound
    first, second = kept.backups()
    report = _verify(kept.repository)
    assert report.is_sound and report.bytes > 0
    assert report.packs == len(kept.packs())
    _flipped_bytes(kept, copy)
    _missing_objects(kept, copy, first, second)


def _flipped_bytes(kept: Kept, copy: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    root = _copy(kept, copy)
    for pattern in ("*/packs/*", "*/backups/*", "*/wal/*/*/*/*"):
        objects = [path for path in sorted(root.glob(pattern)) if not path.name.startswith(".")]
        users = {path.name: _users(root, path.name) for path in objects if "/packs/" in str(path)}
        for path in chance.sample(objects, min(4, len(objects))):
            whole = path.read_bytes()
            _flip(path, chance)
            report = _verify(root)
            assert not report.is_sound, path
            if "/packs/" in str(path):
                damaged = {verdict.backup for verdict in report.backups if not verdict.is_sound}
                assert damaged == users[path.name], path
            path.write_bytes(whole)
    assert _verify(root).is_sound


def _users(root: Path, pack: str) -> set[str]:
    """The backups that name a pack."""
    cluster = cluster_named(open_repository(open_store(str(root))), "main")
    tables = {backup: read_manifest(cluster, backup).outer.packs for backup in backup_ids(cluster)}
    return {backup for backup, packs in tables.items() if pack in [str(each.id) for each in packs]}


def _missing_objects(kept: Kept, copy: Path, first: str, second: str) -> None:
    needed = kept.catalogue().incarnations[0]
    for number, pattern in enumerate(("*/packs/*", "*/wal/*/*/*/*")):
        root = _copy(kept, copy)
        victims = [path for path in sorted(root.glob(pattern)) if len(path.name) in (24, 32)]
        victim = victims[len(victims) // 2]
        users = _users(root, victim.name) if number == 0 else set()
        victim.unlink()
        report = _verify(root)
        assert not report.is_sound, victims
        if number == 0:
            damaged = [verdict for verdict in report.backups if not verdict.is_sound]
            assert {verdict.backup for verdict in damaged} == users <= {first, second}
            assert "missing" in damaged[0].problems[0]
        else:
            assert any("missing" in problem for problem in report.wal_problems), report
    assert needed.wal_segment_size == 1 << 20


def test_wal_of_a_backup_that_is_missing_makes_it_unsound(sound: tuple[Kept, Path]) -> None:
    kept, copy = sound
    root = _copy(kept, copy)
    first = next(path for path in sorted(root.glob("*/wal/*/*/*/*")) if path.name.endswith(".backup"))
    (first.parent / first.name[:24]).unlink()
    report = _verify(root)
    verdict = report.backups[0]
    assert not verdict.is_sound
    assert first.name[:24] in verdict.problems[0]
    assert report.backups[1].is_sound


def test_a_cut_off_pack_and_an_emptied_manifest(sound: tuple[Kept, Path]) -> None:
    kept, copy = sound
    root = _copy(kept, copy)
    pack = max(root.glob("*/packs/*"), key=lambda path: path.stat().st_size)
    pack.write_bytes(pack.read_bytes()[:-100])
    manifest = sorted(root.glob("*/backups/*"))[-1]
    manifest.write_bytes(b"")
    report = _verify(root)
    assert [verdict.is_sound for verdict in report.backups].count(False) >= 1
    assert not report.backups[-1].is_sound


def test_exit_status_14_names_the_backup(sound: tuple[Kept, Path]) -> None:
    kept, _ = sound
    _flip(max(kept.packs(), key=lambda path: path.stat().st_size), random.Random(1))
    done = kept.run("verify", check=False)
    assert done.returncode == 14
    assert any(backup in done.stdout for backup in kept.backups())
    assert kept.result("verify", status=14)["sound"] is False


def test_an_unreachable_store_is_no_verdict(sound: tuple[Kept, Path]) -> None:
    kept, copy = sound
    root = _copy(kept, copy)
    cluster = cluster_named(open_repository(open_store(str(root))), "main")
    shutil.rmtree(root)
    with ThreadPoolExecutor(2) as pool, pytest.raises(Fault) as caught:
        verify(cluster, pool, SystemClock(), silent)
    assert caught.value.code == "store-unreachable"


def _made(root: Path) -> Made:
    return make(create_store(str(root)))


def _problems(root: Path) -> str:
    return " ".join(problem for verdict in _verify(root).backups for problem in verdict.problems)


def test_a_history_without_which_its_backup_cannot_be_recovered(tmp_path: Path) -> None:
    """PostgreSQL refuses a recovery target timeline whose history file it cannot get."""
    made = _made(tmp_path / "repository")
    assert "history" not in _problems(tmp_path / "repository")
    key = made.archive.key("00000002.history")
    path = tmp_path / "repository" / key
    _flip(path, random.Random(3))
    assert "the history of its timeline is damaged: 00000002.history" in _problems(tmp_path / "repository")
    made.store.delete(key)
    assert "the history of its timeline is missing from the archive: 00000002.history" in _problems(
        tmp_path / "repository"
    )


def test_a_backup_that_comes_meanwhile_is_left_to_the_next_run(tmp_path: Path) -> None:
    made = _made(tmp_path / "repository")
    other = "20990508T112900Z-00000000"

    def announce(event: Event) -> None:
        if isinstance(event, Phase) and event.name == "objects":
            info = replace(INFO, backup=other)
            write_backup(made.cluster, Outer(info, [], []), INNER, [], SystemClock())

    with ThreadPoolExecutor(1) as pool:
        report = verify(made.cluster, pool, SystemClock(), announce)
    assert [verdict.backup for verdict in report.backups] == [str(BACKUP)]
    assert other in [verdict.backup for verdict in _verify(tmp_path / "repository").backups]


def test_a_worker_that_dies_is_no_verdict(tmp_path: Path) -> None:
    made = _made(tmp_path / "repository")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        wait([pool.submit(os._exit, 9)])
        with pytest.raises(Fault) as caught:
            verify(made.cluster, pool, SystemClock(), silent)
    assert caught.value.code == "worker-died"


def test_damage_is_remembered_until_it_is_mended(tmp_path: Path) -> None:
    made = make(create_store(str(tmp_path / "repository")))
    key = f"{made.cluster.uuid}/packs/{made.pack.id}"
    sound = made.store.get(key)
    flipped = bytearray(sound)
    flipped[600] ^= 1

    def check(cluster: RepositoryCluster) -> tuple[bool, list[str]]:
        said: list[Event] = []
        with ThreadPoolExecutor(1) as pool:
            report = verify(cluster, pool, SystemClock(), said.append)
        return report.is_sound, [event.code for event in said if isinstance(event, Warned)]

    assert damaged_packs(made.cluster) == frozenset()
    made.store.delete(key)
    made.store.put(key, [bytes(flipped)])
    read_only = cluster_named(open_repository(ReadOnlyStore(made.store)), "main")
    assert check(read_only) == (False, ["lease-unwritten", "mark-unwritten"])
    assert check(made.cluster) == (False, [])
    assert damaged_packs(made.cluster) == {made.pack.id}
    made.store.delete(key)
    made.store.put(key, [sound])
    check(made.cluster)
    assert damaged_packs(made.cluster) == frozenset()


def test_dumps_are_verified_too(tmp_path: Path) -> None:
    """A damaged pack costs the dump that names it, a damaged manifest the dump itself; the others are sound."""
    root = tmp_path / "repository"
    made = make(create_store(str(root)))
    dumps = [add_dump(made.cluster, clock=SystemClock()) for _ in range(3)]
    report = _verify(root)
    assert [verdict.backup for verdict in report.dumps] == sorted(dumps)
    assert all(verdict.is_sound for verdict in report.dumps)
    (pack,) = (pack.id for pack in open_dump_manifest(made.cluster, dumps[0]).packs())
    _flip(next(root.glob(f"*/packs/{pack}")), random.Random(1))
    _flip(next(root.glob(f"*/dumps/{dumps[1]}")), random.Random(2))
    report = _verify(root)
    verdicts = {verdict.backup: verdict for verdict in report.dumps}
    assert not report.is_sound
    assert [verdicts[dump].is_sound for dump in dumps] == [False, False, True]
    assert str(pack) in verdicts[dumps[0]].problems[0]
    assert dumps[1] in verdicts[dumps[1]].problems[0]
    assert damaged_packs(made.cluster) == {pack}
    text, said = io.StringIO(), report_json(report)
    Console(file=text, width=200).print(report_text(report))
    assert "2 of 3 dumps affected" in text.getvalue()
    assert [one["sound"] for one in said["dumps"]] == [verdict.is_sound for verdict in report.dumps]
