"""What `list` says of backups in good and bad states."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console

from pgkeep.catalog.backups import BackupRow, Window
from pgkeep.catalog.continuity import Gap
from pgkeep.cli.render.backups import backups_json, backups_text
from pgkeep.cli.render.times import show_age
from pgkeep.format.manifest import ManifestInfo
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn

NOW = datetime(2026, 5, 7, 14, 30, tzinfo=UTC)
INFO = ManifestInfo(
    backup="20260507T112900Z-3f9a01c7", cluster="0" * 36, cluster_name="main", writer="pgkeep", host="db1",
    label="nightly", started="2026-05-07T11:29:00+00:00", stopped="2026-05-07T11:30:14+00:00", system_id=7 << 60,
    server_version=170011, timeline=1, start_timeline=1, start_lsn=0x2000028, stop_lsn=0x2000130,
    wal_segment_size=1 << 24, source="primary", method="full", method_reason="", base=None, base_proof="",
    logical_bytes=3 << 30, stored_bytes=1 << 29, pages=1, pages_changed=1, files=1000, bad_pages=0,
)  # fmt: skip
WINDOW = Window(
    1, Lsn(0x2000130), datetime(2026, 5, 7, 11, 30, 14, tzinfo=UTC), Lsn(0x9000000),
    datetime(2026, 5, 7, 14, 29, tzinfo=UTC), None, (),
)  # fmt: skip
ROW = BackupRow(BackupId(INFO.backup), INFO, window=WINDOW)


def text(*rows: BackupRow) -> str:
    out = io.StringIO()
    Console(file=out, width=400, _environ={}).print(backups_text("main", rows, NOW))
    return out.getvalue()


def test_a_sound_backup() -> None:
    shown = text(ROW)
    cells = shown.splitlines()[1].split()
    assert cells[:3] == [INFO.backup, "2", "h"]
    assert "1 min 14 s" in shown and "3 GB" in shown and "512 MB" in shown and "nightly" in shown
    assert "complete" in shown
    assert shown.endswith("1 backup, 1 of them restorable\n")


def test_what_needs_an_explanation_gets_one() -> None:
    missing = BackupRow(ROW.backup, INFO, missing=(Gap(1, 2, 4),))
    assert "cannot be restored: the archive lacks 000000010000000000000002 to 000000010000000000000004" in text(missing)
    assert "0 of them restorable" in text(missing)
    gap = replace(ROW, window=replace(WINDOW, gap=Gap(1, 9, 9)))
    assert "reaches 0/9000000 only: the archive lacks 000000010000000000000009" in text(gap)
    assert "gap later" in text(gap)
    branches = replace(ROW, window=replace(WINDOW, timeline=3, others=(1, 2)))
    assert "timeline 3 is shown; 1, 2 would be possible too" in text(branches)
    damaged = BackupRow(ROW.backup, None, "its hash is wrong")
    assert "unreadable" in text(damaged) and "its hash is wrong" in text(damaged)
    assert "unreadable" in text(BackupRow(ROW.backup, INFO, "history is damaged"))
    bad = replace(
        ROW, info=ManifestInfo(**{name: getattr(INFO, name) for name in INFO.__struct_fields__} | {"bad_pages": 2})
    )
    assert "2 pages that were damaged in the server already" in text(bad)


def test_a_narrow_terminal_leaves_out_what_the_name_says() -> None:
    out = io.StringIO()
    Console(file=out, width=100, _environ={}).print(backups_text("main", [ROW], NOW, 100))
    assert "STARTED" not in out.getvalue()
    assert "…" not in out.getvalue()
    assert "nightly" in out.getvalue()


def test_an_empty_list_names_the_way() -> None:
    assert "pgkeep backup" in text()


def test_json_is_plain_and_keeps_64_bits() -> None:
    shown = json.loads(json.dumps(backups_json("main", [ROW, BackupRow(ROW.backup, None, "broken")])))
    first, second = shown["backups"]
    assert first["info"]["system_id"] == str(7 << 60)
    assert first["window"]["to_archived"] == "2026-05-07T14:29:00Z"
    assert second == {
        "backup": INFO.backup, "restorable": False, "damage": "broken", "missing_wal": [], "info": None, "window": None,
    }  # fmt: skip


def test_ages_have_one_unit() -> None:
    assert [show_age(s) for s in (-3, 0.5, 59.9, 60, 7199, 86400 * 9)] == ["now", "now", "59 s", "1 min", "1 h", "9 d"]
