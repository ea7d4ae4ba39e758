"""Extent maps: one form for one meaning, and that form comes back."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged
from pgkeep.format.extents import HOLE, ExtentMap, decode_extents, encode_extents, merge_adjacent, part_of
from pgkeep.format.limits import MAX_ORDINAL
from pgkeep.values.ids import ObjectId

Run = tuple[int | None, int, int]
"""(pack or None for a hole, first ordinal, count)."""
PACKS = tuple(ObjectId(bytes([i]) * 16) for i in range(4))
HEAD = struct.Struct("<4sHHIIQ")

run = st.tuples(st.none() | st.integers(0, 3), st.integers(0, 1 << 39), st.integers(1, 1 << 20))
runs = st.lists(run, max_size=30).filter(lambda wanted: not wanted or wanted[-1][0] is not None)
"""No map ends in a hole."""


def make(wanted: list[Run], packs: tuple[ObjectId, ...] = PACKS) -> ExtentMap:
    return ExtentMap(
        packs,
        np.array([count for _, _, count in wanted], np.uint32),
        np.array([HOLE if pack is None else pack for pack, _, _ in wanted], np.uint32),
        np.array([0 if pack is None else first for pack, first, _ in wanted], np.int64),
    )


def meaning(extents: ExtentMap) -> list[tuple[ObjectId | None, int, int]]:
    """(pack, ordinal, count) of each run, continued runs joined: written out, without numpy."""
    joined: list[tuple[ObjectId | None, int, int]] = []
    for count, pack, ordinal in zip(extents.count, extents.pack, extents.ordinal, strict=True):
        owner = None if pack == HOLE else extents.packs[pack]
        if joined and joined[-1][0] == owner and (owner is None or joined[-1][1] + joined[-1][2] == ordinal):
            joined[-1] = (owner, joined[-1][1], joined[-1][2] + int(count))
        else:
            joined.append((owner, int(ordinal), int(count)))
    return joined


@given(runs)
def test_maps_come_back_merged(wanted: list[Run]) -> None:
    extents = make(wanted)
    encoded = encode_extents(extents)
    decoded = decode_extents(encoded, "x")
    assert meaning(decoded) == meaning(extents)
    assert len(decoded.count) == len(meaning(extents))
    assert decoded.total() == extents.total() == sum(count for _, _, count in wanted)
    assert list(decoded.starts()) == [sum(map(int, decoded.count[:i])) for i in range(len(decoded.count))]
    assert encode_extents(decoded) == encoded


@given(runs, st.data())
def test_parts_joined_are_the_whole(wanted: list[Run], data: st.DataObject) -> None:
    extents = make(wanted)
    total = extents.total()
    cuts = sorted({0, total, *data.draw(st.lists(st.integers(0, total), max_size=5))})
    parts = [part_of(extents, first, end - first) for first, end in itertools.pairwise(cuts)]
    assert [part.total() for part in parts] == [end - first for first, end in itertools.pairwise(cuts)]
    joined = ExtentMap(
        PACKS,
        np.concatenate([part.count for part in parts] or [extents.count]),
        np.concatenate([part.pack for part in parts] or [extents.pack]),
        np.concatenate([part.ordinal for part in parts] or [extents.ordinal]),
    )
    assert meaning(joined) == meaning(extents)
    assert part_of(extents, total, 10).total() == 0
    assert part_of(extents, max(total - 3, 0), 10).total() == min(total, 3)


@given(runs, st.permutations(range(4)), st.data())
def test_equal_maps_have_equal_bytes(wanted: list[Run], order: list[int], data: st.DataObject) -> None:
    """However the packs are numbered, whatever else the table of packs holds, and however the runs are cut."""
    renumbered = tuple(PACKS[order.index(i)] for i in range(4))
    cut: list[Run] = []
    for pack, first, count in wanted:
        at = data.draw(st.integers(0, count))
        cut += [
            (pack if pack is None else order[pack], first + start, end - start)
            for start, end in ((0, at), (at, count))
            if end > start
        ]
    assert encode_extents(make(cut, renumbered)) == encode_extents(make(wanted))


def test_runs_longer_than_a_count_are_cut_in_one_way() -> None:
    top = (1 << 32) - 1
    once = encode_extents(make([(0, 10, top), (0, 10 + top, 5)]))
    assert encode_extents(make([(0, 10, 5), (0, 15, top)])) == once
    assert [(int(c), int(o)) for c, o in zip(*_columns(once), strict=True)] == [(top, 10), (5, 10 + top)]
    holes = decode_extents(encode_extents(make([(None, 0, top), (None, 0, top), (0, 7, 1)])), "x")
    assert (list(holes.count), list(holes.ordinal)) == ([top, top, 1], [0, 0, 7])


def _columns(encoded: bytes) -> tuple[list[int], list[int]]:
    decoded = decode_extents(encoded, "x")
    return list(decoded.count), list(decoded.ordinal)


def test_a_map_that_ends_in_a_hole_is_not_written() -> None:
    endings: list[list[Run]] = [[(None, 0, 3)], [(0, 5, 1), (None, 0, 3)]]
    for wanted in endings:
        with pytest.raises(ValueError, match="hole"):
            encode_extents(make(wanted))


def test_merging_keeps_what_does_not_continue() -> None:
    extents = make([(0, 0, 2), (0, 2, 3), (0, 6, 1), (1, 7, 1), (None, 0, 1), (None, 0, 4), (1, 8, 1)])
    merged = merge_adjacent(extents)
    assert list(merged.count) == [5, 1, 1, 5, 1]


def test_the_example_of_the_document() -> None:
    """docs/format/extents.md works this map out in bytes."""
    encoded = encode_extents(make([(0, 100, 3), (None, 0, 4), (1, 7, 1), (0, 103, 2)]))
    assert encoded == bytes.fromhex(
        "50474b4d 0100 0000 02000000 04000000 0a00000000000000"
        + "00" * 16 + "01" * 16
        + "03040102" + "00000000" * 3
        + "00ff0100" + "00ff0000" * 3
        + "64000700" + "00000000" * 7
    )  # fmt: skip


def forged(packs: int, count: list[int], pack: list[int], delta: list[int], total: int | None = None) -> bytes:
    def planes(values: list[int], width: int, signed: bool = False) -> bytes:
        rows = [value.to_bytes(width, "little", signed=signed) for value in values]
        return b"".join(bytes(row[i] for row in rows) for i in range(width))

    head = HEAD.pack(b"PGKM", 1, 0, packs, len(count), sum(count) if total is None else total)
    ids = b"".join(bytes([i]) * 16 for i in range(packs))
    return head + ids + planes(count, 4) + planes(pack, 4) + planes(delta, 8, signed=True)


def test_the_forger_forges() -> None:
    decoded = decode_extents(forged(1, [2, 3], [0, 0], [5, 1]), "x")
    assert (list(decoded.ordinal), list(decoded.count)) == ([5, 8], [2, 3])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        forged(1, [1], [0], [0])[:-1],
        forged(1, [1], [0], [0]) + b"\0",
        b"PGKX" + forged(1, [1], [0], [0])[4:],
        forged(1, [1], [1], [0]),
        forged(1, [0], [0], [0]),
        forged(1, [1], [0], [-1]),
        forged(1, [1], [0], [MAX_ORDINAL]),
        forged(1, [1], [0], [-(1 << 63)]),
        forged(1, [1, 1], [0, 0], [MAX_ORDINAL - 1, MAX_ORDINAL - 1]),
        forged(1, [1, 1], [0, 0], [3, -5]),
        forged(1, [1], [0], [0], total=2),
        forged(3, [1], [0], [0]),
        forged(1, [1, 1], [0, HOLE], [0, 0]),
        forged(0, [1], [HOLE], [0]),
        HEAD.pack(b"PGKM", 1, 0, (1 << 32) - 1, (1 << 32) - 1, 0),
        HEAD.pack(b"PGKM", 2, 0, 0, 0, 0),
        HEAD.pack(b"PGKM", 1, 1, 0, 0, 0),
    ],
)
def test_impossible_maps_are_damage(data: bytes) -> None:
    with pytest.raises(Damaged, match="the-map"):
        decode_extents(data, "the-map")


@given(st.binary(max_size=200))
def test_random_bytes_are_damage_or_a_map(data: bytes) -> None:
    try:
        decode_extents(b"PGKM\x01\0\0\0" + data, "x")
    except Damaged as damaged:
        assert damaged.object == "x"
