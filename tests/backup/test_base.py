"""Which packs are avoided, what the base holds under a path, and whether the server runs on since (pure)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import cast

import msgspec
import numpy as np

from pgkeep.backup.base import FEW_PACKS, BaseFiles, in_step, lsn_refusal, scattered_packs, stretches
from pgkeep.backup.tasks import How
from pgkeep.format.limits import PACK_TARGET
from pgkeep.format.manifest import Entry, EntryType, PackRef, live_bitmap
from pgkeep.format.tail import FooterPlace
from pgkeep.pg.changes import NO_LIMIT, Changes, RelationKey
from pgkeep.pg.relfile import Fork, RelationFile
from pgkeep.pg.server import connect
from pgkeep.pg.summaries import Stretch
from pgkeep.repo.backups import Manifest
from pgkeep.values.ids import ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Switch
from tests.clusters import Cluster
from tests.format.samples import INFO

FRAMES = 800


def _pack(number: int, live: float) -> PackRef:
    place = FooterPlace(PACK_TARGET + 1000, PACK_TARGET, 912, 100, 900, bytes(32))
    bits = live_bitmap(np.arange(FRAMES) < live * FRAMES)
    return PackRef(ObjectId(number.to_bytes(16, "big")), place, FRAMES, bits)


def test_few_packs_are_never_too_many() -> None:
    assert scattered_packs([_pack(number, 0.01) for number in range(FEW_PACKS)]) == frozenset()


def test_a_fresh_backup_of_any_size_is_not_scattered() -> None:
    assert scattered_packs([_pack(number, 1) for number in range(1000)]) == frozenset()
    assert scattered_packs([_pack(number, 0.4) for number in range(1000)]) == frozenset()


def test_those_that_hold_least_are_stored_again() -> None:
    packs = [_pack(number, 1) for number in range(20)] + [_pack(number, 0.01) for number in range(20, 90)]
    avoided = scattered_packs(packs)
    assert avoided < {pack.id for pack in packs[20:]}
    left = len(packs) - len(avoided)
    assert 20 < left <= 3 * 21 / 2 + 1
    again = [pack for pack in packs if pack.id not in avoided] + [_pack(100, 1)]
    assert scattered_packs(again) == frozenset()


def test_entries_are_found_in_step() -> None:
    rows = [Entry(path=path, type=EntryType.FILE, mode=0o600, size=1) for path in (b"a", b"b", b"b/c", b"d")]
    find = in_step(rows)
    assert [found and found.path for found in map(find, (b"A", b"a", b"aa", b"b/c", b"c", b"d", b"e"))] == [
        None, b"a", None, b"b/c", None, b"d", None,
    ]  # fmt: skip


def test_wal_since_a_base_by_timelines() -> None:
    history = History(3, (Switch(1, Lsn(1000)), Switch(2, Lsn(2000))))
    assert stretches(history, Lsn(500), Lsn(2500)) == [
        Stretch(1, Lsn(500), Lsn(1000)), Stretch(2, Lsn(1000), Lsn(2000)), Stretch(3, Lsn(2000), Lsn(2500)),
    ]  # fmt: skip
    assert stretches(history, Lsn(2100), Lsn(2500)) == [Stretch(3, Lsn(2100), Lsn(2500))]
    assert stretches(history, Lsn(1200), Lsn(1900)) == [Stretch(2, Lsn(1200), Lsn(1900))]


def test_what_wal_did_to_each_segment_file_of_a_relation() -> None:
    """Summaries count blocks of the relation; files of 1 GiB (here of 100 blocks) hold a part of them each."""
    changes, key = Changes(), RelationKey(1663, 5, 16384)
    changes.add(key, 110, np.array([99, 100, 103, 199, 200], np.uint32))
    files = BaseFiles(cast(Manifest, None), How.LSN, changes, 100)

    def of(segment: int) -> tuple[int, list[int]]:
        limit, blocks = files._changed(changes, RelationFile(*key, Fork.MAIN, segment))
        return limit, blocks.tolist()

    assert [of(segment) for segment in range(4)] == [(100, [99]), (10, [0, 3, 99]), (0, [0]), (0, [])]
    assert files._changed(changes, RelationFile(1663, 5, 16385, Fork.MAIN, 0))[0] == 100
    uncut = RelationKey(1663, 5, 16386)
    changes.add(uncut, NO_LIMIT, np.array([100, 103, 199], np.uint32))
    limit, blocks = files._changed(changes, RelationFile(*uncut, Fork.MAIN, 1))
    assert (limit, blocks.tolist()) == (100, [0, 3, 99])
    changes.databases.add((1663, 5))
    assert of(3) == (0, [])


def test_a_server_that_was_started_since_whatever_the_clock_says(shared_cluster: Cluster) -> None:
    with connect(shared_cluster.conninfo) as server:
        facts = replace(server.facts(), wal_log_hints=True)
    began = facts.postmaster_started

    def refusal(started: timedelta, life: timedelta | None) -> str | None:
        known = "" if life is None else (began + life).isoformat()
        info = msgspec.structs.replace(INFO, started=(began + started).isoformat(), server_started=known)
        return lsn_refusal(info, facts, INFO.timeline)

    hour, none = timedelta(hours=1), timedelta()
    assert refusal(hour, none) is None
    assert refusal(-hour, none) is None  # the clock was set back while the server ran
    for life in (-hour, hour, timedelta(microseconds=1)):
        assert "was started since" in str(refusal(hour, life))  # set back before a restart
    assert refusal(hour, None) is None
    assert "was started since" in str(refusal(-hour, None))
