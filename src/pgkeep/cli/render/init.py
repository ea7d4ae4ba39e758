"""The answer of `init`: what there is now, and what is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from pgkeep.app.initialise import InitReport, storage_warnings
from pgkeep.app.settle import Settled
from pgkeep.cli.render.tables import facts
from pgkeep.values.quantity import show_duration, show_size
from pgkeep.wal.proof import Proof
from pgkeep.wal.setup import Statement


@dataclass(frozen=True, slots=True)
class Shown:
    """What was found and made, and the configuration file that belongs to it."""

    report: InitReport
    config: str
    wrote_config: bool
    dry_run: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.report.setup.warnings, *storage_warnings(self.report))


def init_json(shown: Shown, settled: Settled) -> dict[str, Any]:
    """docs/json.md, init."""
    report, storage = shown.report, shown.report.storage
    return {
        "dry_run": shown.dry_run,
        "config": {"path": shown.config, "written": shown.wrote_config},
        "repository": {
            "url": report.url,
            "made": report.made_repository,
            "free_bytes": storage.free,
            "same_disk": storage.same_disk,
        },
        "cluster": {
            "name": report.cluster_name,
            "uuid": report.cluster_uuid,
            "system_id": str(report.facts.system_identifier),
            "server_version": report.facts.version_num,
            "database_bytes": storage.database_size,
            "registered": report.registered,
            "adopted_timeline": report.adoption.timeline if report.adoption else None,
        },
        "applied": _statements_json(settled.applied),
        "statements": _statements_json(settled.setup.statements),
        "advice": _statements_json(settled.setup.advice),
        "pending_restart": list(settled.setup.pending),
        "restart": settled.restart or None,
        "proof": {"segment": settled.proof.segment, "seconds": settled.proof.seconds} if settled.proof else None,
        "warnings": list(shown.warnings),
    }


def _statements_json(statements: Sequence[Statement]) -> list[dict[str, str]]:
    return [{"sql": one.sql, "why": one.why, "effect": one.effect} for one in statements]


def init_text(shown: Shown, settled: Settled | None) -> RenderableType:
    """Facts first, then what is left to do; `settled` is None when that came to a fault, which is shown after this."""
    report, storage = shown.report, shown.report.storage
    done = "would be" if shown.dry_run else "now"
    free = "" if storage.free is None else f", {show_size(storage.free)} free"
    rows = [
        ("server", f"PostgreSQL {report.facts.version}, system identifier {report.facts.system_identifier}"),
        ("data directory", f"{report.facts.data_directory}, {show_size(storage.database_size)} of databases"),
        ("repository", f"{report.url} ({_state(report.made_repository, done, 'made')}){free}"),
        ("cluster", f"{report.cluster_name} ({_state(report.registered, done, 'registered')})"),
        ("configuration", f"{shown.config} ({_state(shown.wrote_config, done, 'written')})"),
    ]
    if report.adoption:
        rows.append(("archive", f"timeline {report.adoption.timeline} is this server's to archive"))
    warnings = [Text.assemble(("warning: ", "bold yellow"), warning) for warning in shown.warnings]
    rest = [] if settled is None else [*_left_to_do(report, settled), *_advice(settled.setup.advice)]
    return Group(facts(rows), *warnings, *rest)


def _state(changed: bool, done: str, what: str) -> str:
    return f"{done} {what}" if changed else f"already {what}"


def _left_to_do(report: InitReport, settled: Settled) -> list[RenderableType]:
    lines: list[RenderableType] = [Text()]
    if settled.applied:
        lines += [Text("Changed in the server:", style="bold"), *_sql(settled.applied), Text()]
    if settled.setup.is_complete:
        return [*lines, Text(_all_set(report, settled.proof))]
    if settled.setup.statements:
        lines += [Text("The server still needs this, as a superuser:", style="bold"), *_sql(settled.setup.statements)]
        if any(one.effect == "reload" for one in settled.setup.statements):
            lines.append(Padding(Text("SELECT pg_reload_conf();"), (0, 0, 0, 2)))
        lines += [Text(), Text("Run it with psql, or let pgkeep do it: pgkeep init --apply")]
    if settled.restart:
        lines.append(Text("The server needs one restart, when it suits you: archive_mode and wal_level are read then."))
        lines.append(Padding(Text(settled.restart, style="bold"), (0, 0, 0, 2)))
    return [*lines, Text("Next: pgkeep init (to check), pgkeep backup")]


def _all_set(report: InitReport, proof: Proof | None) -> str:
    if proof is None and report.facts.in_recovery:
        return "All set here; this server is a standby, so backups are taken of its primary."
    if proof is None:
        return "All set: the server is told to archive into this repository. Next: pgkeep backup"
    took = f"arrived in {show_duration(proof.seconds)}" if proof.seconds is not None else "is there"
    return f"All set: the server archives into this repository ({proof.segment} {took}). Next: pgkeep backup"


def _advice(advice: Sequence[Statement]) -> list[RenderableType]:
    if not advice:
        return []
    return [Text(), Text("Worth a decision (pgkeep works without):", style="bold"), *_sql(advice)]


def _sql(statements: Sequence[Statement]) -> list[RenderableType]:
    """Each statement below its reason; a reason that serves several stands once."""
    lines: list[RenderableType] = []
    why = ""
    for one in statements:
        if one.why != why:
            lines.append(Padding(Text(f"-- {one.why}", style="dim"), (0, 0, 0, 2)))
            why = one.why
        lines.append(Padding(Text(one.sql), (0, 0, 0, 2)))
    return lines
