"""The answer of `list`: every backup, what it can be recovered to, what it cost, and why it is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from pgkeep.app.listing import ListedBackup, ListReport
from pgkeep.catalog.backups import BackupRow, Window
from pgkeep.cli.render import dumps
from pgkeep.cli.render.info import info_json
from pgkeep.cli.render.tables import lines, plural, table
from pgkeep.cli.render.times import json_time, show_age, show_time
from pgkeep.values.quantity import show_duration, show_size

COLUMNS = ("BACKUP", "AGE", "STARTED", "TOOK", "HOW", "CHANGED", "NEW", "SIZE", "FREES", "WAL")
LAST = ("RECOVERABLE UNTIL", "LABEL", "WHY")
"""Columns of a line without an end; on a terminal they stand below the backup."""
RIGHT = ("AGE", "TOOK", "CHANGED", "NEW", "SIZE", "FREES")
MEDIUM, WIDE = 120, 240
"""Columns from which on a terminal shows more than the narrowest does, and everything on one line."""


def backups_json(report: ListReport) -> dict[str, Any]:
    """docs/json.md, list."""
    return {
        "cluster": report.cluster,
        "policy": report.has_policy,
        "problem": report.problem or None,
        "backups": [_row_json(one) for one in report.backups],
        "dumps": [dumps.listed_json(one) for one in report.dumps],
    }


def _row_json(one: ListedBackup) -> dict[str, Any]:
    row = one.row
    size = row.info.wal_segment_size if row.info else 0
    return {
        "backup": row.backup,
        "restorable": one.is_restorable,
        "damage": row.damage or None,
        "damaged_packs": one.is_damaged,
        "missing_wal": [gap.describe(size) for gap in row.missing],
        "info": info_json(row.info) if row.info else None,
        "window": _window_json(row.window, size) if row.window else None,
        "frees_bytes": one.frees,
        "kept": [{"kind": reason.kind, "text": reason.text} for reason in one.reasons],
        "goes": one.goes,
    }


def _window_json(window: Window, size: int) -> dict[str, Any]:
    return {
        "timeline": window.timeline,
        "from_lsn": str(window.from_lsn),
        "from_time": json_time(window.from_time),
        "to_lsn": str(window.to_lsn),
        "to_archived": json_time(window.archived),
        "gap": window.gap.describe(size) if window.gap else None,
        "pruned": window.is_pruned,
        "other_timelines": list(window.others),
    }


def backups_text(report: ListReport, now: datetime, width: int = WIDE) -> RenderableType:
    """Every backup, oldest first, `width` columns wide at most, and under it what needs an explanation; then dumps."""
    shown = _backups_text(report, now, width)
    if not report.dumps:
        return shown
    listed = dumps.listed_text(report.dumps, now, wide=width >= MEDIUM)
    return Group(shown, Text(), listed, *_dump_remarks(report))


def _dump_remarks(report: ListReport) -> list[Text]:
    total = plural(len(report.dumps), "dump")
    if going := sum(one.goes for one in report.dumps):
        total += f"; {going} would go with: pgkeep prune"
    return [Text(), *dumps.remarks(report.dumps), Text(total)]


def _backups_text(report: ListReport, now: datetime, width: int) -> RenderableType:
    rows = report.backups
    if not rows:
        return Text(f"no backup of cluster {report.cluster} yet; make one with: pgkeep backup")
    if width >= WIDE:
        cells = [
            [*_cells(one, now), _until(one.row), one.row.info.label if one.row.info else "", _why(one)] for one in rows
        ]
        return Group(table((*COLUMNS, *LAST), cells, RIGHT), *_remarks(report))
    hidden = ("TOOK",) if width >= MEDIUM else ("STARTED", "TOOK", "WAL")
    shown = [number for number, name in enumerate(COLUMNS) if name not in hidden]
    head, *made = lines(
        [COLUMNS[n] for n in shown], [[_cells(one, now)[n] for n in shown] for one in rows], RIGHT
    )  # fmt: skip
    pairs = [part for line, one in zip(made, rows, strict=True) for part in (line, _below(one))]
    return Group(head, *pairs, *_remarks(report))


def _cells(one: ListedBackup, now: datetime) -> list[str | Text]:
    row, info = one.row, one.row.info
    if info is None:
        return [row.backup, *[""] * 8, Text("unreadable", "bold red")]
    started, stopped = datetime.fromisoformat(info.started), datetime.fromisoformat(info.stopped)
    return [
        row.backup,
        show_age((now - stopped).total_seconds()),
        show_time(started),
        show_duration((stopped - started).total_seconds()),
        info.method,
        show_count(info.pages_changed),
        show_size(info.stored_bytes),
        show_size(info.logical_bytes),
        "?" if one.frees is None else show_size(one.frees),
        _wal(row),
    ]


def show_count(count: int) -> str:
    """'950', '33.1k', '1.28M': three digits, for a column of pages."""
    if count < 1000:
        return str(count)
    value, unit = (
        (count / 1e3, "k") if count < 999_500 else (count / 1e6, "M") if count < 999_500_000 else (count / 1e9, "G")
    )
    return f"{value:.3g}{unit}"


def _below(one: ListedBackup) -> RenderableType:
    """The line under a backup: how far it reaches, why it is kept, what its owner called it."""
    parts = [Text(_reach(one.row), "dim" if one.row.is_restorable else "bold red")]
    why = _why(one)
    if why.plain:
        parts.append(why)
    if one.row.info is not None and one.row.info.label not in ("", "pgkeep"):
        parts.append(Text(one.row.info.label, "italic"))
    return Padding(Text("; ", "dim").join(parts), (0, 0, 0, 2))


def _reach(row: BackupRow) -> str:
    if row.info is None:
        return "unreadable"
    if row.window is None:
        return "cannot be restored"
    return "restores to its own end" if row.window.is_pruned else f"recoverable until {_until(row)}"


def _why(one: ListedBackup) -> Text:
    if one.goes:
        return Text("no rule keeps it: it goes with the next prune", "yellow")
    return Text(", ".join(reason.text for reason in one.reasons), "dim")


def _wal(row: BackupRow) -> Text:
    if row.damage:
        return Text("unreadable", "bold red")
    if row.window is None:
        return Text("missing", "bold red")
    if row.window.is_pruned:
        return Text("its own", "green")
    return Text("gap later", "yellow") if row.window.gap else Text("complete", "green")


def _until(row: BackupRow) -> str:
    window = row.window
    if window is None:
        return "never"
    if window.is_pruned:
        return show_time(window.from_time)
    return show_time(window.archived) if window.archived else str(window.to_lsn)


def _remarks(report: ListReport) -> list[Text]:
    remarks = [remark for one in report.backups for remark in _remarks_of(one)]
    if report.problem:
        remarks.append(
            Text.assemble(("warning: ", "bold yellow"), f"what the policy keeps is not known: {report.problem}")
        )
    restorable = sum(one.is_restorable for one in report.backups)
    total = f"{plural(len(report.backups), 'backup')}, {restorable} of them restorable"
    going = sum(one.goes for one in report.backups)
    if going:
        total += f"; {going} would go with: pgkeep prune"
    elif not report.has_policy:
        total += "; without a line keep in the configuration nothing is ever deleted"
    return [Text(), *remarks, Text(total)]


def _remarks_of(one: ListedBackup) -> list[Text]:
    row = one.row
    warning = ("warning: ", "bold yellow")
    size = row.info.wal_segment_size if row.info else 0
    found: list[Text] = []
    if row.damage:
        found.append(Text.assemble(warning, f"{row.backup}: {row.damage}"))
    if one.is_damaged:
        found.append(Text.assemble(warning, f"{row.backup} has damaged packs, says a verify: pgkeep verify names them"))
    if row.missing:
        gaps = ", ".join(gap.describe(size) for gap in row.missing)
        found.append(Text.assemble(warning, f"{row.backup} cannot be restored: the archive lacks {gaps}"))
    if row.window and row.window.gap and not row.window.is_pruned:
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
