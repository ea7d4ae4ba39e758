"""Tiles: every page of a scattered stretch is in exactly one, everything else in none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.format.manifest import Unit
from pgkeep.restore.layout import ROW, Rows
from pgkeep.restore.tiles import LEAST, SCATTERED, by_pack, cut_at, filled, tiles_of

PAGE = 8192
_TILE = 4 << 20
_PER_TILE = _TILE // PAGE

extents = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1200), st.integers(0, 2)), min_size=1, max_size=60)
"""(pack, pages, pages of a hole before it)"""


def _rows(found: list[tuple[int, int, int]], unit: Unit = Unit.PAGES) -> Rows:
    rows = np.zeros(len(found), ROW)
    start = 0
    for row, (number, (pack, count, hole)) in zip(rows, enumerate(found), strict=True):
        start += hole
        row["pack"], row["unit"], row["file"], row["count"] = pack, unit, 5, count
        row["start"], row["ordinal"] = start, 10_000 * number
        start += count
    return rows


def _pages(rows: Rows) -> list[tuple[int, int, int]]:
    """(page of the file, pack, ordinal) of each page."""
    found = []
    for row in rows:
        for number in range(int(row["count"])):
            found.append((int(row["start"]) + number, int(row["pack"]), int(row["ordinal"]) + number))
    return found


@given(extents, st.integers(1, 500))
def test_cut_rows_are_the_same_pages(found: list[tuple[int, int, int]], units: int) -> None:
    rows = _rows(found)
    cut = cut_at(rows, units)
    assert _pages(cut) == _pages(rows)
    assert set(cut["file"].tolist()) == {5}
    first, last = cut["start"] // units, (cut["start"] + cut["count"] - 1) // units
    assert first.tolist() == last.tolist()


@given(extents, st.booleans())
def test_every_page_is_in_one_tile_or_in_the_rest(found: list[tuple[int, int, int]], small: bool) -> None:
    rows = _rows([(pack, 1 + count % (14 if small else 90), hole) for pack, count, hole in found * 12])
    tiles, rest = tiles_of(rows, PAGE, _TILE)
    assert sorted(page for part in (*tiles, rest) for page in _pages(part)) == _pages(rows)
    for tile in tiles:
        assert len({page // _PER_TILE for page, _, _ in _pages(tile)}) == 1
        stored = int(tile["count"].sum()) * PAGE
        assert LEAST <= stored < len(tile) * SCATTERED


def test_what_is_scattered_becomes_tiles_and_what_lies_together_does_not() -> None:
    scattered = [(number % 3, 1, 0) for number in range(_PER_TILE)]
    together = [(0, _PER_TILE, 0)]
    tiles, rest = tiles_of(_rows([*together, *scattered, *together]), PAGE, _TILE)
    assert [len(tile) for tile in tiles] == [_PER_TILE]
    assert _pages(rest) == _pages(_rows([*together, *scattered, *together])[[0, -1]])


def test_small_files_and_bytes_are_read_pack_by_pack() -> None:
    small = _rows([(number % 3, 1, 0) for number in range(LEAST // PAGE - 1)])
    assert not tiles_of(small, PAGE, _TILE)[0]
    other = _rows([(number % 3, 8192, 0) for number in range(_PER_TILE)], Unit.BYTES)
    assert not tiles_of(other, PAGE, _TILE)[0]
    assert not tiles_of(other[:0], PAGE, _TILE)[0]


@given(extents)
def test_a_tile_by_packs_and_by_runs(found: list[tuple[int, int, int]]) -> None:
    tile = _rows(found)
    base = int(tile["start"][0])
    pages = []
    for pack, first, count, place in by_pack(tile):
        for ordinal, length, to in zip(first.tolist(), count.tolist(), place.tolist(), strict=True):
            pages += [(base + to + number, pack, ordinal + number) for number in range(length)]
    assert sorted(pages) == _pages(tile)
    runs = filled(tile)
    assert [base + page for begin, end in runs for page in range(begin, end)] == [page for page, _, _ in _pages(tile)]
    assert all(earlier[1] < later[0] for earlier, later in pairwise(runs))
