"""Reading the facts: what of it is read, and what becomes of what cannot be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.app.listing import exclusive_bytes
from pgkeep.format import names
from pgkeep.format.deletion import PinInfo, PinWindow
from pgkeep.format.packtable import ids_of
from pgkeep.repo.census import Census
from pgkeep.repo.deleting import mark_damaged, mark_retired, unmark_damaged
from pgkeep.repo.lease import Lease
from pgkeep.repo.pins import put_pin
from pgkeep.repo.roots import open_any
from pgkeep.retention.gather import gather, known_backups, pack_groups
from pgkeep.values.ids import BackupId, ObjectId
from tests.repo.dumped import add_dump
from tests.retention.lived import Lived
from tests.store.faulty import FaultyStore


def lived(backups: int = 3) -> Lived:
    made = Lived()
    for number in range(backups):
        made.backup([number % 4])
        for _ in range(3):
            made.archive_segment()
    return made


def test_what_manifests_and_the_archive_say() -> None:
    made = lived()
    facts = gather(made.cluster, made.clock.now())
    assert [one.backup for one in facts.backups] == made.backups()
    first = facts.backups[0]
    assert (first.timeline, first.first_segment, first.last_segment, first.bad_pages) == (1, 3, 3, 0)
    assert first.stopped - first.started == timedelta(minutes=20)
    (archive,) = facts.archives
    assert [one.number for one in archive.objects] == made.segments()
    assert all(facts.is_consistent(one) for one in facts.backups)
    assert (facts.unreadable, facts.holds, facts.leases, facts.leaving) == ((), (), (), ())


def test_packs_by_who_needs_them() -> None:
    """The first stores four files; the second replaces one of them, the third another."""
    made = lived()
    a, b, c = made.backups()
    groups = gather(made.cluster, made.clock.now()).packs
    assert groups is not None
    counts = {group.owners: group.packs for group in groups}
    assert sum(counts.values()) == len(made.packs())
    assert counts[frozenset({a, b, c})] == 2
    assert all(group.bytes > 0 for group in groups)
    alone = exclusive_bytes(groups, made.backups())
    assert alone[c] > 0 and set(alone) == {a, b, c}


def test_whose_packs_a_verify_found_damaged() -> None:
    """The first pack is in the first backup alone or in several: all that name it are known, a dump too."""
    made = lived()
    assert gather(made.cluster, made.clock.now()).damaged == frozenset()
    backups = made.backups()
    dump = add_dump(made.cluster, clock=made.clock)
    named = {one: {pack.id for pack in open_any(made.cluster, one).packs()} for one in (*backups, dump)}
    for pack in set().union(*named.values()):
        mark_damaged(made.cluster, pack, "its hash differs", made.clock)
        expected = {one for one, packs in named.items() if pack in packs}
        assert gather(made.cluster, made.clock.now(), with_packs=False).damaged == expected
        unmark_damaged(made.cluster, pack)
    key = names.backup(made.cluster.uuid, backups[0])
    data = made.store.get(key)
    mark_damaged(made.cluster, next(iter(named[backups[0]])), "its hash differs", made.clock)
    made.store.delete(key)
    made.store.put(key, [data[:600]])
    assert backups[0] not in gather(made.cluster, made.clock.now()).damaged


def test_without_a_manifest_nobody_knows_whose_the_packs_are() -> None:
    made = lived()
    torn = made.backups()[1]
    key = names.backup(made.cluster.uuid, torn)
    data = made.store.get(key)
    made.store.delete(key)
    made.store.put(key, [data[:600]])
    facts = gather(made.cluster, made.clock.now())
    assert [one.backup for one in facts.unreadable] == [torn]
    assert [one.backup for one in facts.backups] == [name for name in made.backups() if name != torn]
    assert facts.packs is None
    assert exclusive_bytes(facts.packs, made.backups()) == {}


def test_holds_leases_and_marks() -> None:
    made = lived()
    a, b, c = made.backups()
    window = PinWindow(begin="2026-03-01T00:00:00+00:00", end="2026-03-02T00:00:00+00:00", timeline=1, why="span")
    unreadable = PinWindow(begin="yesterday", end="2026-13-01", timeline=1, why="odd")
    pin = PinInfo(backup=str(a), why="note", until=None, by="x", released=False, windows=[window, unreadable])
    put_pin(made.cluster, pin, made.clock)
    mark_retired(made.cluster, b, "test", made.clock)
    with (
        Lease.take(made.cluster, made.clock, purpose="restore", bases=[c]),
        Lease.take(made.cluster, made.clock, purpose="backup", bases=[c]),
        Lease.take(made.cluster, made.clock, purpose="verify", bases=[a]),
    ):
        facts = gather(made.cluster, made.clock.now())
    plain, span, odd = facts.holds
    assert (plain.backup, plain.note, plain.window) == (a, "note", None)
    assert span.window is not None and span.window.begin == datetime(2026, 3, 1, tzinfo=UTC)
    # What cannot be read holds more, not less.
    assert odd.window is not None and (odd.window.begin.year, odd.window.end.year) == (1, 9999)
    assert [one.backup for one in facts.leaving] == [b]
    assert [one.backup for one in facts.backups] == [a, c]
    assert sorted((one.backups, one.reads_wal) for one in facts.leases) == [((c,), False), ((c,), True)]


def test_released_and_expired_pins_hold_nothing() -> None:
    made = lived()
    a, b, _ = made.backups()
    put_pin(made.cluster, PinInfo(backup=str(a), why="n", until=None, by="", released=False), made.clock)
    put_pin(made.cluster, PinInfo(backup=str(a), why="n", until=None, by="", released=True), made.clock)
    until = (made.clock.at + timedelta(hours=1)).isoformat()
    put_pin(made.cluster, PinInfo(backup=str(b), why="n", until=until, by="", released=False), made.clock)
    assert [hold.backup for hold in gather(made.cluster, made.clock.now()).holds] == [b]
    assert not gather(made.cluster, made.clock.now() + timedelta(hours=2)).holds


def test_nothing_is_written_and_manifests_are_not_read_twice() -> None:
    made = lived()
    known = known_backups(made.cluster)
    calls = FaultyStore(made.store)
    cluster = made.cluster.__class__(
        made.cluster.repository.__class__(calls, made.cluster.repository.id, made.cluster.repository.keys),
        made.cluster.uuid, made.cluster.incarnations,
    )  # fmt: skip
    gather(cluster, made.clock.now(), known, with_packs=False)
    assert {call.operation for call in calls.calls} <= {"list", "get", "stat", "list_parts"}
    assert not [call for call in calls.calls if "/backups/" in call.key and call.operation == "get"]


@given(st.lists(st.sets(st.integers(0, 19)), max_size=12))
def test_groups_are_the_packs_by_their_owners(uses: list[set[int]]) -> None:
    packs = [ObjectId(number.to_bytes(16, "big")) for number in range(20)]
    backups = [BackupId(f"20260507T112900Z-{number:08x}") for number in range(len(uses))]
    census = Census(
        ids_of(packs), np.arange(20, dtype=np.int64) * 100, np.zeros(20),
        {backup: np.array(sorted(used), np.int64) for backup, used in zip(backups, uses, strict=True)},
    )  # fmt: skip
    expected: dict[frozenset[BackupId], tuple[int, int]] = {}
    for number in range(20):
        owners = frozenset(backup for backup, used in zip(backups, uses, strict=True) if number in used)
        if owners:
            count, size = expected.get(owners, (0, 0))
            expected[owners] = (count + 1, size + number * 100)
    assert {group.owners: (group.packs, group.bytes) for group in pack_groups(census)} == expected
