"""The answers of `hold`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.cli.render.tables import table
from pgkeep.cli.render.times import show_time
from pgkeep.format.deletion import PinInfo
from pgkeep.retention.holds import Held


def pin_json(pin: PinInfo) -> dict[str, Any]:
    """docs/json.md, hold."""
    return {
        "backup": pin.backup,
        "note": pin.why or None,
        "until": pin.until,
        "by": pin.by,
        "created": pin.created or None,
        "windows": [
            {"from": one.begin, "to": one.end, "timeline": one.timeline, "note": one.why} for one in pin.windows
        ],
    }


def held_json(found: Sequence[Held]) -> list[dict[str, Any]]:
    return [{**pin_json(one.pin), "exists": one.exists} for one in found]


def held_text(found: Sequence[Held], cluster: str) -> RenderableType:
    """One line for each thing that is held."""
    if not found:
        return Text(f"nothing of {cluster} is held")
    rows = [(one.backup, what, one.pin.by, note) for one in found for what, note in _things(one)]
    return table(("WHAT", "HELD", "BY", "WHY"), rows)


def _things(one: Held) -> list[tuple[str | Text, str]]:
    if not one.exists:
        return [(Text(f"the {one.backup.noun} is gone", "bold red"), one.pin.why)]
    until = f"until {_moment(one.pin.until)}" if one.pin.until else f"the {one.backup.noun}"
    things: list[tuple[str | Text, str]] = [(until, one.pin.why)] if one.pin.why or not one.pin.windows else []
    return [*things, *((_span(window.begin, window.end), window.why) for window in one.pin.windows)]


def pinned_text(pin: PinInfo, *, dry_run: bool) -> RenderableType:
    """What is held now."""
    would = "would be held" if dry_run else "is held"
    window = pin.windows[-1] if pin.windows else None
    if window is None:
        return Text.assemble((pin.backup, "bold"), f" {would}")
    lines = Text.assemble(
        "every moment ", (_span(window.begin, window.end), "bold"), f" {would}, from the backup {pin.backup} on"
    )
    return Group(lines)


def released_text(pin: PinInfo) -> RenderableType:
    """What is held no longer."""
    lines = [Text.assemble("released ", (pin.backup, "bold"), f": {pin.why}" if pin.why else "")]
    lines += [Text(f"released {_span(one.begin, one.end)}: {one.why}") for one in pin.windows]
    return Group(*lines, Text("what no rule keeps goes with the next: pgkeep prune"))


def _span(begin: str, end: str) -> str:
    return f"{_moment(begin)} to {_moment(end)}"


def _moment(text: str) -> str:
    with suppress(ValueError):
        return show_time(datetime.fromisoformat(text))
    return text
