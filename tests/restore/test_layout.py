"""The manifest's extents turned round: the same rows, in memory or spilled."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from pgkeep.errors import Damaged
from pgkeep.format.extents import HOLE, ExtentMap
from pgkeep.format.manifest import Entry, EntryType, Place, Unit
from pgkeep.restore.layout import ROW, FileTable, Layout, Rows, TargetFile, inline_row, map_rows
from pgkeep.values.ids import ObjectId


def _rows(seed: int, count: int) -> Rows:
    chance = random.Random(seed)
    rows = np.empty(count, ROW)
    for row in rows:
        row["pack"], row["unit"] = chance.randrange(12), chance.randrange(2)
        row["ordinal"], row["count"] = chance.randrange(1 << 40), chance.randrange(1, 1 << 20)
        row["file"], row["start"] = chance.randrange(1 << 20), chance.randrange(1 << 40)
    return rows


@pytest.mark.parametrize("limit", [1, 7, 64, 10_000], ids="limit {}".format)
def test_spilled_or_not_the_rows_come_back_sorted_by_pack(tmp_path: Path, limit: int) -> None:
    layout = Layout(str(tmp_path), memory_rows=limit)
    batches = [_rows(seed, 13) for seed in range(20)]
    for batch in batches:
        layout.add(batch)
    every = np.concatenate(batches)
    seen = []
    for pack, rows in layout.by_pack():
        assert set(rows["pack"].tolist()) == {pack}
        keys = list(zip(rows["unit"].tolist(), rows["ordinal"].tolist(), strict=True))
        assert keys == sorted(keys)
        seen += [row.tobytes() for row in rows]
    layout.close()
    assert sorted(seen) == sorted(row.tobytes() for row in every)
    assert list(tmp_path.iterdir()) == []


def test_nothing_added_is_nothing_to_do(tmp_path: Path) -> None:
    assert list(Layout(str(tmp_path)).by_pack()) == []


def test_a_map_becomes_rows_in_file_order() -> None:
    packs = ObjectId(b"a" * 16), ObjectId(b"b" * 16)
    extents = ExtentMap(
        packs, np.array([5, 2, 1], np.uint32), np.array([1, 0, 1], np.uint32), np.array([100, 7, 3], np.int64)
    )
    rows = map_rows(extents, 9, Unit.PAGES, {packs[0]: 40, packs[1]: 41}, "map")
    assert rows["pack"].tolist() == [41, 40, 41]
    assert rows["start"].tolist() == [0, 5, 7]
    assert rows["ordinal"].tolist() == [100, 7, 3]
    assert rows["file"].tolist() == [9, 9, 9]
    with pytest.raises(Damaged, match="not in the pack table"):
        map_rows(extents, 9, Unit.PAGES, {packs[0]: 40}, "map")


def test_holes_have_no_rows_and_move_what_follows() -> None:
    pack = ObjectId(b"a" * 16)
    extents = ExtentMap(
        (pack,), np.array([5, 2, 1], np.uint32), np.array([0, HOLE, 0], np.uint32), np.array([100, 0, 3], np.int64)
    )
    rows = map_rows(extents, 9, Unit.PAGES, {pack: 40}, "map")
    assert [(int(r["pack"]), int(r["ordinal"]), int(r["count"]), int(r["start"])) for r in rows] == [
        (40, 100, 5, 0),
        (40, 3, 1, 7),
    ]


def test_a_file_in_pages_must_be_whole_pages() -> None:
    entry = Entry(
        path=b"base/5/1", type=EntryType.FILE, mode=0o600, size=8193, unit=Unit.PAGES, place=Place.INLINE, pack=0, at=4
    )
    with pytest.raises(Damaged, match="8193"):
        inline_row(entry, 0, 8192, "manifest")


def test_files_come_back_by_number() -> None:
    table = FileTable()
    files = [TargetFile(number % 3, f"base/5/{number}".encode(), number << 33, 0o640) for number in range(50)]
    assert [table.add(file) for file in files] == list(range(50))
    assert [table[number] for number in range(len(table))] == files
