"""Single files of a backup in memory."""

from __future__ import annotations

from pgkeep.repo.backups import read_manifest
from pgkeep.restore.contents import Contents
from pgkeep.store.memory import MemoryStore
from tests.format.samples import BACKUP
from tests.repo.made import PAGE, PAGES, make


def test_a_file_with_a_hole_is_zeros_there() -> None:
    made = make(MemoryStore())
    contents = Contents(made.cluster, read_manifest(made.cluster, BACKUP))
    entry = contents.find(b"base/5/16384")
    assert entry is not None
    assert contents.of(entry) == PAGES[: 2 * PAGE] + bytes(5 * PAGE) + PAGES[2 * PAGE :]


def test_a_small_file_and_one_that_there_is_not() -> None:
    made = make(MemoryStore())
    contents = Contents(made.cluster, read_manifest(made.cluster, BACKUP))
    version = contents.find(b"PG_VERSION")
    assert version is not None
    assert contents.of(version) == b"17\n"
    assert contents.find(b"base") is None
    assert contents.find(b"base/5/1") is None
