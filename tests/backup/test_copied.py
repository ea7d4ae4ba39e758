"""What workers report in any order becomes each file's stretches, and the pages that are bad."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.backup.assemble import EntryMaker, bad_pages
from pgkeep.backup.copied import Copied, PackTable
from pgkeep.backup.report import Report, Settled
from pgkeep.format.extents import ExtentMap, decode_extents
from pgkeep.format.manifest import Place, Unit
from pgkeep.pg.entry import Entry, EntryType
from pgkeep.pg.page import BLCKSZ
from pgkeep.pg.relfile import Fork
from pgkeep.values.ids import ObjectId

RUN = 4 * BLCKSZ


def _pack(number: int) -> ObjectId:
    return ObjectId(number.to_bytes(16))


MAPS = _pack(1 << 100)


class Layout:
    """Files cut into runs, each page in a random pack at a random place: what entries must say in the end."""

    def __init__(self, sizes: list[int], seed: int) -> None:
        chance = random.Random(seed)
        self.found = [Entry(f"base/5/{16384 + n}", EntryType.FILE, 0o600, size * BLCKSZ, Fork.MAIN)
                      for n, size in enumerate(sizes)]  # fmt: skip
        self.place: dict[tuple[int, int], tuple[ObjectId, int]] = {}
        self.maps: list[bytes] = []
        runs = [(n, start) for n, size in enumerate(sizes) for start in range(0, size * BLCKSZ, RUN)]
        chance.shuffle(runs)
        self.copied = Copied(PackTable())
        while runs:
            report = Report()
            for _ in range(min(len(runs), chance.randrange(1, 5))):
                self._run(report, *runs.pop(), chance)
            self.copied.add(report.done())

    def _run(self, report: Report, file: int, start: int, chance: random.Random) -> None:
        end = min(start + RUN, self.found[file].size)
        report.begin(end - start)
        for at in range(start, end, BLCKSZ):
            place = (_pack(chance.randrange(3)), len(self.place) + chance.randrange(2) * 1000)
            self.place[file, at // BLCKSZ] = place
            report.place(file, at, place, BLCKSZ, BLCKSZ)

    def write_map(self, _path: bytes, data: bytes) -> tuple[ObjectId, int]:
        self.maps.append(data)
        return MAPS, len(self.maps) - 1

    def read(self) -> Iterator[tuple[int, int, ObjectId, int]]:
        """(file, page, pack, ordinal) of every page, as the entries say it."""
        maker = EntryMaker(self.copied, self.write_map, lambda data: data[:16])
        for file, entry in enumerate(maker.entries(self.found)):
            assert entry.unit is Unit.PAGES and entry.size == self.found[file].size
            if entry.place is Place.INLINE:
                pack = self.copied.packs.pack(entry.pack)
                yield from ((file, page, pack, entry.at + page) for page in range(entry.size // BLCKSZ))
            elif entry.place is Place.MAP:
                assert self.copied.packs.pack(entry.pack) == MAPS
                extents = decode_extents(self.maps[entry.at], "a map")
                rows = zip(extents.starts(), extents.count, extents.pack, extents.ordinal, strict=True)
                for start, count, number, ordinal in rows:
                    for page in range(int(count)):
                        yield file, int(start) + page, extents.packs[int(number)], int(ordinal) + page


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(0, 1 << 30))
def test_every_page_is_found_where_a_worker_put_it(sizes: list[int], seed: int) -> None:
    layout = Layout(sizes, seed)
    assert {(file, page): (pack, ordinal) for file, page, pack, ordinal in layout.read()} == layout.place


def test_what_lies_together_is_one_stretch() -> None:
    report = Report()
    report.begin(3 * RUN)
    for at in (0, RUN, 2 * RUN):
        report.place(7, at, (_pack(1), 100 + at // BLCKSZ), RUN, BLCKSZ)
    report.place(8, 0, (_pack(1), 112), RUN, BLCKSZ)  # continues in the pack, not in the file
    done = report.done()
    assert done.length == 3 * RUN
    assert done.placed[["file", "count", "start", "ordinal"]].tolist() == [(7, 12, 0, 100), (8, 4, 0, 112)]


def test_a_file_that_vanished_is_no_entry_although_a_part_was_copied() -> None:
    layout = Layout([6, 6], seed=1)
    report = Report()
    report.vanish(0)
    layout.copied.add(report.done())
    maker = EntryMaker(layout.copied, layout.write_map, lambda data: data[:16])
    assert [entry.path for entry in maker.entries(layout.found)] == [b"base/5/16385"]


def test_a_file_of_which_a_part_is_missing_is_never_written_down() -> None:
    layout = Layout([6], seed=1)
    layout.found[0] = layout.found[0]._replace(size=7 * BLCKSZ)
    with pytest.raises(AssertionError, match=r"49152 of 57344 bytes"):
        list(layout.read())


def test_a_page_is_bad_unless_the_backups_wal_replaces_it() -> None:
    layout = Layout([9, 9], seed=2)
    for file, block, lsn in [(0, 5, 0), (0, 2, 301), (0, 3, 300), (1, 1, 0), (0, 1, 0)]:
        report = Report()
        report.doubt(file, block, lsn)
        layout.copied.add(report.done())
    found = bad_pages(layout.found, layout.copied, 300)
    assert [(bad.path, bad.blocks) for bad in found] == [(b"base/5/16384", [1, 2, 5]), (b"base/5/16385", [1])]
    layout.copied.vanished.add(1)
    assert [bad.path for bad in bad_pages(layout.found, layout.copied, 300)] == [b"base/5/16384"]


def _shared(kept: list[int]) -> tuple[Copied, Settled]:
    """A file of four runs, each read by a worker of its own; `kept` are those that found nothing changed."""
    base = Settled(Place.MAP, _pack(7), 5, 99, bytes(range(16)))
    copied = Copied(PackTable())
    for number in (2, 0, 3, 1):
        report = Report()
        count, pack = np.array([1, 3], np.uint32), np.array([0, 1], np.uint32)
        ordinal = np.array([100 * number, 200 * number], np.int64)
        report.place_part(0, number * RUN, ExtentMap((_pack(1), _pack(number)), count, pack, ordinal), BLCKSZ)
        if number in kept:
            report.keep(0, base, RUN, 4 * RUN)
        copied.add(report.done())
    return copied, base


def test_a_pack_in_which_nothing_lies_any_more_is_not_named() -> None:
    report = Report()
    one = np.ones(1, np.uint32)
    report.place_part(0, 0, ExtentMap((_pack(1), _pack(2), _pack(3)), one, one, np.zeros(1, np.int64)), BLCKSZ)
    assert report.done().packs == (_pack(2),)


@pytest.mark.parametrize("kept", [[], [1], [0, 1, 3], [0, 1, 2, 3]])
def test_a_file_that_workers_shared_is_the_base_s_where_all_of_it_is(kept: list[int]) -> None:
    copied, base = _shared(kept)
    whole = len(kept) == 4
    assert copied.settled(0) == (base if whole else None)
    assert list(copied.kept()) == ([base] if whole else [])
    written: list[bytes] = []

    def write(_path: bytes, data: bytes) -> tuple[ObjectId, int]:
        written.append(data)
        return MAPS, 0

    found = Entry("base/5/16384", EntryType.FILE, 0o600, 4 * RUN, Fork.MAIN)
    [entry] = EntryMaker(copied, write, lambda _: bytes(16)).entries([found])
    if whole:
        assert (entry.at, entry.length, entry.hash, written) == (5, 99, base.hash, [])
        return
    extents = decode_extents(written[0], "x")
    runs = zip(extents.count.tolist(), (extents.packs[i] for i in extents.pack), extents.ordinal.tolist(), strict=True)
    expected = [run for n in range(4) for run in ((1, _pack(1), 100 * n), (3, _pack(n), 200 * n))]
    assert list(runs) == expected
