"""gather against the plain reading of the same units, whatever the runs."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgkeep.clock import SystemClock
from pgkeep.errors import Damaged
from pgkeep.format.frame import FrameKind
from pgkeep.format.keyed import stored_hash
from pgkeep.repo.packreader import PackReader, verified_pages_into
from pgkeep.repo.packwriter import PackWriter
from pgkeep.restore.gather import Share, gather, scatter
from tests.restore.backups_of import PAGE, new_cluster

PAGES = 100


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackReader, bytes]:
    """A pack of 100 random pages with bytes in between, so that frames of both kinds alternate."""
    cluster = new_cluster(tmp_path_factory.mktemp("repository"))
    writer = PackWriter(cluster.repository, cluster.uuid, SystemClock(), page_size=PAGE)
    pages = os.urandom(PAGES * PAGE)
    for at in range(0, PAGES, 10):
        lsns = np.arange(10, dtype=np.uint64)
        writer.add_pages(b"base/5/1", at, memoryview(pages)[at * PAGE : (at + 10) * PAGE], lsns)
        writer.add_bytes(b"other", at, memoryview(os.urandom(50_000)))
    (written,) = writer.finish()
    return PackReader.open(cluster.repository, cluster.uuid, written.id, written.footer), pages


runs = st.lists(
    st.integers(0, PAGES - 1).flatmap(lambda first: st.tuples(st.just(first), st.integers(1, PAGES - first))),
    max_size=30,
)


@given(runs=runs, parts=st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_every_unit_of_every_run_comes_exactly_once(
    pack: tuple[PackReader, bytes], runs: list[tuple[int, int]], parts: int
) -> None:
    reader, pages = pack
    runs.sort()
    first = np.array([run[0] for run in runs], np.int64)
    count = np.array([run[1] for run in runs], np.int64)
    got = [bytearray(b"\0" * (PAGE * run[1])) for run in runs]
    filled = [0] * len(runs)
    for part in range(parts):
        for found in gather(reader, FrameKind.PAGES, first, count, Share(part, parts)):
            at = found.skipped * PAGE
            got[found.run][at : at + len(found.data)] = found.data
            filled[found.run] += len(found.data)
    for run, content, size in zip(runs, got, filled, strict=True):
        assert size == run[1] * PAGE
        assert content == pages[run[0] * PAGE : (run[0] + run[1]) * PAGE]


class Rooms:
    """A Target with memory for some of what it is asked for; what comes before the pages must stay as it is."""

    headroom = 4096

    def __init__(self, got: list[bytearray], refused: set[int]) -> None:
        self.got = got
        self.refused = refused
        self.asked = self.taken = 0
        self._last: tuple[int, int, bytearray] | None = None

    def room(self, run: int, skipped: int, length: int) -> memoryview | None:
        self.asked += 1
        if self.asked in self.refused:
            return None
        memory = bytearray(os.urandom(self.headroom) + bytes(length))
        self._before = bytes(memory[: self.headroom])
        self._last = run, skipped * PAGE, memory
        return memoryview(memory)

    def took(self, length: int) -> None:
        assert self._last is not None
        run, at, memory = self._last
        assert bytes(memory[: self.headroom]) == self._before
        assert len(memory) == self.headroom + length
        self.got[run][at : at + length] = memory[self.headroom :]
        self.taken += 1


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackReader, bytes]:
    """A pack of 200 pages that compress, of two files: frames of one and of both."""
    cluster = new_cluster(tmp_path_factory.mktemp("repository"))
    writer = PackWriter(cluster.repository, cluster.uuid, SystemClock(), page_size=PAGE)
    pages = b"".join(os.urandom(512) * (PAGE // 512) for _ in range(200))
    for path, begin, end in ((b"base/5/1", 0, 90), (b"base/5/2", 90, 200)):
        lsns = np.arange(end - begin, dtype=np.uint64)
        writer.add_pages(path, 0, memoryview(pages)[begin * PAGE : end * PAGE], lsns)
    (written,) = writer.finish()
    return PackReader.open(cluster.repository, cluster.uuid, written.id, written.footer), pages


@given(
    cuts=st.lists(st.integers(1, 199), max_size=6, unique=True).map(sorted),
    refused=st.sets(st.integers(1, 20)),
    overlapping=st.booleans(),
)
@settings(max_examples=60)
def test_whole_frames_go_where_there_is_room(
    dense: tuple[PackReader, bytes], cuts: list[int], refused: set[int], overlapping: bool
) -> None:
    reader, pages = dense
    runs = [(begin, end) for begin, end in zip([0, *cuts], [*cuts, 200], strict=True)]
    if overlapping:
        runs.append((20, 60))
        runs.sort()
    got = [bytearray((end - begin) * PAGE) for begin, end in runs]
    rooms = Rooms(got, refused)
    first, count = (np.array(column, np.int64) for column in zip(*((b, e - b) for b, e in runs), strict=True))
    for found in gather(reader, FrameKind.PAGES, first, count, target=rooms):
        at = found.skipped * PAGE
        got[found.run][at : at + len(found.data)] = found.data
    for (begin, end), content in zip(runs, got, strict=True):
        assert content == pages[begin * PAGE : end * PAGE]
    assert rooms.taken == rooms.asked - len([n for n in refused if n <= rooms.asked])
    if not cuts and not refused and not overlapping:
        assert rooms.taken == len(reader.frames)


def test_a_damaged_frame_is_no_ones_room(dense: tuple[PackReader, bytes]) -> None:
    reader, _ = dense
    frame = next(iter(reader.fetch_frames(np.array([0]))))
    index, row, stored, key = frame
    headroom = 4096
    room = memoryview(bytearray(os.urandom(headroom) + bytes(row.data_length)))
    before = bytes(room[:headroom])
    flipped = bytearray(stored)
    flipped[len(flipped) // 2] ^= 1
    with pytest.raises(Damaged, match="frame 0 is damaged"):
        verified_pages_into(row, index, memoryview(flipped), room, headroom, key)
    other = replace(row, stored_hash=stored_hash(bytes(flipped)))  # damaged before it was hashed
    with suppress(Damaged):
        verified_pages_into(other, index, memoryview(flipped), room, headroom, key)
    assert bytes(room[:headroom]) == before
    cut = replace(row, data_length=row.data_length - PAGE)  # the frame table says another pieces table
    shorter = room[: headroom + cut.data_length]
    assert not verified_pages_into(cut, index, stored, shorter, headroom, key)  # too long for the headroom
    longer = replace(row, raw_length=row.raw_length + 8)
    with pytest.raises(Damaged):
        verified_pages_into(longer, index, stored, room, headroom, key)
    assert not verified_pages_into(row, index, stored, room[:-PAGE], headroom, key)
    assert verified_pages_into(row, index, stored, room, headroom, key)
    assert bytes(room[:headroom]) == before


def test_units_beyond_the_pack_are_damage(pack: tuple[PackReader, bytes]) -> None:
    reader, _ = pack
    with pytest.raises(Damaged, match="does not hold"):
        list(gather(reader, FrameKind.PAGES, np.array([PAGES - 1]), np.array([2])))
    with pytest.raises(Damaged, match="does not hold"):
        list(gather(reader, FrameKind.MAPS, np.array([0]), np.array([1])))


def test_only_frames_that_are_needed_are_read(pack: tuple[PackReader, bytes], tmp_path: Path) -> None:
    reader, _ = pack
    asked: list[int] = []
    original = reader.fetch_frames

    class Counting:
        frames, page_size, key, plain = reader.frames, reader.page_size, reader.key, reader.plain

        def fetch_frames(self, frames):  # type: ignore[no-untyped-def]
            asked.extend(frames.tolist())
            return original(frames)

    ends = reader.frames.unit_ends(FrameKind.PAGES, PAGE)
    list(gather(Counting(), FrameKind.PAGES, np.array([3, 3, 70]), np.array([1, 2, 1])))  # type: ignore[arg-type]
    assert asked == sorted({int(np.searchsorted(ends, page, side="right")) for page in (3, 4, 70)})


@given(
    runs=st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 4)), min_size=1, max_size=40), draw=st.randoms()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_pages_are_scattered_to_their_places(
    pack: tuple[PackReader, bytes], runs: list[tuple[int, int]], draw: random.Random
) -> None:
    """Runs in any order, which may overlap, to places in any order; what belongs to no run stays."""
    reader, pages = pack
    first = np.array([run[0] for run in runs], np.int64)
    count = np.minimum([run[1] for run in runs], PAGES - first)
    gaps = np.array([draw.randrange(3) for _ in runs], np.int64)
    place = np.cumsum(count + gaps) - count
    order = draw.sample(range(len(runs)), len(runs))
    out = bytearray(b"\xff" * (int(place[-1] + count[-1]) * PAGE))
    expected = bytearray(out)
    for ordinal, length, to in zip(first.tolist(), count.tolist(), place.tolist(), strict=True):
        expected[to * PAGE : (to + length) * PAGE] = pages[ordinal * PAGE : (ordinal + length) * PAGE]
    scatter(reader, first[order], count[order], place[order], memoryview(out))
    assert out == expected


def test_scattered_pages_beyond_the_pack_are_damage(pack: tuple[PackReader, bytes]) -> None:
    reader, _ = pack
    with pytest.raises(Damaged, match="does not hold"):
        scatter(reader, np.array([3, PAGES - 1]), np.array([1, 2]), np.array([0, 1]), memoryview(bytearray(3 * PAGE)))
