"""The plan of `prune`, and what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.cli.render import dumps
from pgkeep.cli.render.tables import Cell, facts, plural, table
from pgkeep.cli.render.times import json_time, show_time
from pgkeep.repo.lease import SeenLease
from pgkeep.repo.sweep import SweepResult, Swept
from pgkeep.retention.carry import PruneResult
from pgkeep.retention.needs import Window
from pgkeep.retention.plan import Freed, Going, GoingWal, RetentionPlan, Staying
from pgkeep.retention.policy import show_span
from pgkeep.values.quantity import show_duration, show_size

WIDE = 100
"""Columns of a terminal that shows when a backup began besides its name."""
_SHOWN = 12
"""Ranges of WAL that are listed one by one."""


def plan_json(plan: RetentionPlan, zone: str) -> dict[str, Any]:
    """docs/json.md, prune."""
    policy = plan.policy
    return {
        "policy": None if policy is None else {
            **policy.counts, "last": policy.last, "wal": None if policy.wal is None else policy.wal.total_seconds(),
        },
        "timezone": zone,
        "counted_from": json_time(plan.anchor),
        "stays": [_staying_json(one) for one in plan.stays],
        "goes": [{"backup": one.backup, "started": json_time(one.facts.started), "note": one.note or None}
                 for one in plan.goes],
        "dumps": dumps.plan_json(plan.dumps),
        "windows": [_window_json(one) for one in plan.windows],
        "wal": [_wal_json(one) for one in plan.wal_goes],
        "frees": _freed_json(plan.freed),
        "warnings": list(plan.warnings),
    }  # fmt: skip


def _staying_json(one: Staying) -> dict[str, Any]:
    return {
        "backup": one.backup,
        "started": json_time(one.facts.started) if one.facts else None,
        "reasons": [{"kind": reason.kind, "text": reason.text} for reason in one.reasons],
    }


def _window_json(one: Window) -> dict[str, Any]:
    return {
        "system_id": str(one.system_id),
        "timeline": one.timeline,
        "from_time": json_time(one.start),
        "backup": one.base,
        "first": one.first_segment or None,
        "filled": one.is_filled,
    }


def _wal_json(one: GoingWal) -> dict[str, Any]:
    return {
        "system_id": str(one.system_id), "timeline": one.timeline, "first": one.first_name, "last": one.last_name,
        "segments": one.segments, "bytes": one.bytes,
    }  # fmt: skip


def _freed_json(freed: Freed) -> dict[str, Any]:
    return {
        "packs": freed.packs, "pack_bytes": freed.pack_bytes, "segments": freed.segments, "wal_bytes": freed.wal_bytes
    }  # fmt: skip


def result_json(result: PruneResult) -> dict[str, Any]:
    """docs/json.md, prune."""
    return {
        "deleted": list(result.backups),
        "deleted_dumps": list(result.dumps),
        "in_use": list(result.in_use),
        "held": list(result.held),
        "segments": result.segments,
        "wal_bytes": result.wal_bytes,
        "sweep": None if result.sweep is None else _sweep_json(result.sweep),
        "ready_in": None if result.sweep is None else round(result.sweep.ready_in, 3),
    }


def _sweep_json(sweep: SweepResult) -> dict[str, Any]:
    swept = {"condemned": sweep.condemned, "deleted": sweep.deleted, "waiting": sweep.waiting, "owned": sweep.owned}
    found = {name: {"packs": one.packs, "bytes": one.bytes} for name, one in swept.items()}
    owners = [
        {
            "purpose": lease.info.purpose if lease.info else None,
            "holder": lease.info.holder if lease.info else None,
            "until": json_time(lease.until),
        }
        for lease in sweep.owners
    ]
    return found | {"repacked": {"packs": sweep.repacked.packs, "bytes": sweep.repacked.bytes}, "owners": owners}


def plan_text(plan: RetentionPlan, cluster: str, zone: str, width: int) -> RenderableType:
    """What stays and why, what goes, and what that frees."""
    if not plan.lets_go:
        text = Text(f"nothing of {cluster} is ever deleted: the configuration has no line keep for it")
        return Group(text, _hint('keep = { daily = 7, weekly = 4, monthly = 12, wal = "7d" }'))
    keeps = f" keeps {plan.policy.describe()}" if plan.policy is not None else " keeps every backup, and all WAL"
    parts: list[RenderableType] = [
        Text.assemble("cluster ", (cluster, "bold"), f"{keeps}; days are those of {zone}"), Text()
    ]  # fmt: skip
    if plan.stays and plan.policy is not None:
        parts += [_stays(plan.stays, width), Text()]
    if plan.dumps.stays:
        parts += [dumps.stays_text(plan.dumps.stays), Text()]
    if plan.goes:
        parts += [Text(f"No rule keeps {plural(len(plan.goes), 'backup')}:"), _goes(plan.goes, width), Text()]
    if plan.dumps.goes:
        parts += [*dumps.goes_text(plan.dumps.goes), Text()]
    parts += [facts([*_windows(plan), *_wal(plan), *_frees(plan)])]
    return Group(*parts, *(_warning(text) for text in plan.warnings))


def nothing_goes(plan: RetentionPlan) -> bool:
    """True when there is nothing to ask about."""
    return not plan.goes and not plan.wal_goes and not plan.dumps.goes


def question(plan: RetentionPlan) -> str:
    """What is asked before anything is deleted."""
    parts = [plural(len(plan.goes), "backup")] if plan.goes else []
    parts += [plural(len(plan.dumps.goes), "dump")] if plan.dumps.goes else []
    parts += [plural(plan.freed.segments, "WAL segment")] if plan.wal_goes else []
    *first, last = parts
    return f"delete {', '.join(first)} and {last}?" if first else f"delete {last}?"


def _stays(stays: Sequence[Staying], width: int) -> RenderableType:
    rows = [(one.backup, _started(one.facts.started if one.facts else None), _why(one)) for one in stays]
    return _columns(("STAYS", "STARTED", "WHY"), rows, width)


def _why(one: Staying) -> Cell:
    text = ", ".join(reason.text for reason in one.reasons)
    return Text(text) if one.facts is not None else Text(text, "bold red")


def _goes(goes: Sequence[Going], width: int) -> RenderableType:
    """Every one of them by name: nothing is deleted that was not shown."""
    rows = [(one.backup, _started(one.facts.started), one.note) for one in goes]
    return _columns(("GOES", "STARTED", "NOTE" if any(one.note for one in goes) else ""), rows, width)


def _columns(columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> RenderableType:
    """All of them, or without the second on a narrow terminal: the backup's name says it too."""
    if width >= WIDE:
        return table(columns, rows)
    return table([columns[0], columns[2]], [(row[0], row[2]) for row in rows])


def _started(moment: datetime | None) -> str:
    return show_time(moment) if moment is not None else ""


def _windows(plan: RetentionPlan) -> Iterator[tuple[str, Cell]]:
    for window in plan.windows:
        on = f" on timeline {window.timeline}" if len(plan.windows) > 1 else ""
        if window.base is None:
            yield "WAL window", f"no backup reaches it{on}: all of its WAL stays"
        elif window.start is None:
            yield "WAL stays", f"from {window.first_segment}{on} on, where the oldest kept backup begins"
        else:
            span = show_span(plan.policy.wal) if plan.policy is not None and plan.policy.wal is not None else ""
            whole = "" if window.is_filled else f", and is not {span} long yet"
            yield "WAL window", f"from {show_time(window.start)}{on}{whole}: its WAL begins with {window.first_segment}"


def _wal(plan: RetentionPlan) -> Iterator[tuple[str, Cell]]:
    for run in plan.wal_goes[:_SHOWN]:
        names = run.first_name if run.first == run.last else f"{run.first_name} to {run.last_name}"
        yield "WAL that goes", f"{names}: {plural(run.segments, 'segment')}, {show_size(run.bytes)}"
    rest = plan.wal_goes[_SHOWN:]
    if rest:
        segments = plural(sum(run.segments for run in rest), "segment")
        yield (
            "",
            f"and {len(rest)} more ranges: {segments}, {show_size(sum(run.bytes for run in rest))} (--json lists all)",
        )


def _frees(plan: RetentionPlan) -> Iterator[tuple[str, Cell]]:
    freed = plan.freed
    if nothing_goes(plan):
        needed = "every backup, every dump" if plan.dumps.stays else "every backup"
        yield "frees", f"nothing: {needed} and all WAL is needed"
        return
    wal = f"WAL of {show_size(freed.wal_bytes)}"
    if freed.packs is None or freed.pack_bytes is None:
        yield "frees", f"{wal}; no packs, while a manifest cannot be read"
    else:
        yield "frees", f"{plural(freed.packs, 'pack')} of {show_size(freed.pack_bytes)}, and {wal}"


def result_text(result: PruneResult, now: datetime) -> RenderableType:
    """What is gone, and what is still waiting."""
    rows: list[tuple[str, Cell]] = [("deleted", _deleted(result))]
    rows += [("still read", f"{one}: a later prune deletes it") for one in result.in_use]
    rows += [("held meanwhile", f"{one}: it stays") for one in result.held]
    if result.sweep is None:
        rows.append(("packs", Text("none was deleted: a manifest cannot be read", "bold red")))
    else:
        rows += _sweep_rows(result.sweep, now)
    return facts(rows)


def _deleted(result: PruneResult) -> str:
    if not result.backups and not result.segments and not result.dumps:
        return "no backup and no WAL"
    backups = plural(len(result.backups), "backup")
    if result.dumps:
        backups += f", {plural(len(result.dumps), 'dump')}"
    return f"{backups}, {plural(result.segments, 'WAL segment')} of {show_size(result.wal_bytes)}"


def _sweep_rows(sweep: SweepResult, now: datetime) -> Iterator[tuple[str, Cell]]:
    if sweep.deleted.packs:
        yield "deleted", f"{_packs(sweep.deleted)} that nothing needs, condemned before"
    if sweep.repacked.packs:
        moved = f"{show_size(sweep.repacked.bytes)} that are still needed of {plural(sweep.repacked.packs, 'pack')}"
        yield "repacked", f"{moved} under half full; these packs are deleted later"
    if sweep.waiting.packs:
        # Rounded up, so that whoever comes at the minute that is said finds them ready.
        when = show_time(now + timedelta(seconds=sweep.ready_in + 60))[:16]
        wait = f"in {show_duration(sweep.ready_in)}" if sweep.ready_in else "by the next prune"
        yield "condemned", f"{_packs(sweep.waiting)}: deleted by a prune after {when} ({wait})"
    if sweep.owned.packs:
        yield "left alone", f"{_packs(sweep.owned)} that a job which runs may need, or one that was killed lately:"
        for lease in sweep.owners:
            yield "", f"{_holder(lease)}, free after {show_time(lease.until + timedelta(minutes=1))[:16]} if it is dead"


def _holder(lease: SeenLease) -> str:
    """'backup on db1, process 4711'."""
    if lease.info is None:
        return "a job whose lease cannot be read"
    host, _, process = lease.info.holder.partition(" ")
    return f"{lease.info.purpose} on {host}, process {process}" if process else f"{lease.info.purpose} on {host}"


def _packs(swept: Swept) -> str:
    return f"{plural(swept.packs, 'pack')} of {show_size(swept.bytes)}"


def _warning(text: str) -> Text:
    return Text.assemble(("warning: ", "bold yellow"), text)


def _hint(text: str) -> Text:
    return Text.assemble(("hint: ", "bold"), text)
