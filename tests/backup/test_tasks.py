"""Every byte of every file is read once, and large files are shared out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.backup.report import Settled
from pgkeep.backup.tasks import (
    CUT_AT,
    HOT,
    RUN_SIZE,
    TASK_FILES,
    BaseFile,
    FileRun,
    How,
    content_length,
    plan_tasks,
)
from pgkeep.format.manifest import Place
from pgkeep.pg.entry import Entry, EntryType
from pgkeep.pg.page import BLCKSZ
from pgkeep.pg.relfile import Fork
from pgkeep.values.ids import ObjectId

SIZES = st.one_of(st.integers(0, 100_000), st.integers(0, 5 * RUN_SIZE), st.just(RUN_SIZE))


def _entries(sizes: list[int]) -> list[Entry]:
    pages = [Entry(f"base/5/{16384 + n}.3", EntryType.FILE, 0o600, size, Fork.MAIN) for n, size in enumerate(sizes)]
    plain = [Entry(f"pg_xact/{n:04X}", EntryType.FILE, 0o600, size) for n, size in enumerate(sizes)]
    return [Entry("base", EntryType.DIRECTORY, 0o700), *pages, *plain]


@given(st.lists(SIZES, max_size=20))
def test_every_byte_is_read_exactly_once(sizes: list[int]) -> None:
    entries = _entries(sizes)
    runs: dict[int, list[FileRun]] = {}
    for task in plan_tasks(entries, 131072):
        assert task and len(task) <= TASK_FILES
        assert sum(run.length for run in task) < 2 * RUN_SIZE
        for run in task:
            runs.setdefault(run.file, []).append(run)
    for number, entry in enumerate(entries):
        if entry.type is not EntryType.FILE:
            assert number not in runs
            continue
        at = 0
        for run in runs[number]:  # an empty file has a run too: it may have vanished
            assert run.start == at and run.length <= RUN_SIZE
            assert run.first_block == (3 * 131072 if run.pages else 0) + run.start // 8192
            at += run.length
        assert at == content_length(entry)


def test_a_relation_is_cut_to_whole_pages_and_other_files_are_not() -> None:
    assert content_length(Entry("base/5/1", EntryType.FILE, 0o600, 8192 + 100, Fork.MAIN)) == 8192
    assert content_length(Entry("pg_xact/0000", EntryType.FILE, 0o600, 8192 + 100)) == 8292


def test_pg_control_is_left_to_the_job() -> None:
    entries = [Entry("global/pg_control", EntryType.FILE, 0o600, 8192), Entry("PG_VERSION", EntryType.FILE, 0o600, 3)]
    assert [run.path for task in plan_tasks(entries, 131072) for run in task] == [b"PG_VERSION"]


SEGMENT = 131072
"""Pages of a segment of 1 GiB."""


def _base(how: How, changed: np.ndarray[tuple[int], np.dtype[np.uint32]] | None = None, **more: int) -> BaseFile:
    settled = Settled(Place.MAP, ObjectId(bytes(16)), 0, more.pop("map_length", 100))
    return BaseFile(settled, SEGMENT, how, (), more.get("limit", SEGMENT), changed)


def _parts(entries: list[Entry], base: BaseFile) -> dict[int, list[FileRun]]:
    """The runs by file; together they are the file, each with its base."""
    runs: dict[int, list[FileRun]] = {}
    for task in plan_tasks(entries, SEGMENT, lambda _: base):
        for run in task:
            runs.setdefault(run.file, []).append(run)
    for number, mine in runs.items():
        at = 0
        for run in mine:
            assert (run.start, run.base, run.whole) == (at, base, entries[number].size)
            assert run.first_block == 3 * SEGMENT + run.start // BLCKSZ
            assert run.is_part == (len(mine) > 1)
            at += run.length
        assert at == entries[number].size
    return runs


def _segments(count: int) -> list[Entry]:
    return [Entry(f"base/5/{16384 + n}.3", EntryType.FILE, 0o600, SEGMENT * BLCKSZ, Fork.MAIN) for n in range(count)]


@given(st.integers(0, 2**32), st.integers(0, 60_000), st.integers(0, SEGMENT))
def test_a_file_with_many_changes_is_cut_where_they_are(seed: int, count: int, limit: int) -> None:
    changed = np.unique(np.random.default_rng(seed).integers(0, SEGMENT, count)).astype(np.uint32)
    [runs] = _parts(_segments(1), _base(How.SUMMARY, changed, limit=limit)).values()
    must = np.union1d(changed[changed < limit], np.arange(limit, SEGMENT))
    for run in runs:
        first, end = run.start // BLCKSZ, (run.start + run.length) // BLCKSZ
        assert first % CUT_AT == 0
        assert np.searchsorted(must, end) - np.searchsorted(must, first) <= HOT // BLCKSZ + CUT_AT
    assert len(runs) <= len(must) // (HOT // BLCKSZ) + 1


@pytest.mark.parametrize("how", [How.HASH, How.LSN])
def test_a_file_that_must_be_read_is_cut_in_runs(how: How) -> None:
    [runs] = _parts(_segments(1), _base(how)).values()
    assert [run.length for run in runs] == [RUN_SIZE] * (SEGMENT * BLCKSZ // RUN_SIZE)


def test_no_more_files_are_cut_than_extents_may_be_held_of() -> None:
    runs = _parts(_segments(10), _base(How.LSN, map_length=2 << 20))
    assert [len(mine) for mine in runs.values()] == [32, 32, 32] + [1] * 7


def test_small_files_are_whole() -> None:
    entries = [Entry("base/5/16384.3", EntryType.FILE, 0o600, 10 * BLCKSZ, Fork.MAIN)]
    [runs] = _parts(entries, _base(How.LSN)).values()
    assert len(runs) == 1
