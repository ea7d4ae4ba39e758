"""prune and hold by the real program on a real server: what is gone is gone, and all that is left restores."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.pg.account import give
from tests.clusters import Cluster
from tests.keeping import Kept, keep

SEGMENT = 1
"""MB."""


@pytest.fixture
def kept(cluster: Callable[..., Cluster], server_tmp: Path, pgkeep_program: tuple[str, ...]) -> Kept:
    return keep(cluster, server_tmp, pgkeep_program, wal_segsize=SEGMENT)


def policy(kept: Kept, line: str) -> None:
    text = kept.config.read_text()
    head = text.split("keep = ")[0].rstrip("\n")
    kept.config.write_text(f"{head}\n{line}\n")
    give(kept.account, [kept.config])


def fill(kept: Kept, rows: int = 3000) -> None:
    """Some WAL, archived."""
    kept.cluster.sql("INSERT INTO orders SELECT g, md5(g::text) FROM generate_series(1, %s) g", (rows,))
    kept.archive_all()


def count(server: Cluster) -> int:
    return int(server.value("SELECT count(*) FROM orders"))


def test_backups_prunes_and_restores(kept: Kept, serve: Callable[..., Cluster]) -> None:
    """Five backups; two stay by the policy, one by a hold, one as the window's base; and each restores."""
    kept.cluster.sql("CREATE TABLE orders (id int, note text)")
    backups, rows = [], []
    for _ in range(5):
        fill(kept)
        backups.append(kept.backup())
        rows.append(count(kept.cluster))
    fill(kept)
    assert kept.result("prune")["plan"]["policy"] is None
    assert kept.backups() == backups

    stops = {one["backup"]: one["info"]["stop_lsn"] for one in kept.result("list")["backups"]}
    policy(kept, 'keep = { last = 2, wal = "0s" }')
    kept.run("hold", backups[1], "--note", "before the migration")
    before, packs = [path.name for path in kept.wal()], kept.packs()
    dry = kept.result("prune", "--dry-run")
    assert dry["result"] is None
    assert [one["backup"] for one in dry["plan"]["goes"]] == [backups[0], backups[2]]
    assert [path.name for path in kept.wal()] == before

    refused = kept.json("prune", status=2)["error"]
    assert "delete 2 backups and" in refused["message"] and "--yes" in refused["hint"]
    assert kept.backups() == backups

    done = kept.result("prune", "--yes")
    assert done["result"]["deleted"] == [backups[0], backups[2]]
    assert kept.backups() == [backups[1], backups[3], backups[4]]
    after = [path.name for path in kept.wal()]
    assert len(before) - len(after) == done["result"]["segments"] == dry["plan"]["frees"]["segments"] > 0
    assert kept.packs() == packs
    assert done["result"]["sweep"]["condemned"]["packs"] == dry["plan"]["frees"]["packs"]

    assert kept.result("verify")["sound"]
    listed = {one["backup"]: one for one in kept.result("list")["backups"]}
    assert [one["restorable"] for one in listed.values()] == [True, True, True]
    assert listed[backups[1]]["window"]["pruned"]
    assert listed[backups[1]]["kept"] == [{"kind": "hold", "text": "hold: before the migration"}]
    (incarnation,) = kept.result("timeline")["incarnations"]
    assert [window["ends"] for window in incarnation["windows"]] == ["pruned", "pruned", "archive-end"]
    assert incarnation["timelines"][0]["gaps"] == []

    again = kept.result("prune", "--yes")
    assert (again["plan"]["goes"], again["plan"]["wal"], again["result"]["deleted"]) == ([], [], [])

    hole = kept.json("restore", str(kept.home / "hole"), "--lsn", stops[backups[2]], "--dry-run", status=13)["error"]
    assert "pruned" in hole["message"], hole
    assert hole["context"]["nearest_before"] and hole["context"]["nearest_after"], hole

    # The held one to its own end, the window from its beginning to the end of the archive.
    for number, (backup, options, expected) in enumerate([
        (backups[1], ["--immediate"], rows[1]),
        (backups[3], ["--immediate"], rows[3]),
        (backups[4], ["--immediate"], rows[4]),
        (backups[4], ["--latest"], count(kept.cluster)),
    ]):  # fmt: skip
        target = kept.home / f"restored{number}"
        kept.run("restore", str(target), "--backup", backup, *options)
        restored = serve(target)
        kept.wait(lambda server=restored: not server.value("SELECT pg_is_in_recovery()"), "recovery")  # type: ignore[misc]
        assert count(restored) == expected, (backup, options)
        restored.stop()

    kept.run("hold", "--release", backups[1])
    assert kept.result("prune", "--yes")["result"]["deleted"] == [backups[1]]
    assert kept.result("verify")["sound"]


def test_a_held_span(kept: Kept) -> None:
    kept.cluster.sql("CREATE TABLE orders (id int, note text)")
    fill(kept)
    backups = [kept.backup()]
    time.sleep(1.1)
    begin = kept.cluster.value("SELECT date_trunc('second', clock_timestamp())::timestamp || '+00'")
    fill(kept)
    end = kept.cluster.value("SELECT date_trunc('second', clock_timestamp())::timestamp + interval '1s' || '+00'")
    time.sleep(1.1)
    for _ in range(3):
        fill(kept)
        backups.append(kept.backup())
    policy(kept, 'keep = { last = 1, wal = "0s" }')
    refused = kept.json("hold", "--from", "2020-01-01 00:00Z", "--to", end, "--note", "long ago", status=13)["error"]
    assert "no backup ended before" in refused["message"]
    (pin,) = kept.result("hold", "--from", begin, "--to", end, "--note", "the incident")["held"]
    assert pin["backup"] == backups[0]
    (held,) = kept.result("hold")["held"]
    assert (held["windows"][0]["note"], held["exists"]) == ("the incident", True)
    kept.run("prune", "--yes")
    assert kept.backups() == [backups[0], backups[3]]
    target = kept.home / "restored"
    kept.run("restore", str(target), "--time", end, "--dry-run")
    rows = {one["backup"]: one["window"] for one in kept.result("list")["backups"]}
    assert rows[backups[0]]["pruned"] and rows[backups[0]]["to_lsn"] > rows[backups[0]]["from_lsn"]
    kept.json("hold", "--release", backups[1], status=1)


def test_mistakes(kept: Kept) -> None:
    def said(*args: str) -> str:
        return str(kept.json(*args, status=2)["error"]["message"])

    assert "needs its reason" in said("hold", "20260507T112900Z-3f9a01c7")
    assert "two ends" in said("hold", "--from", "2026-05-07 12:00Z", "--note", "x")
    assert "not after" in said(
        "hold", "--from", "2026-05-07 12:00Z", "--to", "2026-05-07 12:00Z", "--note", "x"
    )  # fmt: skip
    assert "has no zone" in said("hold", "--from", "2026-05-07 12:00", "--to", "2026-05-07 13:00", "--note", "x")
    assert "not a backup id" in said("hold", "nonsense", "--note", "x")
    unknown = kept.json("hold", "20260507T112900Z-3f9a01c7", "--note", "x", status=1)["error"]
    assert unknown["code"] == "backup-unknown"
    policy(kept, "keep = { daily = 1 }")
    assert json.dumps(kept.result("prune", "--yes")["plan"]["stays"]) == "[]"


def test_killed_while_it_prunes(kept: Kept, seed: int) -> None:
    """SIGKILL at some moment: what is left is sound, and the next prune goes on to the same end."""
    chance = random.Random(seed)
    kept.cluster.sql("CREATE TABLE orders (id int, note text)")
    for _ in range(5):
        fill(kept)
        last = kept.backup()
    policy(kept, 'keep = { last = 1, wal = "0s" }')
    began = time.monotonic()
    kept.run("prune", "--dry-run")
    planning = time.monotonic() - began
    for _ in range(3):
        process = kept.start("prune", "--yes")
        time.sleep(chance.uniform(planning * 0.8, planning * 1.6))
        kept.kill(process)
        assert kept.result("verify")["sound"]
    done = kept.result("prune", "--yes")
    assert kept.backups() == [last]
    assert kept.result("prune", "--dry-run")["plan"]["wal"] == []
    # A prune that was killed leaves its lease, which keeps the packs until it has run out.
    leases = list(kept.repository.glob("*/leases/*/*"))
    assert done["result"]["sweep"]["waiting"]["packs"] > 0 or leases
    assert kept.result("verify")["sound"]
    (row,) = kept.result("list")["backups"]
    assert row["restorable"] and row["window"]["gap"] is None
