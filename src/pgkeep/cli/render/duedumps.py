"""The answers of `dump --due`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.app.duedumps import DueDump, DueSet
from pgkeep.cli.render.tables import Cell, plural, table
from pgkeep.cli.render.times import json_time, show_time
from pgkeep.values.quantity import show_duration, show_size


def due_json(due: Sequence[DueSet]) -> list[dict[str, Any]]:
    """docs/json.md, dump."""
    return [
        {
            "name": one.settings.name,
            "database": one.settings.source,
            "schedule": one.settings.schedule.text if one.settings.schedule else None,
            "last": json_time(one.last),
            "due": one.is_due,
            "due_since": json_time(one.since),
            "next": json_time(one.next),
        }
        for one in due
    ]


def made_json(made: Sequence[DueDump]) -> list[dict[str, Any]]:
    """docs/json.md, dump."""
    return [
        {
            "name": one.due.settings.name,
            "dump": one.result.info.dump if one.result is not None and one.result.info is not None else None,
            "seconds": round(one.result.seconds, 3) if one.result is not None else None,
            "error": one.fault.as_json() if one.fault is not None else None,
        }
        for one in made
    ]


def due_text(due: Sequence[DueSet]) -> RenderableType:
    """Every set with a schedule: when it was dumped, and when it is due."""
    if not due:
        return Text("no set of dumps has a schedule in the configuration")
    rows = [
        (one.settings.name, one.settings.source or "all", _schedule(one), _moment(one.last), _state(one)) for one in due
    ]
    return table(("SET", "DATABASE", "SCHEDULE", "LAST", "DUE"), rows)


def _schedule(one: DueSet) -> str:
    return one.settings.schedule.text if one.settings.schedule is not None else ""


def _moment(moment: datetime | None) -> str:
    return show_time(moment) if moment is not None else "never"


def _state(one: DueSet) -> Cell:
    return Text("now", "bold") if one.is_due else _moment(one.next)


def made_text(due: Sequence[DueSet], made: Sequence[DueDump]) -> RenderableType:
    """What was dumped, and when the next one is due."""
    if not made:
        return Group(Text("nothing due"), due_text(due))
    rows = [(one.due.settings.name, *_outcome(one)) for one in made]
    failed = sum(one.fault is not None for one in made)
    total = f"{plural(len(made) - failed, 'dump')} made" + (f", {failed} failed" if failed else "")
    return Group(table(("SET", "DUMP", "STORED", "TOOK"), rows), Text(), Text(total))


def _outcome(one: DueDump) -> tuple[Cell, Cell, Cell]:
    if one.result is None or one.result.info is None:
        return Text("failed", "bold red"), "", ""
    info = one.result.info
    return info.dump, show_size(info.stored_bytes), show_duration(one.result.seconds)
