"""What `list` says of dumps."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console
from tests.repo.dumped import add_dump
from tests.repo.made import make

from pgkeep.app.listing import ListedDump, ListReport
from pgkeep.catalog.dumps import dump_rows
from pgkeep.cli.render.backups import backups_json, backups_text
from pgkeep.format import names
from pgkeep.retention.facts import Reason
from pgkeep.store.memory import MemoryStore

NOW = datetime(2026, 5, 7, 14, 30, tzinfo=UTC)
WHY = (Reason("newest", "newest of shop"),)


@pytest.fixture
def report() -> ListReport:
    """A dump that stays, one that goes, and one that cannot be read."""
    made = make(MemoryStore())
    for _ in range(3):
        add_dump(made.cluster)
    dumps = sorted(row.dump for row in dump_rows(made.cluster))
    key = names.dump(made.cluster.uuid, dumps[2])
    data = bytearray(made.store.get(key))
    data[700] ^= 1
    made.store.delete(key)
    made.store.put(key, [bytes(data)])
    first, second, third = dump_rows(made.cluster)
    listed = ListedDump(first, 1 << 20, WHY), ListedDump(second, 0, goes=True), ListedDump(third, None)
    return ListReport("main", (), True, "", listed)


def text(report: ListReport, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, _environ={}).print(backups_text(report, NOW, width))
    return out.getvalue()


def test_a_table_of_their_own(report: ListReport) -> None:
    wide = text(report, 200)
    head, first, second, third = wide.splitlines()[2:6]
    assert head.split() == ["DUMP", "AGE", "SET", "DATABASE", "FORMAT", "TOOK", "SOURCE", "NEW", "FREES", "WHY"]
    for part in (report.dumps[0].row.dump, "shop (in part)", "directory", "1 min 00 s", "1 MB", "newest of shop"):
        assert part in first
    assert "before the release" in first
    assert "goes with the next prune" in second
    assert "unreadable" in third
    assert f"warning: {report.dumps[2].row.dump}" in wide
    assert "3 dumps; 1 would go with: pgkeep prune" in wide


def test_a_narrow_terminal(report: ListReport) -> None:
    narrow = text(report, 80)
    assert "SOURCE" not in narrow
    assert all(one.row.dump in narrow for one in report.dumps)


def test_json(report: ListReport) -> None:
    first, second, third = json.loads(json.dumps(backups_json(report)))["dumps"]
    assert first["info"]["database_names"] == ["shop"]
    assert (first["info"]["databases"], first["info"]["members"]) == (1, 5)
    assert first["info"]["options"] == ["--schema=public"]
    assert first["info"]["system_id"] == str(report.dumps[0].row.info.system_id)  # type: ignore[union-attr]
    assert first["kept"] == [{"kind": "newest", "text": "newest of shop"}]
    assert (second["goes"], second["frees_bytes"]) == (True, 0)
    assert third["info"] is None
    assert "damaged" in third["damage"]
