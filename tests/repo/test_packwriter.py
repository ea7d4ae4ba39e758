"""PackWriter and PackReader: every unit that was added is read back from its ordinal, whatever was added."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkeep.errors import Fault
from pgkeep.format.frame import FrameKind, decode_pieces, split_frame
from pgkeep.format.limits import FRAME_DATA, MAX_ADD, PACK_FRAMES
from pgkeep.repo import check
from pgkeep.repo.packreader import PackReader, read_page_lsns, runs_of
from pgkeep.repo.packwriter import PackWriter
from pgkeep.repo.repository import Repository, create_repository
from pgkeep.store.memory import MemoryStore
from pgkeep.values.ids import ObjectId
from tests.format.samples import CLUSTER, StepClock, entropy
from tests.repo.made import PAGE
from tests.store.faulty import Effect, FaultyStore, Strike


@dataclass(frozen=True)
class Add:
    """One call of the writer."""

    kind: FrameKind
    path: bytes
    start: int
    units: int
    seed: int

    def data(self) -> bytes:
        size = PAGE if self.kind is FrameKind.PAGES else 1
        # Half of it compresses well, half does not.
        random = np.random.default_rng(self.seed).bytes(self.units * size // 2)
        return random + bytes(self.units * size - len(random))

    def lsns(self) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return np.random.default_rng(self.seed).integers(0, 1 << 63, self.units, np.uint64)


adds = st.lists(
    st.builds(
        Add,
        st.sampled_from([FrameKind.PAGES, FrameKind.BYTES, FrameKind.MAPS]),
        st.sampled_from([b"base/5/16384", b"base/5/16385", b"p" * 3000]),
        st.integers(0, 1 << 40),
        st.sampled_from([0, 1, 2, 15, 16, 17, 40]),
        st.integers(0, 1 << 20),
    ),
    max_size=25,
)


def repository() -> Repository:
    return create_repository(MemoryStore(), StepClock(), "test", entropy("packs"))


def writer_of(repo: Repository, target: int, *, ahead: bool = False) -> PackWriter:
    return PackWriter(repo, CLUSTER, StepClock(), page_size=PAGE, pack_target=target, level=1, ahead=ahead)


@settings(max_examples=30)
@given(adds, st.sampled_from([1, 100_000, 1 << 30]), st.booleans())
def test_every_unit_is_read_back(wanted: list[Add], target: int, ahead: bool) -> None:
    repo = repository()
    writer = writer_of(repo, target, ahead=ahead)
    placed: list[tuple[Add, ObjectId, int]] = []
    for add in wanted:
        headroom = add.seed % 3 * 2048
        data = memoryview(bytearray(headroom) + add.data())
        if add.kind is FrameKind.PAGES:
            pack, ordinal = writer.add_pages(add.path, add.start, data, add.lsns(), headroom)
        else:
            pack, ordinal = writer.add_bytes(add.path, add.start, data[headroom:], add.kind)
        data[:] = b"\xee" * len(data)  # the caller's buffer is the caller's again
        placed.append((add, pack, ordinal))
    written = {pack.id: pack for pack in writer.finish()}
    for add, pack, ordinal in placed:
        place = written[pack].footer
        reader = PackReader.open(repo, CLUSTER, pack, place)
        if add.units:
            assert reader.read_units(add.kind, ordinal, add.units) == add.data()
        if add.kind is FrameKind.PAGES:
            lsns = read_page_lsns(repo, CLUSTER, pack, place)
            assert np.array_equal(lsns[ordinal : ordinal + add.units], add.lsns())
    for pack, made in written.items():
        assert not check.check_pack(repo, CLUSTER, pack, made.footer).damage
        assert not check.check_pack(repo, CLUSTER, pack).damage
    for add, pack, _ in placed:
        if add.units:
            assert _pieces_hold(PackReader.open(repo, CLUSTER, pack), add)


def _pieces_hold(reader: PackReader, add: Add) -> bool:
    """The frames' own descriptions lead to the unit at the addition's start, without any manifest."""
    size = PAGE if add.kind is FrameKind.PAGES else 1
    for run in runs_of(range(len(reader.frames)), reader.frames):
        for index, raw in reader.read(run):
            if reader.frames.kind[index] != add.kind:
                continue
            table, data = split_frame(raw, reader.key)
            at = 0
            for piece in decode_pieces(table, reader.key):
                if piece.path == add.path and piece.start == add.start:
                    first = bytes(data[at : at + size])
                    if first == add.data()[:size]:
                        return True
                at += piece.count * size
    return False


def test_a_full_pack_is_closed_and_the_next_has_another_name() -> None:
    repo = repository()
    writer = writer_of(repo, 1)
    for number in range(3):
        data = memoryview(np.random.default_rng(number).bytes(2 * FRAME_DATA))
        writer.add_bytes(b"f", 0, data)
    assert len({pack.id for pack in writer.finish()}) == 3
    assert sum(1 for _ in repo.store.list(f"{CLUSTER}/packs/")) == 3


def test_well_compressed_data_never_make_a_pack_that_no_reader_accepts() -> None:
    """Zeros: 64 MiB of them stored would be millions of frames."""
    repo = repository()
    writer = PackWriter(repo, CLUSTER, StepClock(), page_size=PAGE, level=1)
    zeros = memoryview(bytes(64 << 20))
    per_add = len(zeros) // FRAME_DATA
    for _ in range(PACK_FRAMES // per_add + 1):
        writer.add_bytes(b"zeros", 0, zeros)
    written = writer.finish()
    assert [pack.frames for pack in written] == [PACK_FRAMES, per_add]
    assert len(PackReader.open(repo, CLUSTER, written[0].id).frames) == PACK_FRAMES


def test_thousands_of_tiny_files_fit() -> None:
    """A PG_VERSION for each of many databases: their names are longer than they are."""
    repo = repository()
    writer = writer_of(repo, 1 << 30)
    places = [writer.add_bytes(b"base/%06d/PG_VERSION" % n, 0, memoryview(b"17\n")) for n in range(20_000)]
    written = writer.finish()[0]
    reader = PackReader.open(repo, CLUSTER, written.id)
    assert reader.read_units(FrameKind.BYTES, places[-1][1], 3) == b"17\n"
    assert not check.check_pack(repo, CLUSTER, written.id, written.footer).damage


def test_what_cannot_lie_in_one_pack_is_refused() -> None:
    writer = writer_of(repository(), 1 << 30)
    with pytest.raises(ValueError, match="limit"):
        writer.add_bytes(b"f", 0, memoryview(bytes(MAX_ADD + 1)))
    for data, lsns in ((bytes(PAGE + 1), 1), (bytes(PAGE), 2)):
        with pytest.raises(ValueError, match="whole pages"):
            writer.add_pages(b"f", 0, memoryview(data), np.zeros(lsns, np.uint64))


def test_nothing_added_is_nothing_written() -> None:
    repo = repository()
    assert writer_of(repo, 1).finish() == []
    assert not list(repo.store.list(f"{CLUSTER}/"))


def test_a_put_that_fails_behind_the_writers_back_is_told() -> None:
    for nth in (1, 3):  # while others follow, and at the end
        repo = repository()
        store = FaultyStore(repo.store, Strike(Effect.BEFORE, "put", nth))
        writer = writer_of(replace(repo, store=store), 1, ahead=True)
        with pytest.raises(Fault) as fault:
            for number in range(3):
                writer.add_bytes(b"file", number, memoryview(np.random.default_rng(number).bytes(200_000)))
            writer.finish()
        assert fault.value.code == "store-unreachable"
