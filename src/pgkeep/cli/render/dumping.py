"""The plan of a dump and its result."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.app.dump import DumpResult
from pgkeep.cli.render.dumps import info_json
from pgkeep.cli.render.tables import Cell, facts, plural
from pgkeep.events import Warned
from pgkeep.logical.commands import content_options
from pgkeep.logical.plan import DumpPlan
from pgkeep.values.quantity import show_duration, show_size

_SHOWN = 12
"""Databases that are named in a text, at most."""


def plan_json(plan: DumpPlan) -> dict[str, Any]:
    """docs/json.md, dump."""
    scratch = plan.scratch
    return {
        "name": plan.request.name,
        "to": plan.to,
        "server": {"version": plan.server.version, "in_recovery": plan.server.in_recovery},
        "databases": [
            {"name": one.name, "bytes": one.size, "chosen_bytes": one.chosen, "tables": one.tables}
            for one in plan.databases
        ],
        "skipped": [{"name": one.name, "why": one.why} for one in plan.skipped],
        "programs": {
            "version": plan.tools.programs.version,
            "directory": str(plan.tools.programs.bindir),
            "reason": plan.tools.reason,
        },
        "format": plan.format,
        "jobs": plan.jobs,
        "compression": plan.compression,
        "options": content_options(plan),
        "scratch": None
        if scratch is None
        else {
            "path": scratch.parent,
            "in_memory": scratch.room.in_memory,
            "may_swap": scratch.room.may_swap,
            "free": scratch.room.free,
            "expected": scratch.expected,
        },
        "lock_timeout": plan.request.lock_timeout.total_seconds() if plan.request.lock_timeout is not None else None,
        "role_passwords": plan.with_passwords,
        "warnings": [{"code": one.code, "text": one.text, "hint": one.hint or None} for one in plan.warnings],
    }


def plan_text(plan: DumpPlan, url: str | None) -> RenderableType:
    """What would be dumped, by which programs, where to, and what lies where on the way."""
    what = "every database" if plan.request.database is None else f"database {plan.request.database}"
    head = Text.assemble("dump of ", (what, "bold"), f", set {plan.request.name}")
    rows: list[tuple[str, Cell]] = [
        ("server", f"PostgreSQL {plan.server.version}{', a standby' if plan.server.in_recovery else ''}"),
        ("to be dumped", _content(plan)),
        *_several(plan),
        ("programs", f"{plan.tools}: {plan.tools.reason}"),
        ("format", f"{plan.format}, {_jobs(plan)}, {_compression(plan)}"),
        ("options", " ".join(plan.request.chosen.options()) or "none: all of it"),
        ("globals", "roles and tablespaces" + ("" if plan.with_passwords else ", without passwords")),
        ("goes to", plan.to or f"the repository {url}"),
        ("on the way", _way(plan)),
    ]
    return Group(head, facts(rows), *(_warning(one) for one in plan.warnings))


def _content(plan: DumpPlan) -> str:
    tables = sum(one.tables for one in plan.databases)
    chosen = sum(one.chosen for one in plan.databases)
    return f"{show_size(chosen)} in {plural(tables, 'table')}, of {show_size(plan.size)}"


def _several(plan: DumpPlan) -> list[tuple[str, Cell]]:
    if plan.request.database is not None:
        return []
    names = [f"{one.name} ({show_size(one.size)})" for one in plan.databases]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    rows: list[tuple[str, Cell]] = [
        ("databases", ", ".join([*names[:_SHOWN], *more])),
        ("consistent", "each database in itself: every one has a snapshot of its own"),
    ]
    if plan.skipped:
        rows.append(("left out", ", ".join(f"{one.name} ({one.why})" for one in plan.skipped)))
    return rows


def _jobs(plan: DumpPlan) -> str:
    return plural(plan.jobs, "job") if plan.format == "directory" else "one process"


def _compression(plan: DumpPlan) -> str:
    if plan.compression != "none":
        return f"compressed by pg_dump with {plan.compression}"
    return "not compressed" if plan.to is not None else "compressed by the repository"


def _way(plan: DumpPlan) -> str:
    if plan.to is not None:
        return f"{plan.to}.pgkeep-partial, renamed when all of it is durable"
    scratch = plan.scratch
    if scratch is None:
        return "a pipe from pg_dump to the repository: nothing lies anywhere"
    where = "in memory" if scratch.room.in_memory else "on a disk"
    return (
        f"{scratch.parent} ({where}, {show_size(scratch.room.free)} free): about {show_size(scratch.expected)} at one"
        " time, each file is stored and removed as soon as pg_dump has closed it"
    )


def _warning(warning: Warned) -> Text:
    said = Text.assemble(("warning: ", "bold yellow"), warning.text)
    return said.append(f"\nhint: {warning.hint}") if warning.hint else said


def result_json(result: DumpResult) -> dict[str, Any]:
    """docs/json.md, dump."""
    info, written = result.info, result.written
    return {
        "dry_run": False,
        "plan": plan_json(result.plan),
        "dump": info.dump if info is not None else None,
        "info": info_json(info) if info is not None else None,
        "paths": list(written.paths) if written is not None else [],
        "bytes": written.bytes if written is not None else None,
        "seconds": round(result.seconds, 3),
    }


def result_text(result: DumpResult) -> RenderableType:
    plan, info, written = result.plan, result.info, result.written
    rows: list[tuple[str, Cell]] = [
        ("source", f"PostgreSQL {plan.server.version}, {_names(plan)}, {show_size(plan.size)}"),
        ("programs", str(plan.tools)),
    ]
    if info is not None:
        head = Text.assemble("dump ", (info.dump, "bold"), f" of {info.cluster_name} is complete")
        rows.append(("set", info.name))
        rows.append(("size", f"{show_size(info.logical_bytes)} in {plural(info.members, 'file')}"))
        rows.append(("stored", show_size(info.stored_bytes)))
    else:
        assert written is not None
        head = Text.assemble("dump ", (written.paths[-1], "bold"), " is complete")
        rows.append(("size", f"{show_size(written.bytes)} in {plural(written.files, 'file')}"))
        if written.paths[:-1]:
            rows.append(("beside it", ", ".join(written.paths[:-1])))
    rows.append(("globals", "roles and tablespaces" + ("" if plan.with_passwords else ", without passwords")))
    rows.append(("took", show_duration(result.seconds)))
    return Group(head, facts(rows))


def _names(plan: DumpPlan) -> str:
    if plan.request.database is not None:
        return f"database {plan.request.database}"
    return plural(len(plan.databases), "database")
