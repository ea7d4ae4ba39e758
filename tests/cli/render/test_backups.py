"""What `list` says of backups in good and bad states."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from msgspec import structs
from rich.console import Console

from pgkeep.app.listing import ListedBackup, ListReport
from pgkeep.catalog.backups import BackupRow, Window
from pgkeep.catalog.continuity import Gap
from pgkeep.cli.render.backups import backups_json, backups_text, show_count
from pgkeep.cli.render.times import show_age, show_time
from pgkeep.format.manifest import ManifestInfo
from pgkeep.retention.facts import Reason
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


WHY = (Reason("daily", "daily 2026-05-07"), Reason("newest", "newest of its lineage"))


def report(*rows: BackupRow | ListedBackup, has_policy: bool = True, problem: str = "") -> ListReport:
    listed = tuple(row if isinstance(row, ListedBackup) else ListedBackup(row, 1 << 20, WHY) for row in rows)
    return ListReport("main", listed, has_policy, problem)


def text(*rows: BackupRow | ListedBackup, width: int = 400, has_policy: bool = True, problem: str = "") -> str:
    out = io.StringIO()
    shown = backups_text(report(*rows, has_policy=has_policy, problem=problem), NOW, width)
    Console(file=out, width=width, _environ={}).print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def info(**changes: Any) -> ManifestInfo:
    return structs.replace(INFO, **changes)


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
    bad = replace(ROW, info=info(bad_pages=2))
    assert "2 pages that were damaged in the server already" in text(bad)


def test_on_80_columns() -> None:
    incremental = info(method="summaries", pages_changed=33_100, stored_bytes=12 << 20, label="pgkeep")
    old = ListedBackup(
        replace(ROW, info=incremental, window=replace(WINDOW, gap=Gap(1, 9, 9), is_pruned=True)), None, WHY[:1]
    )
    shown = text(ListedBackup(ROW, 512 << 20, WHY), old, width=80)
    assert shown.splitlines() == [
        "BACKUP                     AGE  HOW        CHANGED     NEW  SIZE   FREES",
        "20260507T112900Z-3f9a01c7  2 h  full             1  512 MB  3 GB  512 MB",
        f"  recoverable until {show_time(datetime(2026, 5, 7, 14, 29, tzinfo=UTC))}; daily 2026-05-07, newest of its",
        "  lineage; nightly",
        "20260507T112900Z-3f9a01c7  2 h  summaries    33.1k   12 MB  3 GB       ?",
        "  restores to its own end; daily 2026-05-07",
        "",
        "2 backups, 2 of them restorable",
    ]


def test_the_widest_that_80_columns_must_hold() -> None:
    wide = info(method="summaries", pages_changed=999_999, stored_bytes=1011 << 20, logical_bytes=1011 << 30)
    shown = text(ListedBackup(replace(ROW, info=wide), 1011 << 20, WHY), width=80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "1e+03" not in shown


def test_on_120_columns() -> None:
    lines = text(ROW, width=120).splitlines()
    assert lines[0].split() == ["BACKUP", "AGE", "STARTED", "HOW", "CHANGED", "NEW", "SIZE", "FREES", "WAL"]
    assert lines[1].endswith("complete")
    assert all(len(line) <= 120 for line in lines)


def test_in_a_pipe_every_backup_is_one_line() -> None:
    lines = text(ROW, ROW, width=400).splitlines()
    assert lines[0].split()[-3:] == ["UNTIL", "LABEL", "WHY"]
    assert lines[1].endswith("nightly  daily 2026-05-07, newest of its lineage")
    assert len(lines) == 5


def test_what_goes_says_so() -> None:
    shown = text(ROW, ListedBackup(ROW, 5, goes=True), width=80)
    assert "no rule keeps it: it goes with the next prune" in shown.replace("\n ", "")
    assert shown.endswith("2 backups, 2 of them restorable; 1 would go with: pgkeep prune\n")


def test_a_backup_with_damaged_packs_is_not_called_restorable() -> None:
    shown = text(ROW, ListedBackup(ROW, 5, WHY, is_damaged=True), width=100)
    assert f"warning: {INFO.backup} has damaged packs, says a verify" in shown
    assert shown.endswith("2 backups, 1 of them restorable\n")
    (row,) = backups_json(report(ListedBackup(ROW, 5, WHY, is_damaged=True)))["backups"]
    assert (row["restorable"], row["damaged_packs"]) == (False, True)


def test_without_a_policy_it_says_that_nothing_goes() -> None:
    assert "nothing is ever deleted" in text(ListedBackup(ROW, 5), has_policy=False)


def test_what_is_not_known_is_said() -> None:
    assert "what the policy keeps is not known: 2 branches" in text(ROW, problem="2 branches")


def test_counts_have_three_digits() -> None:
    counts = (0, 999, 1000, 33_149, 999_499, 999_500, 12_345_678, 999_500_000)
    assert [show_count(one) for one in counts] == ["0", "999", "1k", "33.1k", "999k", "1M", "12.3M", "1G"]


def test_an_empty_list_names_the_way() -> None:
    assert "pgkeep backup" in text()


def test_json_is_plain_and_keeps_64_bits() -> None:
    broken = ListedBackup(BackupRow(ROW.backup, None, "broken"))
    shown = json.loads(json.dumps(backups_json(report(ROW, broken))))
    first, second = shown["backups"]
    assert first["info"]["system_id"] == str(7 << 60)
    assert first["window"]["to_archived"] == "2026-05-07T14:29:00Z"
    assert second == {
        "backup": INFO.backup, "restorable": False, "damage": "broken", "missing_wal": [], "info": None, "window": None,
        "frees_bytes": None, "kept": [], "goes": False, "damaged_packs": False,
    }  # fmt: skip
    assert (first["frees_bytes"], first["goes"]) == (1 << 20, False)
    assert first["kept"][0] == {"kind": "daily", "text": "daily 2026-05-07"}


def test_ages_have_one_unit() -> None:
    assert [show_age(s) for s in (-3, 0.5, 59.9, 60, 7199, 86400 * 9)] == ["now", "now", "59 s", "1 min", "1 h", "9 d"]
