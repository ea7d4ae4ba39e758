"""Restore to randomly drawn moments of every target kind, and compare with what the oracle recorded there."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgkeep.pg.programs import run_program
from tests.clusters import Cluster
from tests.keeping import Kept, keep
from tests.oracle import witness
from tests.oracle.witness import Record, Workload
from tests.servers import pg_versions

KINDS = ("time", "lsn", "xid", "name", "between")


@dataclass
class History:
    """A cluster under care, its backups, and the oracle's records of its past."""

    kept: Kept
    records: list[Record]
    first_end: datetime
    """When the first backup was complete: earlier moments cannot be reached."""
    end: datetime
    journal: dict[int, datetime]


def _live(kept: Kept, seed: int, records: int, backups: int) -> History:
    """Let the cluster live through a workload with backups in between."""
    witness.prepare(kept.cluster)
    chance = random.Random(seed)
    made: list[Record] = []
    first_end = None
    with Workload(kept.cluster, seed).running():
        for turn in range(backups):
            kept.backup()
            first_end = first_end or _now(kept)
            for _ in range(records // backups):
                time.sleep(chance.uniform(0.1, 0.5))
                made.append(witness.record(kept.cluster, len(made)))
            if turn % 2:
                kept.cluster.sql("CHECKPOINT")
    assert first_end is not None
    end, rows = _now(kept), witness.journal(kept.cluster)
    kept.archive_all()
    return History(kept, made, first_end, end, rows)


def _now(kept: Kept) -> datetime:
    moment: datetime = kept.cluster.value("SELECT clock_timestamp()")
    return moment.astimezone(UTC)


def _restored(history: History, directory: Path, *target: str, serve: Callable[..., Cluster]) -> Cluster:
    """Restore, let it recover and promote under the server's own power, and check it physically."""
    history.kept.run("restore", str(directory), *target)
    server: Cluster = serve(directory)
    history.kept.wait(lambda: not server.value("SELECT pg_is_in_recovery()"), f"{target} was not reached")
    return server


def _check_physically(server: Cluster) -> None:
    server.sql("CREATE EXTENSION IF NOT EXISTS amcheck")
    server.run("pg_amcheck", "--all", "--heapallindexed")
    has_checksums = server.value("SHOW data_checksums") == "on"
    server.stop()
    if has_checksums:
        command = [server.programs.path("pg_checksums"), "--check", "-D", str(server.datadir)]
        checked = run_program(command, account=server.account)
        assert checked.status == 0, checked.stdout + checked.stderr


def _try(history: History, kind: str, chance: random.Random, serve: Callable[..., Cluster]) -> None:
    directory = history.kept.home / "restored"
    drawn = chance.choice(history.records)
    if kind == "between":
        span = (history.end - history.first_end).total_seconds()
        moment = history.first_end + timedelta(seconds=chance.uniform(0.05, 0.95) * span)
        server = _restored(history, directory, "--time", moment.isoformat(), serve=serve)
        _compare_journal(history, server, moment)
    else:
        target = {
            "time": ("--time", drawn.time.isoformat()),
            "lsn": ("--lsn", drawn.lsn),
            "xid": ("--xid", str(drawn.xid)),
            "name": ("--name", drawn.name),
        }[kind]
        server = _restored(history, directory, *target, serve=serve)
        assert witness.hashes(server) == drawn.hashes, (kind, drawn)
    _check_physically(server)
    shutil.rmtree(directory)


def _compare_journal(history: History, server: Cluster, moment: datetime) -> None:
    """Exactly the rows committed by then, but for commits whose timestamps and WAL order disagree around it."""
    there = set(witness.journal(server))
    expected = {key for key, committed in history.journal.items() if committed <= moment}
    for key in there ^ expected:
        apart = abs((history.journal[key] - moment).total_seconds())
        assert apart < 0.02, f"journal row {key}, {apart} s from the target, is on the wrong side"


def _campaign(history: History, seed: int, targets: int, serve: Callable[..., Cluster]) -> None:
    chance = random.Random(seed + 1)
    kinds = [KINDS[n % len(KINDS)] for n in range(targets)]
    for kind in kinds:
        _try(history, kind, chance, serve)


@pg_versions("oldest", "newest")
@pytest.mark.timeout(900)
def test_five_targets(
    cluster: Callable[..., Cluster],
    serve: Callable[..., Cluster],
    server_tmp: Path,
    pgkeep_program: tuple[str, ...],
    seed: int,
) -> None:
    kept = keep(cluster, server_tmp, pgkeep_program, track_commit_timestamp="on")
    history = _live(kept, seed, records=6, backups=2)
    _campaign(history, seed, 5, serve)


@pg_versions("oldest", "newest")
@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("checksums", [True, False])
def test_fifty_targets(
    cluster: Callable[..., Cluster],
    serve: Callable[..., Cluster],
    server_tmp: Path,
    pgkeep_program: tuple[str, ...],
    checksums: bool,
    seed: int,
) -> None:
    options = {"track_commit_timestamp": "on", "checksums": checksums}
    kept = keep(cluster, server_tmp, pgkeep_program, **options)
    history = _live(kept, seed, records=40, backups=4)
    _campaign(history, seed, 50, serve)
