"""RecoveryLineage: what a restore writes is what `wal get` reads, and nothing else passes for it."""

from __future__ import annotations

import json

import pytest

from pgkeep.values.ids import ClusterUuid, ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.values.wal import History, Switch

HISTORY = History(3, (Switch(1, Lsn(0x5000100), "no target"), Switch(2, Lsn(0x9000000))))


def lineage(last: int | None = None, flush: Lsn | None = None) -> RecoveryLineage:
    return RecoveryLineage(ObjectId(bytes(16)), ClusterUuid.make(bytes(16)), 2**63 + 1, 1 << 20, HISTORY, last, flush)


@pytest.mark.parametrize("written", [lineage(), lineage(17), lineage(17, Lsn(17 << 20 | 8192))])
def test_it_is_read_as_it_was_written(written: RecoveryLineage) -> None:
    assert RecoveryLineage.decode(written.encode()) == written


def test_a_partial_segment_at_the_end_is_no_whole_one() -> None:
    assert lineage().last_whole_segment is None
    assert lineage(17).last_whole_segment == 17
    assert lineage(17, Lsn(17 << 20 | 8192)).last_whole_segment == 16


def test_one_written_without_the_bound_of_a_partial_has_none() -> None:
    fields = json.loads(lineage(17).encode())
    del fields["flush"]
    assert RecoveryLineage.decode(json.dumps(fields)).flush is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 2}', lineage().encode().replace('"schema": 1', '"schema": 7')]
)
def test_nothing_else_passes_for_it(text: str) -> None:
    with pytest.raises(ValueError):
        RecoveryLineage.decode(text)
