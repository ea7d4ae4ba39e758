"""The answer of `list`: every backup, and what it can be recovered to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.catalog.backups import BackupRow, Window
from pgkeep.cli.render.tables import plural, table
from pgkeep.cli.render.times import json_time, show_age, show_time
from pgkeep.format.manifest import ManifestInfo
from pgkeep.values.lsn import Lsn
from pgkeep.values.quantity import show_duration, show_size

COLUMNS = ("BACKUP", "AGE", "STARTED", "TOOK", "SIZE", "STORED", "WAL", "RECOVERABLE UNTIL", "LABEL")
RIGHT = ("AGE", "TOOK", "SIZE", "STORED")
WIDE = 132
"""Columns of a terminal that shows everything; a narrower one does without what the backup's name says too."""


def backups_json(cluster: str, rows: Sequence[BackupRow]) -> dict[str, Any]:
    """docs/json.md, list."""
    return {"cluster": cluster, "backups": [_row_json(row) for row in rows]}


def _row_json(row: BackupRow) -> dict[str, Any]:
    size = row.info.wal_segment_size if row.info else 0
    return {
        "backup": row.backup,
        "restorable": row.is_restorable,
        "damage": row.damage or None,
        "missing_wal": [gap.describe(size) for gap in row.missing],
        "info": info_json(row.info) if row.info else None,
        "window": _window_json(row.window, size) if row.window else None,
    }


def info_json(info: ManifestInfo) -> dict[str, Any]:
    """What a manifest says of its backup; sizes in bytes."""
    return {
        "label": info.label,
        "started": info.started,
        "stopped": info.stopped,
        "host": info.host,
        "system_id": str(info.system_id),
        "server_version": info.server_version,
        "timeline": info.timeline,
        "start_lsn": str(Lsn(info.start_lsn)),
        "stop_lsn": str(Lsn(info.stop_lsn)),
        "source": info.source,
        "method": info.method,
        "base": info.base,
        "logical_bytes": info.logical_bytes,
        "stored_bytes": info.stored_bytes,
        "pages": info.pages,
        "pages_changed": info.pages_changed,
        "files": info.files,
        "bad_pages": info.bad_pages,
    }


def _window_json(window: Window, size: int) -> dict[str, Any]:
    return {
        "timeline": window.timeline,
        "from_lsn": str(window.from_lsn),
        "from_time": json_time(window.from_time),
        "to_lsn": str(window.to_lsn),
        "to_archived": json_time(window.archived),
        "gap": window.gap.describe(size) if window.gap else None,
        "other_timelines": list(window.others),
    }


def backups_text(cluster: str, rows: Sequence[BackupRow], now: datetime, width: int = WIDE) -> RenderableType:
    """The table, oldest first, `width` columns wide at most, and under it what needs an explanation."""
    if not rows:
        return Text(f"no backup of cluster {cluster} yet; make one with: pgkeep backup")
    shown = [number for number, name in enumerate(COLUMNS) if width >= WIDE or name not in ("STARTED", "TOOK")]
    cells = [_cells(row, now) for row in rows]
    made = table([COLUMNS[number] for number in shown], [[row[number] for number in shown] for row in cells], RIGHT)
    return Group(made, *_remarks(rows))


def _cells(row: BackupRow, now: datetime) -> list[str | Text]:
    info = row.info
    if info is None:
        return [row.backup, "", "", "", "", "", Text("unreadable", "bold red"), "never", ""]
    started, stopped = datetime.fromisoformat(info.started), datetime.fromisoformat(info.stopped)
    return [
        row.backup,
        show_age((now - stopped).total_seconds()),
        show_time(started),
        show_duration((stopped - started).total_seconds()),
        show_size(info.logical_bytes),
        show_size(info.stored_bytes),
        _wal(row),
        _until(row.window),
        info.label,
    ]


def _wal(row: BackupRow) -> Text:
    if row.damage:
        return Text("unreadable", "bold red")
    if row.window is None:
        return Text("missing", "bold red")
    return Text("gap later", "yellow") if row.window.gap else Text("complete", "green")


def _until(window: Window | None) -> str:
    if window is None:
        return "never"
    return show_time(window.archived) if window.archived else str(window.to_lsn)


def _remarks(rows: Sequence[BackupRow]) -> list[Text]:
    remarks = [remark for row in rows for remark in _remarks_of(row)]
    restorable = sum(row.is_restorable for row in rows)
    return [Text(), *remarks, Text(f"{plural(len(rows), 'backup')}, {restorable} of them restorable")]


def _remarks_of(row: BackupRow) -> list[Text]:
    warning = ("warning: ", "bold yellow")
    size = row.info.wal_segment_size if row.info else 0
    found: list[Text] = []
    if row.damage:
        found.append(Text.assemble(warning, f"{row.backup}: {row.damage}"))
    if row.missing:
        gaps = ", ".join(gap.describe(size) for gap in row.missing)
        found.append(Text.assemble(warning, f"{row.backup} cannot be restored: the archive lacks {gaps}"))
    if row.window and row.window.gap:
        gap = row.window.gap.describe(size)
        found.append(Text.assemble(warning, f"{row.backup} reaches {row.window.to_lsn} only: the archive lacks {gap}"))
    if row.window and row.window.others:
        others = ", ".join(map(str, row.window.others))
        text = f"{row.backup}: timeline {row.window.timeline} is shown; {others} would be possible too (--timeline)"
        found.append(Text.assemble(("note: ", "bold"), text))
    if row.info and row.info.bad_pages:
        count = plural(row.info.bad_pages, "page")
        found.append(Text.assemble(warning, f"{row.backup} holds {count} that were damaged in the server already"))
    return found
