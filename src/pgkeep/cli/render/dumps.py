"""Logical dumps, in the answers of `dump`, `list` and `prune`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from pgkeep.app.listing import ListedDump
from pgkeep.cli.render.tables import Cell, plural, table
from pgkeep.cli.render.times import json_time, show_age, show_time
from pgkeep.format.dump import Dumped, DumpInfo
from pgkeep.retention.dumps import DumpPlan, GoingDump, StayingDump
from pgkeep.retention.facts import Reason
from pgkeep.values.quantity import show_duration, show_size

COLUMNS = ("DUMP", "AGE", "SET", "DATABASE", "FORMAT", "TOOK", "SOURCE", "NEW", "FREES", "WHY")
RIGHT = ("AGE", "TOOK", "SOURCE", "NEW", "FREES")
NARROW = ("DUMP", "AGE", "SET", "NEW", "WHY")
"""What a narrow terminal shows."""


def info_json(info: DumpInfo) -> dict[str, Any]:
    """docs/json.md, what a dump says of itself."""
    return {
        "name": info.name,
        "label": info.label,
        "started": info.started,
        "stopped": info.stopped,
        "host": info.host,
        "system_id": str(info.system_id),
        "server_version": info.server_version,
        "tool_version": info.tool_version,
        "format": info.format,
        "compression": info.compression,
        "every_database": info.every_database,
        "whole": info.whole,
        "role_passwords": info.role_passwords,
        "databases": info.databases,
        "source_bytes": info.source_bytes,
        "logical_bytes": info.logical_bytes,
        "stored_bytes": info.stored_bytes,
        "members": info.members,
    }


def _content_json(info: DumpInfo, dumped: Dumped) -> dict[str, Any]:
    """As `info_json`, and what only the inner part of a manifest says."""
    return {
        **info_json(info),
        "database_names": [one.name.decode("utf-8", "backslashreplace") for one in dumped.databases],
        "options": list(dumped.options),
        "tool": dumped.tool,
    }


def listed_json(one: ListedDump) -> dict[str, Any]:
    """docs/json.md, list."""
    row = one.row
    return {
        "dump": row.dump,
        "damage": row.damage or None,
        "damaged_packs": one.is_damaged,
        "info": _content_json(row.info, row.dumped) if row.info is not None and row.dumped is not None else None,
        "frees_bytes": one.frees,
        "kept": _reasons_json(one.reasons),
        "goes": one.goes,
    }


def _reasons_json(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    return [{"kind": reason.kind, "text": reason.text} for reason in reasons]


def listed_text(dumps: Sequence[ListedDump], now: datetime, *, wide: bool) -> RenderableType:
    """One line for each dump, oldest first."""
    shown = [number for number, name in enumerate(COLUMNS) if wide or name in NARROW]
    rows = [[_cells(one, now)[number] for number in shown] for one in dumps]
    return table([COLUMNS[number] for number in shown], rows, RIGHT)


def _cells(one: ListedDump, now: datetime) -> list[Cell]:
    row, info = one.row, one.row.info
    if info is None:
        return [row.dump, *[""] * 8, Text("unreadable", "bold red")]
    started, stopped = datetime.fromisoformat(info.started), datetime.fromisoformat(info.stopped)
    return [
        row.dump,
        show_age((now - stopped).total_seconds()),
        info.name,
        _databases(one),
        info.format,
        show_duration((stopped - started).total_seconds()),
        show_size(info.source_bytes),
        show_size(info.stored_bytes),
        "?" if one.frees is None else show_size(one.frees),
        _why(one),
    ]


def _databases(one: ListedDump) -> str:
    info = one.row.info
    assert info is not None, "what cannot be read has no databases"
    if info.every_database:
        return f"all {info.databases}"
    return ", ".join(one.row.databases) + ("" if info.whole else " (in part)")


def _why(one: ListedDump) -> Text:
    if one.goes:
        return Text("no rule keeps it: it goes with the next prune", "yellow")
    label = one.row.info.label if one.row.info is not None else ""
    why = Text(", ".join(reason.text for reason in one.reasons), "dim")
    return Text("; ").join([why, Text(label, "italic")]) if label and why.plain else why or Text(label, "italic")


def remarks(dumps: Sequence[ListedDump]) -> list[Text]:
    """What needs an explanation."""
    warning = ("warning: ", "bold yellow")
    text = "has damaged packs, says a verify: pgkeep verify names them"
    marked = [Text.assemble(warning, f"{one.row.dump} {text}") for one in dumps if one.is_damaged]
    return [Text.assemble(warning, f"{one.row.dump}: {one.row.damage}") for one in dumps if one.row.damage] + marked


# --- prune


def plan_json(plan: DumpPlan) -> dict[str, Any]:
    """docs/json.md, prune."""
    return {
        "stays": [_staying_json(one) for one in plan.stays],
        "goes": [
            {
                "dump": one.dump, "name": one.fact.name, "started": json_time(one.fact.started),
                "note": one.note or None,
            }
            for one in plan.goes
        ],
    }  # fmt: skip


def _staying_json(one: StayingDump) -> dict[str, Any]:
    return {
        "dump": one.dump,
        "name": one.fact.name if one.fact else None,
        "started": json_time(one.fact.started) if one.fact else None,
        "reasons": _reasons_json(one.reasons),
    }


def stays_text(stays: Sequence[StayingDump]) -> RenderableType:
    rows = [(one.dump, one.fact.name if one.fact else "", _reasons(one)) for one in stays]
    return table(("DUMP STAYS", "SET", "WHY"), rows)


def _reasons(one: StayingDump) -> Text:
    text = ", ".join(reason.text for reason in one.reasons)
    return Text(text) if one.fact is not None else Text(text, "bold red")


def goes_text(goes: Sequence[GoingDump]) -> list[RenderableType]:
    """Every one of them by name: nothing is deleted that was not shown."""
    rows = [(one.dump, one.fact.name, show_time(one.fact.started), one.note) for one in goes]
    columns = ("DUMP GOES", "SET", "STARTED", "NOTE" if any(one.note for one in goes) else "")
    return [Text(f"No rule keeps {plural(len(goes), 'dump')}:"), table(columns, rows)]
