"""The WAL of a backup: equal to the server's own, and durable before a manifest needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pgkeep.backup.walwait import compare_with_server
from pgkeep.errors import Fault
from pgkeep.store.memory import MemoryStore
from pgkeep.values.wal import Segment
from tests.format.samples import StepClock
from tests.repo.made import SEGMENT, WAL, Made, make


class RefusingStore(MemoryStore):
    """Counts the puts of WAL that found their object there: what makes it durable (store/port.py)."""

    refused = 0

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        try:
            super().put(key, parts)
        except Fault:
            self.refused += 1
            raise


@pytest.fixture
def store() -> RefusingStore:
    return RefusingStore()


@pytest.fixture
def made(store: RefusingStore, tmp_path: Path) -> Made:
    (tmp_path / "archive_status").mkdir()
    (tmp_path / SEGMENT).write_bytes(WAL)
    return make(store)


def test_a_segment_whose_push_has_not_returned_is_made_durable(
    made: Made, store: RefusingStore, tmp_path: Path
) -> None:
    compare_with_server(made.archive, Segment(2, 0x30), str(tmp_path), StepClock())
    assert store.refused == 1
    (tmp_path / "archive_status" / f"{SEGMENT}.done").touch()
    compare_with_server(made.archive, Segment(2, 0x30), str(tmp_path), StepClock())
    assert store.refused == 1


def test_another_content_is_told_and_a_recycled_segment_passes(made: Made, tmp_path: Path) -> None:
    (tmp_path / SEGMENT).write_bytes(WAL[:-1] + b"x")
    with pytest.raises(Fault) as caught:
        compare_with_server(made.archive, Segment(2, 0x30), str(tmp_path), StepClock())
    assert caught.value.code == "wal-differs"
    (tmp_path / SEGMENT).unlink()
    compare_with_server(made.archive, Segment(2, 0x30), str(tmp_path), StepClock())
