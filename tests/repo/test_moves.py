"""Repacking, and reading through moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged, Fault
from pgkeep.events import silent
from pgkeep.format import names
from pgkeep.format.frame import FrameKind
from pgkeep.format.header import ObjectType
from pgkeep.format.moves import decode_moves, encode_moves
from pgkeep.format.section import SectionType
from pgkeep.repo.backups import backup_ids, read_manifest
from pgkeep.repo.census import take_census
from pgkeep.repo.check import check_pack
from pgkeep.repo.deleting import condemned_packs, retire
from pgkeep.repo.features import MOVES
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS
from pgkeep.repo.moved import moved_index
from pgkeep.repo.packreader import MovedReader, PackReader, read_page_lsns
from pgkeep.repo.repack import Budget, Repacked
from pgkeep.repo.repository import Cluster
from pgkeep.repo.sweep import SweepResult, sweep
from pgkeep.restore.gather import gather
from pgkeep.store.memory import MemoryStore
from pgkeep.values.ids import BackupId, ObjectId
from tests.format.forge import reseal
from tests.repo.story import back_up, content, open_story, problems, read_files, stored_packs
from tests.store.clocks import HandClock

WAIT = LEASE_SECONDS + SKEW_SECONDS
MANY = [b"f%02d" % number for number in range(12)]
KEPT = MANY[4:6]
BUDGET = Budget(worth=1)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cluster(clock: HandClock) -> Cluster:
    return open_story(MemoryStore(clock), clock)


@pytest.fixture
def sparse(cluster: Cluster, clock: HandClock) -> BackupId:
    """The only backup needs two files of twelve that lie in one pack: two frames of twelve."""
    first = back_up(cluster, clock, 1, {path: content(path.decode(), 16) for path in MANY}, together=True)
    clock.seconds += 1
    second = back_up(cluster, clock, 2, {b"new": content("new", 16)}, base=first, same=KEPT)
    retire(cluster, first, "", clock)
    return second


@pytest.fixture
def origin(cluster: Cluster, sparse: BackupId) -> ObjectId:
    (found,) = [pack.id for pack in read_manifest(cluster, sparse).outer.packs if pack.frames == len(MANY)]
    return found


EXPECTED = {path: content(path.decode(), 16) for path in KEPT} | {b"new": content("new", 16)}


def swept(cluster: Cluster, clock: HandClock, budget: Budget | None = BUDGET) -> SweepResult:
    return sweep(cluster, clock, silent, budget=budget)


def test_what_is_needed_of_a_sparse_pack_moves_and_the_rest_is_deleted(
    cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId
) -> None:
    before = cluster.repository.store.stat(names.pack(cluster.uuid, origin)).size
    result = swept(cluster, clock)
    assert (result.repacked.packs, result.repacked.carriers) == (1, 1)
    assert result.condemned.packs == 1
    assert MOVES in cluster.repository.store.list_parts(names.FEATURES)
    assert read_files(cluster, sparse) == EXPECTED
    assert condemned_packs(cluster) == frozenset()
    clock.seconds += WAIT
    assert swept(cluster, clock).deleted.packs == 1
    assert origin not in stored_packs(cluster)
    assert read_files(cluster, sparse) == EXPECTED
    assert problems(cluster) == []
    census = take_census(cluster)
    assert int(census.sizes.sum()) < before / 2
    assert swept(cluster, clock).repacked == Repacked()


def gone(cluster: Cluster, clock: HandClock) -> None:
    swept(cluster, clock)
    clock.seconds += WAIT
    swept(cluster, clock)


def test_page_tables_and_ranges_are_read_through_moves(
    cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId
) -> None:
    (reference,) = [pack for pack in read_manifest(cluster, sparse).outer.packs if pack.id == origin]
    whole = PackReader.open(cluster.repository, cluster.uuid, origin, lsns=True, hashes=True)
    lsns = read_page_lsns(cluster.repository, cluster.uuid, origin, reference.footer)
    gone(cluster, clock)
    moved = PackReader.open(cluster.repository, cluster.uuid, origin, reference.footer, lsns=True, hashes=True)
    assert isinstance(moved, MovedReader)
    live = slice(4 * 16, 6 * 16)
    for mine, theirs in ((moved.footer.lsns, whole.footer.lsns), (moved.footer.hashes, whole.footer.hashes)):
        assert mine is not None and theirs is not None
        assert mine[live].tolist() == theirs[live].tolist()
    again = read_page_lsns(cluster.repository, cluster.uuid, origin, reference.footer)
    assert again[live].tolist() == lsns[live].tolist()
    first, count = np.array([4 * 16 + 3, 5 * 16], np.int64), np.array([2, 16], np.int64)
    found = {run.run: bytes(run.data) for run in gather(moved, FrameKind.PAGES, first, count)}
    assert found == {0: EXPECTED[KEPT[0]][3 * 8192 : 5 * 8192], 1: EXPECTED[KEPT[1]]}
    dead = np.array([3 * 16], np.int64), np.array([20], np.int64)
    with pytest.raises(Damaged):
        list(gather(moved, FrameKind.PAGES, *dead))
    with pytest.raises(Damaged):
        moved.read_units(FrameKind.PAGES, 0, 1)


def test_a_pack_that_is_moved_while_it_is_read(
    cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId
) -> None:
    """A restore of many hours has read the footer; the pack goes before it reads the frames."""
    reader = PackReader.open(cluster.repository, cluster.uuid, origin)
    gone(cluster, clock)
    assert origin not in stored_packs(cluster)
    assert reader.read_units(FrameKind.PAGES, 4 * 16, 32) == EXPECTED[KEPT[0]] + EXPECTED[KEPT[1]]


@pytest.mark.parametrize("deleted", [False, True])
def test_the_next_backup_inherits_what_has_moved(
    cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId, deleted: bool
) -> None:
    swept(cluster, clock)
    if deleted:
        clock.seconds += WAIT
        swept(cluster, clock)
    next_one = back_up(cluster, clock, 3, {}, base=sparse, same=[*KEPT, b"new"])
    (reference,) = [pack for pack in read_manifest(cluster, next_one).outer.packs if pack.id == origin]
    assert reference.gone
    retire(cluster, sparse, "", clock)
    gone(cluster, clock)
    assert read_files(cluster, next_one) == EXPECTED
    assert problems(cluster) == []


def test_carriers_are_repacked_too_and_all_goes_with_the_last_backup(
    cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId
) -> None:
    gone(cluster, clock)
    third = back_up(cluster, clock, 3, {}, base=sparse, same=[KEPT[0]])
    retire(cluster, sparse, "", clock)
    gone(cluster, clock)
    gone(cluster, clock)
    assert len(stored_packs(cluster)) == 1
    assert read_files(cluster, third) == {KEPT[0]: EXPECTED[KEPT[0]]}
    retire(cluster, third, "", clock)
    for _ in range(3):
        gone(cluster, clock)
    assert stored_packs(cluster) == set()
    assert moved_index(cluster.repository, cluster.uuid).objects == {}


def test_a_damaged_pack_is_not_moved(cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId) -> None:
    store, key = cluster.repository.store, names.pack(cluster.uuid, origin)
    data = bytearray(store.get(key))
    reader = PackReader.open(cluster.repository, cluster.uuid, origin)
    data[int(reader.frames.offset[4]) + 100] ^= 1
    store.delete(key)
    store.put(key, [bytes(data)])
    result = swept(cluster, clock)
    assert (result.repacked.packs, result.condemned.packs) == (0, 0)
    assert origin in stored_packs(cluster)


def test_a_lost_carrier_is_damage_of_the_backup(
    cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId
) -> None:
    gone(cluster, clock)
    (moves,) = moved_index(cluster.repository, cluster.uuid).objects.values()
    cluster.repository.store.delete(names.pack(cluster.uuid, moves.carriers[0].id))
    assert problems(cluster)
    with pytest.raises(Fault):
        read_files(cluster, sparse)


def test_a_carrier_can_be_verified_alone(
    cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId
) -> None:
    gone(cluster, clock)
    (moves,) = moved_index(cluster.repository, cluster.uuid).objects.values()
    carrier = moves.carriers[0]
    assert check_pack(cluster.repository, cluster.uuid, carrier.id, carrier.footer).damage == ()
    assert check_pack(cluster.repository, cluster.uuid, carrier.id).damage == ()


def test_a_budget_of_no_time_moves_nothing(cluster: Cluster, clock: HandClock, sparse: BackupId) -> None:
    assert swept(cluster, clock, Budget(seconds=0, worth=1)).repacked == Repacked()
    assert swept(cluster, clock, None).repacked == Repacked()


def test_little_is_not_worth_it(cluster: Cluster, clock: HandClock, sparse: BackupId) -> None:
    assert swept(cluster, clock, Budget()).repacked == Repacked()


def test_bandwidth_is_kept_to(cluster: Cluster, clock: HandClock, sparse: BackupId, origin: ObjectId) -> None:
    back_up(cluster, clock, 5, {path: content(f"other {path!r}", 16) for path in MANY}, together=True)
    back_up(cluster, clock, 6, {}, base=backup_ids(cluster)[-1], same=KEPT)
    retire(cluster, backup_ids(cluster)[-2], "", clock)
    result = swept(cluster, clock, Budget(bandwidth=10_000, worth=1))
    assert result.repacked.packs == 2
    assert sum(clock.slept) >= 20


def test_moves_come_back_and_damage_is_damage(cluster: Cluster, clock: HandClock, sparse: BackupId) -> None:
    swept(cluster, clock)
    ((key, moves),) = moved_index(cluster.repository, cluster.uuid).objects.items()
    header = cluster.repository.header(ObjectType.MOVES, key, clock)
    again = decode_moves(b"".join(encode_moves(header, moves)), "x")
    assert (again.info, again.origins, len(again.rows)) == (moves.info, moves.origins, 2)
    for name in ("frame", "ordinal", "stored_hash", "offset"):
        assert getattr(again.rows, name).tolist() == getattr(moves.rows, name).tolist()

    data = b"".join(encode_moves(header, moves))

    @given(st.sampled_from([SectionType.ORIGINS, SectionType.MOVED, SectionType.CARRIERS]), st.binary(max_size=300))
    def any_bytes(type_: SectionType, bad: bytes) -> None:
        try:
            decode_moves(reseal(data, type_, bad), "the-moves")
        except Fault as fault:
            assert "the-moves" in fault.message

    any_bytes()
