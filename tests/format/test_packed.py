"""Tables that are kept packed give back their rows."""

from __future__ import annotations

from pgkeep.format.limits import PATHS_PER_CHUNK
from pgkeep.format.manifest import Entry, EntryType, Place, Relation
from pgkeep.format.packed import PackedRows


def _entry(number: int) -> Entry:
    path = b"base/16384/%08d" % number
    return Entry(path=path, type=EntryType.FILE, mode=0o600, size=8192, place=Place.INLINE, pack=0, at=number)


def test_rows_come_back_in_order_as_often_as_asked() -> None:
    rows = [_entry(number) for number in range(2 * PATHS_PER_CHUNK + 1)]
    packed = PackedRows(Entry, iter(rows))
    assert list(packed) == rows
    assert list(packed) == rows


def test_a_table_without_rows_is_empty() -> None:
    assert list(PackedRows(Relation, [])) == []


def test_rows_that_fit_into_no_section_together_are_kept_in_several() -> None:
    rows = [
        Relation(database=5, oid=n, filenode=n, schema=b"s" * (12 << 20), name=b"n", kind="r", pages=0, rows=-1.0)
        for n in range(4)
    ]
    assert [row.oid for row in PackedRows(Relation, rows)] == [0, 1, 2, 3]
