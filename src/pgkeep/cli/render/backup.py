"""The answer of `backup`, and its plan."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.app.backup import BackupPlan
from pgkeep.app.place import Place
from pgkeep.backup.job import BackupResult
from pgkeep.cli.render.info import info_json
from pgkeep.cli.render.tables import facts, plural
from pgkeep.values.lsn import Lsn
from pgkeep.values.quantity import show_duration, show_size


def plan_json(plan: BackupPlan) -> dict[str, Any]:
    """docs/json.md, backup --dry-run."""
    return {
        "dry_run": True,
        "data_directory": plan.data_directory,
        "server_version": plan.server_version,
        "files": plan.files,
        "bytes": plan.bytes,
        "tablespaces": plan.tablespaces,
        "processes": plan.request.processes,
        "label": plan.request.label,
        "checkpoint": "fast" if plan.request.fast_checkpoint else "spread",
    }


def plan_text(plan: BackupPlan, place: Place) -> RenderableType:
    rows = [
        ("server", f"PostgreSQL {plan.server_version}, {plan.data_directory}"),
        ("to be read", f"{show_size(plan.bytes)} in {plural(plan.files, 'file')}"),
        ("tablespaces", str(plan.tablespaces)),
        ("repository", place.repository.store.url),
        ("processes", str(plan.request.processes)),
    ]
    return Group(Text(f"a backup of {place.cluster.name} would be taken; nothing was done"), facts(rows))


def result_json(result: BackupResult) -> dict[str, Any]:
    """docs/json.md, backup."""
    return {
        "dry_run": False,
        "backup": result.info.backup,
        "info": info_json(result.info),
        "seconds": round(result.seconds, 3),
        "checkpoint_seconds": round(result.checkpoint_seconds, 3),
        "archive_seconds": round(result.archive_seconds, 3),
    }


def result_text(result: BackupResult) -> RenderableType:
    info = result.info
    share = f" ({100 * info.stored_bytes // info.logical_bytes} %)" if info.logical_bytes else ""
    waits = f"checkpoint {show_duration(result.checkpoint_seconds)}, WAL {show_duration(result.archive_seconds)}"
    rows = [
        ("size", f"{show_size(info.logical_bytes)} in {plural(info.files, 'file')}"),
        ("stored", f"{show_size(info.stored_bytes)}{share}: {_how(result)}"),
        ("WAL", f"{Lsn(info.start_lsn)} to {Lsn(info.stop_lsn)} on timeline {info.timeline}, archived"),
        ("took", f"{show_duration(result.seconds)}, of it waiting for the {waits}"),
    ]
    head = Text.assemble(("backup ", ""), (info.backup, "bold"), f" of {info.cluster_name} is complete")
    if not info.bad_pages:
        return Group(head, facts(rows))
    bad = f"{plural(info.bad_pages, 'page')} of it were damaged in the server already"
    return Group(head, facts(rows), Text.assemble(("warning: ", "bold yellow"), bad))


def _how(result: BackupResult) -> str:
    info = result.info
    if info.base is None:
        return f"everything ({info.method_reason})" if info.method_reason else "everything"
    return f"{info.pages_changed:,} changed of {info.pages:,} pages, the others are in earlier backups' packs"
