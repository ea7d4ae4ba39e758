"""Which dumps stay: the plan by hand-made facts, and prunes of a repository in memory."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from pgkeep.cli.render.pruning import nothing_goes, plan_json, plan_text, question, result_json, result_text
from pgkeep.errors import Fault
from pgkeep.events import silent
from pgkeep.format import names
from pgkeep.repo.deleting import mark_retired
from pgkeep.repo.dumps import dump_ids, open_dump
from pgkeep.repo.lease import Lease
from pgkeep.retention.carry import PruneResult, carry_out
from pgkeep.retention.dumps import DumpPlan, DumpPolicies, plan_dumps
from pgkeep.retention.facts import DumpFact, Hold, Leased, RetentionFacts, UnreadableDump
from pgkeep.retention.gather import gather
from pgkeep.retention.holds import held, hold_backup, release
from pgkeep.retention.plan import RetentionPlan, plan_retention
from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.ids import DumpId
from tests.repo.dumped import MEMBERS, add_dump
from tests.retention.lived import Lived

DAY = timedelta(days=1)
BEGAN = datetime(2026, 3, 1, 1, 30, tzinfo=UTC)


def fact(day: float, name: str = "shop", *, leaving: bool = False) -> DumpFact:
    started = BEGAN + day * DAY
    return DumpFact(DumpId.make(started, name.encode().ljust(4)), name, started, leaving=leaving)


def facts(*dumps: DumpFact) -> RetentionFacts:
    return RetentionFacts((), (), dumps=dumps)


def planned(found: RetentionFacts, default: KeepPolicy | None, **sets: KeepPolicy) -> DumpPlan:
    return plan_dumps(found, DumpPolicies(default, sets), UTC)


def words(plan: DumpPlan) -> dict[str, list[str]]:
    return {one.dump: [reason.text for reason in one.reasons] for one in plan.stays}


def test_each_set_by_its_own_policy() -> None:
    shop = [fact(day) for day in (0, 1, 1.5, 2)]
    crm = [fact(day, "crm") for day in (0, 1, 2)]
    plan = planned(facts(*shop, *crm), KeepPolicy(last=1), shop=KeepPolicy(daily=2, monthly=1))
    assert words(plan) == {
        shop[2].dump: ["daily 2026-03-02"],
        shop[3].dump: ["newest of shop", "daily 2026-03-03", "monthly 2026-03"],
        crm[2].dump: ["newest of crm", "last 1 of 1"],
    }
    assert [one.dump for one in plan.goes] == sorted(one.dump for one in (*shop[:2], *crm[:2]))
    assert "2 daily, 1 monthly" in plan.goes[-1].why or "last 1" in plan.goes[-1].why


def test_days_without_a_dump_do_not_count() -> None:
    dumps = [fact(day) for day in (0, 40, 80)]
    assert len(planned(facts(*dumps), KeepPolicy(daily=3)).stays) == 3
    assert len(planned(facts(*dumps), KeepPolicy(daily=2)).stays) == 2


def test_the_newest_always_stays() -> None:
    """Also when a clock that was wrong gave it an odd time, and the policy has no place for it."""
    only = fact(-9000)
    assert words(planned(facts(only), KeepPolicy(yearly=0, last=0, weekly=1))) == {
        only.dump: ["newest of shop", "weekly 2001-W28"]
    }


def test_without_a_policy_everything_stays() -> None:
    dumps = [fact(day) for day in range(5)]
    plan = planned(facts(*dumps), None)
    assert not plan.goes
    assert all(one.reasons[0].kind == "no-policy" for one in plan.stays)
    only_shop = planned(facts(*dumps, fact(0, "crm"), fact(1, "crm")), None, shop=KeepPolicy(last=2))
    assert len(only_shop.goes) == 3
    assert {one.fact.name for one in only_shop.goes} == {"shop"}


def test_what_is_held_in_use_or_unreadable_stays() -> None:
    dumps = [fact(day) for day in range(4)]
    torn = UnreadableDump(DumpId("20260101T000000Z-00000000"), "torn")
    found = replace(
        facts(*dumps),
        holds=(Hold(dumps[0].dump, "the audit"), Hold(DumpId("20200101T000000Z-00000000"), "gone")),
        leases=(Leased((dumps[1].dump,), "a load on db2", BEGAN),),
        unreadable_dumps=(torn,),
    )
    plan = planned(found, KeepPolicy(last=1))
    assert words(plan) == {
        torn.dump: ["its manifest cannot be read: it is never deleted, and never counts"],
        dumps[0].dump: ["hold: the audit"],
        dumps[1].dump: ["needed by a load on db2"],
        dumps[3].dump: ["newest of shop", "last 1 of 1"],
    }
    assert [one.dump for one in plan.goes] == [dumps[2].dump]
    whole = plan_retention(found, KeepPolicy(last=1), UTC, BEGAN)
    assert any("cannot be read and stays: torn" in text for text in whole.warnings)
    assert sum("there is no such backup" in text for text in whole.warnings) == 1


def test_one_that_leaves_counts_for_nothing() -> None:
    dumps = [fact(0), fact(1, leaving=True)]
    plan = planned(facts(*dumps), KeepPolicy(last=1))
    assert list(words(plan)) == [dumps[0].dump]
    assert [(one.dump, one.note) for one in plan.goes] == [(dumps[1].dump, "an earlier prune has retired it")]


def test_damaged_ones_take_no_place_and_stay_as_long_as_their_neighbours() -> None:
    dumps = [fact(day) for day in (0, 1, 2, 3, 3.1)]
    found = replace(facts(*dumps), damaged=frozenset({dumps[2].dump, dumps[4].dump}))
    plan = planned(found, KeepPolicy(daily=2))
    assert words(plan) == {
        dumps[1].dump: ["daily 2026-03-02"],
        dumps[2].dump: ["daily 2026-03-03"],
        dumps[3].dump: ["newest of shop without damage", "daily 2026-03-04"],
        dumps[4].dump: ["newest of shop"],
    }
    plan = planned(found, KeepPolicy(last=2))
    assert words(plan) == {
        dumps[1].dump: ["last 2 of 2"],
        dumps[2].dump: ["damaged, and as new as the last 2"],
        dumps[3].dump: ["newest of shop without damage", "last 1 of 2"],
        dumps[4].dump: ["newest of shop", "damaged, and as new as the last 2"],
    }
    for policy in (KeepPolicy(daily=2), KeepPolicy(last=2), KeepPolicy(weekly=1)):
        before = set(words(planned(facts(*dumps), policy)))
        every = replace(facts(*dumps), damaged=frozenset(dump.dump for dump in dumps))
        assert before <= set(words(planned(every, policy))), "one pack may be in all, and may be put back"


# --- with a repository


@pytest.fixture
def made() -> Lived:
    """A backup, and a dump of two sets on each of four days."""
    world = Lived()
    world.backup()
    for _ in range(4):
        for name in ("shop", "crm"):
            add_dump(world.cluster, name, clock=world.clock, started=world.clock.now().isoformat())
        world.clock.at += DAY
    return world


def plan_of(made: Lived, policy: KeepPolicy | None, **sets: KeepPolicy) -> RetentionPlan:
    now = made.clock.now()
    return plan_retention(gather(made.cluster, now), policy, UTC, now, None, sets)


def prune(made: Lived, policy: KeepPolicy | None, **sets: KeepPolicy) -> PruneResult:
    return carry_out(
        made.cluster, plan_of(made, policy, **sets), lambda: plan_of(made, policy, **sets), made.clock, silent
    )


def members(made: Lived, dump: DumpId) -> dict[bytes, bytes]:
    reader = open_dump(made.cluster, dump)
    return {one.name: b"".join(reader.read(one)) for one in reader.members()}


def test_a_prune_deletes_dumps_and_then_their_packs(made: Lived) -> None:
    before, packs = dump_ids(made.cluster), made.packs()
    plan = plan_of(made, KeepPolicy(last=1), shop=KeepPolicy(last=2))
    result = prune(made, KeepPolicy(last=1), shop=KeepPolicy(last=2))
    assert result.dumps == tuple(one.dump for one in plan.dumps.goes)
    left = dump_ids(made.cluster)
    assert len(left) == 3
    assert set(left) == set(before) - set(result.dumps)
    assert result.sweep is not None
    assert plan.freed.packs == result.sweep.condemned.packs == 5
    assert plan.freed.pack_bytes == result.sweep.condemned.bytes
    assert not result.backups
    made.clock.at += timedelta(hours=2)
    prune(made, KeepPolicy(last=1), shop=KeepPolicy(last=2))
    assert len(packs - made.packs()) == 5
    assert all(members(made, dump) == MEMBERS for dump in left)
    assert made.damage() == []
    assert not list(made.store.list(names.retired_marks(made.cluster.uuid)))


def test_dumps_go_by_their_own_line_where_backups_have_none(made: Lived) -> None:
    plan = plan_of(made, None, crm=KeepPolicy(last=1))
    assert plan.lets_go
    assert plan.policy is None
    assert len(prune(made, None, crm=KeepPolicy(last=1)).dumps) == 3
    assert not plan_of(made, None).lets_go
    assert not plan_of(made, None).dumps.goes


def test_a_dump_is_held_and_released(made: Lived) -> None:
    first = dump_ids(made.cluster)[0]
    hold_backup(made.cluster, first, "the audit", "me", made.clock)
    (one,) = held(made.cluster, made.clock.now())
    assert isinstance(one.backup, DumpId)
    assert one.exists
    assert first not in prune(made, KeepPolicy(last=1)).dumps
    release(made.cluster, first, "me", made.clock)
    assert prune(made, KeepPolicy(last=1)).dumps == (first,)
    with pytest.raises(Fault, match="there is no backup and no dump"):
        hold_backup(made.cluster, first, "too late", "me", made.clock)


def test_a_dump_that_is_loaded_stays_until_that_has_ended(made: Lived) -> None:
    first, *_ = dump_ids(made.cluster)
    plan = plan_of(made, KeepPolicy(last=1))
    with Lease.take(made.cluster, made.clock, purpose="load", bases=[first]):
        assert "needed by a load" in plan_of(made, KeepPolicy(last=1)).dumps.reasons(first)[0].text
        # One that began after the plan was made: the mark is there, the manifest stays.
        result = carry_out(made.cluster, plan, lambda: plan, made.clock, silent)
        assert result.in_use == (first,)
        assert members(made, first) == MEMBERS
    result = prune(made, KeepPolicy(last=1))
    assert first not in dump_ids(made.cluster)
    made.clock.at += timedelta(hours=2)
    prune(made, KeepPolicy(last=1))
    assert not list(made.store.list(names.retired_marks(made.cluster.uuid)))


def test_a_manifest_that_cannot_be_read_forbids_to_delete_packs(made: Lived) -> None:
    newest = dump_ids(made.cluster)[-1]
    key = names.dump(made.cluster.uuid, newest)
    data = bytearray(made.store.get(key))
    data[700] ^= 1
    made.store.delete(key)
    made.store.put(key, [bytes(data)])
    plan = plan_of(made, KeepPolicy(last=1))
    assert plan.freed.packs is None
    assert plan.dumps.reasons(newest)[0].kind == "unreadable"
    result = prune(made, KeepPolicy(last=1))
    assert result.sweep is None
    assert newest in dump_ids(made.cluster)


def test_what_is_said(made: Lived) -> None:
    mark_retired(made.cluster, dump_ids(made.cluster)[0], "an earlier one", made.clock)
    plan = plan_of(made, KeepPolicy(last=3))
    out = io.StringIO()
    console = Console(file=out, width=120, _environ={})
    console.print(plan_text(plan, "main", "UTC", 120))
    shown = out.getvalue()
    assert "No rule keeps 2 dumps:" in shown
    assert "an earlier prune has retired it" in shown
    assert "newest of crm, last 1 of 3" in shown
    assert question(plan) == "delete 2 dumps?"
    assert not nothing_goes(plan)
    said = plan_json(plan, "UTC")["dumps"]
    assert [one["dump"] for one in said["goes"]] == [one.dump for one in plan.dumps.goes]
    assert {one["name"] for one in said["stays"]} == {"shop", "crm"}
    result = prune(made, KeepPolicy(last=3))
    console.print(result_text(result, made.clock.now()))
    assert "0 backups, 2 dumps, 0 WAL segments" in out.getvalue()
    assert result_json(result)["deleted_dumps"] == list(result.dumps)
