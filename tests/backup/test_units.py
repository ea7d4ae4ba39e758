"""Units: extents to rows and back, whatever is cut off, appended and placed anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.backup.units import Units
from pgkeep.format.extents import HOLE, ExtentMap, decode_extents, encode_extents, merge_adjacent
from pgkeep.values.ids import ObjectId

PACKS = tuple(ObjectId(bytes([number]) * 16) for number in range(4))
NEW = ObjectId(b"n" * 16)
Where = tuple[ObjectId | None, int]
Rows = list[tuple[int, int, int]]
EXTENT = st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 500))


def _map(rows: Rows) -> ExtentMap:
    count, pack, ordinal = (np.array(column) for column in zip(*rows, strict=True))
    return ExtentMap(PACKS, count.astype(np.uint32), pack.astype(np.uint32), ordinal.astype(np.int64))


def _flat(extents: ExtentMap) -> list[Where]:
    """Where each unit lies, one by one: the slow way."""
    found: list[Where] = []
    for count, pack, ordinal in zip(
        extents.count.tolist(), extents.pack.tolist(), extents.ordinal.tolist(), strict=True
    ):
        hole = pack == HOLE
        found += [(None, 0) if hole else (extents.packs[pack], ordinal + n) for n in range(count)]
    return found


@given(st.lists(EXTENT, min_size=1, max_size=30), st.data())
def test_what_is_placed_lies_there_and_all_else_where_it_was(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    extents = _map(rows)
    expected = _flat(extents)
    units = Units.of(extents)
    assert len(units) == len(expected) == extents.total()
    size = data.draw(st.integers(1, len(expected) + 10))
    units.resize(size)
    kept = min(size, len(expected))
    changed = data.draw(st.sets(st.integers(0, kept - 1))) | set(range(kept, size))
    where = np.array(sorted(changed), np.int64)
    if len(where):
        units.place(where, NEW, 1000)
    expected = (expected + [(None, 0)] * size)[:size]
    for number, block in enumerate(where.tolist()):
        expected[block] = NEW, 1000 + number
    made = units.extents()
    assert _flat(made) == expected
    assert _flat(decode_extents(encode_extents(merge_adjacent(made)), "test")) == expected


def test_extents_are_as_few_as_can_be() -> None:
    units = Units.of(_map([(3, 0, 10), (2, 0, 13), (4, 1, 15)]))
    assert units.extents().count.tolist() == [5, 4]
    units.place(np.array([1, 2]), PACKS[1], 40)
    assert units.extents().count.tolist() == [1, 2, 2, 4]


def test_units_that_lie_nowhere_are_a_mistake() -> None:
    units = Units.of(_map([(3, 0, 10)]))
    units.resize(4)
    with pytest.raises(AssertionError, match="1 of 4"):
        units.extents()


def test_packs_to_avoid() -> None:
    units = Units.of(_map([(2, 0, 0), (1, 2, 5), (1, 3, 5)]))
    assert units.lies_in(frozenset([PACKS[2], PACKS[3], NEW])).tolist() == [False, False, True, True]
