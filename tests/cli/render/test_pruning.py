"""What `prune` shows before it deletes, and says afterwards."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rich.console import Console, RenderableType
from tests.retention.made import DAY, HOUR, World, at

from pgkeep.cli.render.pruning import plan_json, plan_text, question, result_json, result_text
from pgkeep.cli.render.times import show_time
from pgkeep.format.deletion import LeaseInfo
from pgkeep.repo.lease import SeenLease
from pgkeep.repo.repack import Repacked
from pgkeep.repo.sweep import SweepResult, Swept
from pgkeep.retention.carry import PruneResult
from pgkeep.retention.facts import PackGroup, Unreadable
from pgkeep.retention.plan import RetentionPlan, plan_retention
from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.ids import BackupId, ObjectId

EPOCH = at("2026-05-01 00:00")
LOST = BackupId("20260502T020000Z-00000001")


POLICY = KeepPolicy(last=1, weekly=2, wal=DAY)


def plan(policy: KeepPolicy | None = POLICY, *, torn: bool = False) -> RetentionPlan:
    """Ten daily backups; the one of day 8 is the window's base, day 2 a Sunday's."""
    made = World(EPOCH)
    names = [made.backup(EPOCH + day * DAY + 2 * HOUR, bad=3 if day == 5 else 0) for day in range(10)]
    made.wal(0, 10 * 24 - 1)
    if torn:
        made.backups = [one for one in made.backups if one.backup != LOST]
        made.unreadable = [Unreadable(LOST, "its directory is torn")]
    facts = replace(made.facts(), packs=None if torn else (PackGroup(frozenset(names[:1]), 2, 5 << 20),))
    return plan_retention(facts, policy, UTC, EPOCH + 10 * DAY)


def text(what: RenderableType, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, _environ={}).print(what)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_plan_on_80_columns() -> None:
    shown = text(plan_text(plan(), "main", "Europe/Berlin", 80))
    assert shown == [
        "cluster main keeps 2 weekly, last 1, WAL of 1 day; days are those of",
        "Europe/Berlin",
        "",
        "STAYS                      WHY",
        "20260503T020000Z-00000002  weekly 2026-W18",
        "20260509T020000Z-00000008  base of the WAL window of 1 day",
        "20260510T020000Z-00000009  last 1 of 1, weekly 2026-W19, newest of its lineage",
        "",
        "No rule keeps 7 backups:",
        "GOES                       NOTE",
        "20260501T020000Z-00000000",
        "20260502T020000Z-00000001",
        "20260504T020000Z-00000003",
        "20260505T020000Z-00000004",
        "20260506T020000Z-00000005  holds 3 damaged pages",
        "20260507T020000Z-00000006",
        "20260508T020000Z-00000007",
        "",
        f"WAL window     from {show_time(EPOCH + 9 * DAY)}: its WAL begins with",
        "               0000000100000000000000C2",
        "WAL that goes  000000010000000000000000 to 000000010000000000000031: 50",
        "               segments, 48.8 kB",
        "WAL that goes  000000010000000000000034 to 0000000100000000000000C1: 142",
        "               segments, 139 kB",
        "frees          2 packs of 5 MB, and WAL of 188 kB",
    ]
    assert question(plan()) == "delete 7 backups and 192 WAL segments?"


def test_a_wide_terminal_shows_when_each_began() -> None:
    shown = text(plan_text(plan(), "main", "UTC", 120), 120)
    assert any(show_time(EPOCH + 2 * DAY + 2 * HOUR) in line and "weekly 2026-W18" in line for line in shown)


def test_what_cannot_be_read_is_said_twice() -> None:
    shown = "\n".join(text(plan_text(plan(torn=True), "main", "UTC", 200), 200))
    assert f"{LOST}" in shown and "it is never deleted, and never counts" in shown
    assert "its directory is torn" in shown
    assert "no packs, while a manifest cannot be read" in shown


def test_without_a_policy_the_line_is_shown() -> None:
    shown = text(plan_text(plan(None), "main", "UTC", 200), 200)
    assert shown[0] == "nothing of main is ever deleted: the configuration has no line keep for it"
    assert shown[1].startswith("hint: keep = {")


def test_a_plan_as_json() -> None:
    found = json.loads(json.dumps(plan_json(plan(), "UTC")))
    assert found["policy"] == {"daily": 0, "weekly": 2, "monthly": 0, "yearly": 0, "last": 1, "wal": 86400.0}
    assert found["stays"][1]["reasons"] == [{"kind": "window", "text": "base of the WAL window of 1 day"}]
    assert len(found["goes"]) == 7
    assert found["frees"] == {"packs": 2, "pack_bytes": 5 << 20, "segments": 192, "wal_bytes": 192_000}
    assert found["windows"][0]["backup"] == "20260509T020000Z-00000008"
    assert plan_json(plan(None), "UTC")["policy"] is None


def swept(**changes: object) -> SweepResult:
    nothing = Swept()
    made = SweepResult(nothing, nothing, nothing, 0.0, nothing, nothing, ())
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_result_says_when_the_rest_goes() -> None:
    now = datetime(2026, 5, 11, 2, 0, tzinfo=UTC)
    repacked = Repacked(4, 1, 6 << 20)
    waiting = swept(waiting=Swept(71, 1 << 30), ready_in=4200.0, deleted=Swept(3, 5 << 20), repacked=repacked)
    result = PruneResult((LOST,), (), (), 192, 192_000, waiting)
    shown = text(result_text(result, now), 120)
    later = show_time(datetime(2026, 5, 11, 3, 11, tzinfo=UTC))[:16]
    assert shown == [
        "deleted    1 backup, 192 WAL segments of 188 kB",
        "deleted    3 packs of 5 MB that nothing needs, condemned before",
        "repacked   6 MB that are still needed of 4 packs under half full; these packs are deleted later",
        f"condemned  71 packs of 1 GB: deleted by a prune after {later} (in 1 h 10 min)",
    ]
    found = result_json(result)
    assert (found["sweep"]["waiting"], found["ready_in"]) == ({"packs": 71, "bytes": 1 << 30}, 4200.0)
    assert found["sweep"]["repacked"] == {"packs": 4, "bytes": 6 << 20}


def test_a_result_says_what_was_not_done() -> None:
    now = datetime(2026, 5, 11, 2, 0, tzinfo=UTC)
    result = PruneResult((), (LOST,), (LOST,), 0, 0, None)
    shown = text(result_text(result, now), 120)
    assert shown == [
        "deleted         no backup and no WAL",
        f"still read      {LOST}: a later prune deletes it",
        f"held meanwhile  {LOST}: it stays",
        "packs           none was deleted: a manifest cannot be read",
    ]
    assert result_json(result)["sweep"] is None


def test_a_result_says_whose_leases_spare_what_is_left() -> None:
    """A killed job's lease looks like that of one which runs: people know which of them it is."""
    now = datetime(2026, 5, 11, 2, 0, tzinfo=UTC)
    taken = now - timedelta(minutes=20)
    info = LeaseInfo(holder="db1 4711", purpose="prune", bases=[], seconds=3600)
    leases = (
        SeenLease(ObjectId(bytes(16)), taken, taken, info, ()),
        SeenLease(ObjectId(bytes(16)), taken, taken, None, ()),
    )
    result = PruneResult((), (), (), 0, 0, swept(owned=Swept(2, 100), owners=leases))
    free = show_time(datetime(2026, 5, 11, 2, 51, tzinfo=UTC))[:16]
    assert text(result_text(result, now), 120)[1:] == [
        "left alone  2 packs of 100 B that a job which runs may need, or one that was killed lately:",
        f"            prune on db1, process 4711, free after {free} if it is dead",
        f"            a job whose lease cannot be read, free after {free} if it is dead",
    ]
    assert result_json(result)["sweep"]["owners"] == [
        {"purpose": "prune", "holder": "db1 4711", "until": "2026-05-11T02:50:00Z"},
        {"purpose": None, "holder": None, "until": "2026-05-11T02:50:00Z"},
    ]
