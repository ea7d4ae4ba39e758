"""The answer of `init`: what there is now, and what is left to do."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from pgkeep.app.initialise import InitReport
from pgkeep.cli.render.tables import facts


def init_json(report: InitReport, config: str, *, wrote_config: bool, dry_run: bool) -> dict[str, Any]:
    """docs/json.md, init."""
    return {
        "dry_run": dry_run,
        "config": {"path": config, "written": wrote_config},
        "repository": {"url": report.url, "made": report.made_repository},
        "cluster": {
            "name": report.cluster_name,
            "uuid": report.cluster_uuid,
            "system_id": str(report.facts.system_identifier),
            "server_version": report.facts.version_num,
            "registered": report.registered,
            "adopted_timeline": report.adoption.timeline if report.adoption else None,
        },
        "statements": [{"sql": one.sql, "why": one.why, "effect": one.effect} for one in report.setup.statements],
        "warnings": list(report.setup.warnings),
    }


def init_text(report: InitReport, config: str, *, wrote_config: bool, dry_run: bool) -> RenderableType:
    """Facts first, then the SQL, then the next command."""
    done = "would be" if dry_run else "now"
    rows = [
        ("server", f"PostgreSQL {report.facts.version}, system identifier {report.facts.system_identifier}"),
        ("data directory", report.facts.data_directory),
        ("repository", f"{report.url} ({_state(report.made_repository, done, 'made')})"),
        ("cluster", f"{report.cluster_name} ({_state(report.registered, done, 'registered')})"),
        ("configuration", f"{config} ({_state(wrote_config, done, 'written')})"),
    ]
    if report.adoption:
        rows.append(("archive", f"timeline {report.adoption.timeline} is this server's to archive"))
    return Group(facts(rows), Text(), *_left_to_do(report))


def _state(changed: bool, done: str, what: str) -> str:
    return f"{done} {what}" if changed else f"already {what}"


def _left_to_do(report: InitReport) -> list[RenderableType]:
    if report.setup.is_complete:
        return [Text("The server archives into this repository. Next: pgkeep backup")]
    lines: list[RenderableType] = [Text("The server still needs this, as a superuser:", style="bold"), Text()]
    for one in report.setup.statements:
        lines += [Padding(Text(f"-- {one.why}", style="dim"), (0, 0, 0, 2)), Padding(Text(one.sql), (0, 0, 0, 2))]
    if any(one.effect == "reload" for one in report.setup.statements):
        lines.append(Padding(Text("SELECT pg_reload_conf();"), (0, 0, 0, 2)))
    lines += [Text.assemble(("warning: ", "bold yellow"), warning) for warning in report.setup.warnings]
    then = (
        "Then restart the server, once: archive_mode and wal_level are read at its start. " * report.setup.needs_restart
    )
    return [*lines, Text(), Text(f"{then}Next: pgkeep init (to check), pgkeep backup")]
