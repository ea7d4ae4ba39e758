"""Results for people (a table of medians and paired ratios) and for machines (JSON with every single run)."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bounds import Bound
from benchmarks.race import Course, Measure, Result, Run, median, paired_ratios


@dataclass(frozen=True, slots=True)
class Machine:
    """`memory` in bytes."""

    cores: int
    processor: str
    memory: int
    kernel: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        return cls(
            cores=len(os.sched_getaffinity(0)),
            processor=model[1] if model else platform.machine(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            kernel=platform.release(),
            python=platform.python_version(),
        )


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    measure: Measure
    form: str
    unit: float = 1.0


_COLUMNS = (
    _Column("wall s", lambda run: run.cost.wall, ".2f"),
    _Column("CPU s", lambda run: run.cost.cpu, ".2f"),
    _Column("PSS MB", lambda run: run.cost.peak_pss, ".0f", 1e6),
    _Column("other CPU s", lambda run: run.other_cpu, ".2f"),
)
_BACKUP_COLUMNS = (
    _Column("stored MB", lambda run: run.stored, ".0f", 1e6),
    _Column("ckpt s", lambda run: run.phases.checkpoint, ".2f"),
    _Column("WAL wait s", lambda run: run.phases.archive, ".2f"),
    _Column("srv CPU s", lambda run: run.server_cpu, ".2f"),
)
_RECOVERY_COLUMNS = (_Column("in restore_command s", lambda run: run.phases.restoring, ".2f"),)
_MORE_COLUMNS = {"backup": _BACKUP_COLUMNS, "incremental": _BACKUP_COLUMNS, "recovery": _RECOVERY_COLUMNS}
_RATIOS = (
    ("wall", lambda run: run.cost.wall),
    ("CPU", lambda run: run.cost.cpu),
)


def show(result: Result, console: Console) -> None:
    """Medians of every contender, and its paired ratios to the first contender."""
    columns = _COLUMNS + _MORE_COLUMNS.get(result.race, ())
    reference = result.names()[0]
    table = Table(
        title=f"{result.race}: medians of {len(result.of(reference))} runs, paired ratios to {reference} (range)"
    )
    table.add_column("tool")
    for column in columns:
        table.add_column(column.title, justify="right")
    for title, _ in _RATIOS:
        table.add_column(f"{title} ratio", justify="right")
    for name in result.names():
        cells = [_cell(median(result.of(name), column.measure), column) for column in columns]
        table.add_row(name, *cells, *(_ratio(result, name, reference, measure) for _, measure in _RATIOS))
    console.print(table)


def show_bounds(found: Sequence[Bound], console: Console) -> None:
    table = Table(title="bare bounds: medians")
    for title in ("work", "wall s", "CPU s", "in MB", "out MB", "MB/s"):
        table.add_column(title, justify="left" if title == "work" else "right")
    for work in dict.fromkeys(bound.work for bound in found):
        same = [bound for bound in found if bound.work == work]
        table.add_row(
            work,
            f"{statistics.median(bound.cost.wall for bound in same):.2f}",
            f"{statistics.median(bound.cost.cpu for bound in same):.2f}",
            f"{same[0].read / 1e6:.0f}",
            f"{same[0].written / 1e6:.0f}",
            f"{statistics.median(bound.rate for bound in same) / 1e6:.0f}",
        )
    console.print(table)


def write_json(path: Path, course: Course, results: Sequence[Result], found: Sequence[Bound]) -> None:
    """Everything that was measured; the lines that the tools printed are left out."""
    document = {
        "schema": 1,
        "machine": asdict(Machine.here()),
        "data": {"bytes": course.source.size, "postgres": course.source.postgres},
        "contenders": {one.name: {"version": one.version, "tuning": one.tuning} for one in course.field},
        "races": {result.race: [_run(run) for run in result.runs] for result in results},
        "bounds": [_without_lines(asdict(bound)) for bound in found],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _run(run: Run) -> dict[str, object]:
    return _without_lines(asdict(run))


def _without_lines(record: dict[str, object]) -> dict[str, object]:
    cost = record["cost"]
    assert isinstance(cost, dict)
    del cost["lines"]
    return record


def _cell(value: float | None, column: _Column) -> str:
    return "-" if value is None else format(value / column.unit, column.form)


def _ratio(result: Result, name: str, reference: str, measure: Measure) -> str:
    ratios = paired_ratios(result, name, reference, measure)
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else "-"
