"""The answer of `verify`."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.catalog.verification import VerifyReport
from pgkeep.cli.render.tables import plural, table
from pgkeep.values.quantity import show_duration, show_size


def report_json(report: VerifyReport) -> dict[str, Any]:
    """docs/json.md, verify."""
    return {
        "sound": report.is_sound,
        "backups": [
            {"backup": one.backup, "sound": one.is_sound, "problems": list(one.problems)} for one in report.backups
        ],
        "dumps": [{"dump": one.backup, "sound": one.is_sound, "problems": list(one.problems)} for one in report.dumps],
        "wal_problems": list(report.wal_problems),
        "cluster_problems": list(report.cluster_problems),
        "packs": report.packs,
        "wal_objects": report.wal_objects,
        "bytes": report.bytes,
        "seconds": round(report.seconds, 3),
    }


def report_text(report: VerifyReport) -> RenderableType:
    """A line for each backup, every problem, and the sum."""
    sound, damaged = Text("sound", style="green"), Text("DAMAGED", style="bold red")
    rows = [(one.backup, sound if one.is_sound else damaged) for one in report.backups]
    dumps = [(one.backup, sound if one.is_sound else damaged) for one in report.dumps]
    tables: list[RenderableType] = [table(("BACKUP", "STATE"), rows)] if rows or not dumps else []
    if dumps:
        tables += [*([Text()] if tables else []), table(("DUMP", "STATE"), dumps)]
    problems = [f"{one.backup}: {problem}" for one in (*report.backups, *report.dumps) for problem in one.problems]
    lines = [Text.assemble(("damage: ", "bold red"), problem) for problem in _all(report, problems)]
    read = f"{plural(report.packs, 'pack')} and {plural(report.wal_objects, 'WAL file')}"
    took = f"{show_size(report.bytes)} in {show_duration(report.seconds)}"
    verdict = Text("everything is sound", style="bold green") if report.is_sound else _verdict(report)
    return Group(*tables, *lines, Text(), Text.assemble(verdict, f": {read} read, {took}"))


def _all(report: VerifyReport, of_backups: list[str]) -> list[str]:
    return [*report.cluster_problems, *of_backups, *report.wal_problems]


def _verdict(report: VerifyReport) -> Text:
    broken = sum(not one.is_sound for one in report.backups)
    text = f"{broken} of {plural(len(report.backups), 'backup')}"
    if report.dumps:
        text += f" and {sum(not one.is_sound for one in report.dumps)} of {plural(len(report.dumps), 'dump')}"
    return Text(f"damage found: {text} affected", style="bold red")
