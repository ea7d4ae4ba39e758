"""The WAL archive as a stock: what is listed, what is written down before it goes, and what is left."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.format import names
from pgkeep.format.deletion import PrunedRange
from pgkeep.format.windex import WalIndexInfo
from pgkeep.repo.repository import create_repository, register_cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.walstock import Pruned, _merged, delete_wal, drop_indexes, read_pruned, record_pruned, wal_stock
from pgkeep.repo.windex import key_of, list_indexes, put_index
from pgkeep.store.local import LocalStore
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment
from tests.format.test_windex import entry
from tests.repo.made import CLAIM, INCARNATION
from tests.walfiles import CLOCK

SIZE = INCARNATION.wal_segment_size
SYSTEM = INCARNATION.system_id


@pytest.fixture
def archive(tmp_path: Path) -> WalArchive:
    repository = create_repository(LocalStore.create(tmp_path / "repository"), CLOCK, "test")
    return WalArchive(register_cluster(repository, INCARNATION, CLOCK), SYSTEM, SIZE)


def put(archive: WalArchive, name: str, flush: Lsn | None = None) -> None:
    archive.put(name, b"wal", 0, CLOCK, flush=flush)


def row(first: int, last: int, timeline: int = 1, system: int = SYSTEM) -> PrunedRange:
    return PrunedRange(system_id=system, timeline=timeline, first=first, last=last)


def test_segments_partials_and_labels_are_stock_and_nothing_else(archive: WalArchive) -> None:
    segment = Segment(1, 5).name(SIZE)
    put(archive, segment)
    put(archive, f"{segment}.00000028.backup")
    put(archive, f"{Segment(1, 6).name(SIZE)}.partial", Lsn(6 * SIZE + 3))
    put(archive, Segment(2, 4).name(SIZE))
    put(archive, "00000002.history")
    archive.put_claim(1, 0, CLAIM, CLOCK)
    archive.cluster.repository.store.put(names.wal_timeline(archive.cluster.uuid, SYSTEM, 1) + "notes.txt", [b"x"])
    found = wal_stock(archive)
    assert [(one.timeline, one.number, one.is_segment) for one in found] == [
        (1, 5, True), (1, 5, False), (1, 6, False), (2, 4, True),
    ]  # fmt: skip
    assert all(one.bytes > 500 and one.archived for one in found)


def test_what_is_deleted_goes_in_order_and_histories_and_claims_stay(archive: WalArchive) -> None:
    for number in range(3, 9):
        put(archive, Segment(1, number).name(SIZE))
    put(archive, f"{Segment(1, 4).name(SIZE)}.00000028.backup")
    put(archive, "00000002.history")
    archive.put_claim(1, 0, CLAIM, CLOCK)
    ticked: list[str] = []
    delete_wal(archive, [one for one in wal_stock(archive) if one.number < 6], lambda one: ticked.append(one.name))
    assert ticked == sorted(ticked) and len(ticked) == 4
    assert [one.number for one in wal_stock(archive)] == [6, 7, 8]
    assert archive.listing().timelines_with_history == (2,)
    assert archive.claim(1)[1] == CLAIM


def test_an_index_goes_when_nothing_of_what_it_describes_is_left(archive: WalArchive) -> None:
    """Runs of three: 0 to 2 is gone, of 3 to 5 the last is left; one that cannot be read goes with its first."""
    for first in (0, 3):
        entries = [entry(number, None, number * SIZE) for number in range(first, first + 3)]
        put_index(archive, Segment(1, first), WalIndexInfo(tool="pgkeep", tail=[b"t" * 32]), entries, CLOCK)
    for torn in (6, 9):
        archive.cluster.repository.store.put(key_of(archive, Segment(1, torn)), [b"torn"])
    left = {5, 9, 10}
    assert drop_indexes(archive, 1, lambda number: number in left) == 2
    assert [first for first, _ in list_indexes(archive, 1)] == [3, 9]


def test_records_are_merged_and_replaced(archive: WalArchive) -> None:
    cluster = archive.cluster
    assert read_pruned(cluster).ranges == {}
    record_pruned(cluster, [row(3, 5), row(9, 9, 2)], CLOCK)
    record_pruned(cluster, [row(6, 8), row(20, 30), row(1, 1, 1, 7)], CLOCK)
    pruned = read_pruned(cluster)
    assert pruned.ranges == {(7, 1): [(1, 1)], (SYSTEM, 1): [(3, 8), (20, 30)], (SYSTEM, 2): [(9, 9)]}
    assert len(list(cluster.repository.store.list(names.pruned_records(cluster.uuid)))) == 1
    assert list(pruned.lost(SYSTEM, 1, 1, 40)) == [(1, 2), (9, 19), (31, 40)]
    assert list(pruned.lost(SYSTEM, 1, 4, 7)) == []
    assert list(pruned.lost(SYSTEM, 3, 4, 7)) == [(4, 7)]


def test_a_record_that_cannot_be_read_says_nothing_and_stays(archive: WalArchive) -> None:
    cluster, store = archive.cluster, archive.cluster.repository.store
    record_pruned(cluster, [row(3, 5)], CLOCK)
    (stat,) = store.list(names.pruned_records(cluster.uuid))
    data = bytearray(store.get(stat.key))
    data[-1] ^= 1
    store.delete(stat.key)
    store.put(stat.key, [bytes(data)])
    assert read_pruned(cluster).ranges == {}
    record_pruned(cluster, [row(7, 8)], CLOCK)
    assert read_pruned(cluster).ranges == {(SYSTEM, 1): [(7, 8)]}
    assert len(list(store.list(names.pruned_records(cluster.uuid)))) == 2


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8))), st.integers(0, 70), st.integers(0, 20))
def test_ranges_are_sets_of_numbers(ranges: list[tuple[int, int]], first: int, length: int) -> None:
    rows = [row(begin, begin + more) for begin, more in ranges]
    taken = {number for one in rows for number in range(one.first, one.last + 1)}
    pruned = Pruned(_merged(rows))
    lost = {n for begin, end in pruned.lost(SYSTEM, 1, first, first + length) for n in range(begin, end + 1)}
    assert lost == set(range(first, first + length + 1)) - taken
    assert {n for n in range(90) if pruned.holds(SYSTEM, 1, n)} == taken
    found = pruned.ranges.get((SYSTEM, 1), [])
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
