"""Entries as columns are the entries."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from pgkeep.pg.entry import Entry, EntryTable, EntryType
from pgkeep.pg.relfile import Fork

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)
ENTRIES = st.builds(
    Entry,
    NAMES.map(lambda name: name.decode("utf-8", "surrogateescape")),
    st.sampled_from(EntryType),
    st.integers(0, 0o7777),
    st.integers(0, (1 << 64) - 1),
    st.none() | st.sampled_from(Fork),
    NAMES.map(lambda name: name.decode("utf-8", "surrogateescape")) | st.just(""),
)


@given(st.lists(ENTRIES, max_size=30))
def test_a_table_gives_back_its_entries_as_often_as_asked(entries: list[Entry]) -> None:
    table = EntryTable(iter(entries))
    assert len(table) == len(entries)
    assert list(table) == entries
    assert list(table) == entries
    assert all(type(entry.type) is EntryType for entry in table)


def test_a_table_goes_on_behind_its_first_chunk() -> None:
    entries = [Entry(f"base/5/{number}", EntryType.FILE, 0o600, number, Fork.MAIN) for number in range(5000)]
    entries[4000] = Entry("pg_tblspc/16384", EntryType.LINKED_TABLESPACE, 0o777, target="/srv/fast disk")
    table = EntryTable(entries)
    assert list(table) == entries
    assert entries[4000] in table and Entry("nowhere", EntryType.FILE, 0o600) not in table


def test_a_table_takes_a_fraction_of_its_entries_memory() -> None:
    table = EntryTable(Entry(f"base/16384/{n}", EntryType.FILE, 0o600, 8192, Fork.MAIN) for n in range(100_000))
    columns = [getattr(table, name) for name in ("_paths", "_types", "_modes", "_sizes", "_forks")]
    held = sum(map(sys.getsizeof, columns)) + sum(map(sys.getsizeof, columns[0]))
    assert held < 40 * len(table)
