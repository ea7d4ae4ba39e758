"""Every byte of every file is read once, and large files are shared out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgkeep.backup.tasks import RUN_SIZE, TASK_FILES, FileRun, content_length, plan_tasks
from pgkeep.pg.entry import Entry, EntryType
from pgkeep.pg.relfile import Fork

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
