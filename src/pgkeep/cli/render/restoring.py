"""The plan of a restore and its result: to be read at three in the morning."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.app.restore import RestoreResult
from pgkeep.catalog.backups import stopped_at
from pgkeep.cli.render.tables import Cell, facts, plural
from pgkeep.cli.render.times import json_time
from pgkeep.pg.waldump import TransactionEnd
from pgkeep.restore.delta import Differences
from pgkeep.restore.plan import RestorePlan, show_in
from pgkeep.restore.present import How, PresentWal
from pgkeep.restore.settings import Action
from pgkeep.restore.standby import Standby
from pgkeep.restore.start import LOG_NAME, Recovered, describe
from pgkeep.restore.stops import Distance, distance
from pgkeep.restore.target import TargetKind
from pgkeep.values.quantity import show_duration, show_size

_THEN = {
    Action.PROMOTE: "it is opened for reading and writing, on a timeline of its own",
    Action.PAUSE: "it stays read-only there, until pg_wal_replay_resume() or a promotion",
    Action.SHUTDOWN: "it shuts down there",
}


def plan_text(plan: RestorePlan) -> RenderableType:
    """What will be restored, to which moment, from what, where to, and what will not be touched."""
    head = Text.assemble("restore of ", (plan.backup.cluster_name, "bold"), " to ", (_target(plan), "bold"))
    rows = [*_moment_rows(plan), *_source_rows(plan), *_place_rows(plan), *_over_rows(plan)]
    return Group(head, facts(rows))


def _target(plan: RestorePlan) -> str:
    target = plan.target
    if target.kind is not TargetKind.TIME or target.time is None:
        return target.describe()
    before = "" if target.inclusive else "just before "
    return f"{before}{show_in(plan.zone, target.time)} ({plan.zone}, the server's zone)"


def _moment_rows(plan: RestorePlan) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = []
    if plan.stop.previous is not None:
        rows.append(("the one before", f"{_transaction(plan, plan.stop.previous)}: will be there"))
    if plan.stop.last is not None:
        rows.append(("last transaction", f"{_transaction(plan, plan.stop.last)}: will be there"))
    if plan.stop.next is not None:
        rows.append(("the next one", f"{_transaction(plan, plan.stop.next)}: will not"))
    if plan.stop.position is not None:
        rows.append(("recovery stops at", f"{plan.stop.position} on timeline {plan.timeline}"))
    return rows


def _transaction(plan: RestorePlan, end: TransactionEnd) -> str:
    what = "committed" if end.committed else "rolled back"
    away = _away(distance(end, plan.target))
    return f"{end.xid}, {what} {show_in(plan.zone, end.time)}, at {end.lsn}{away}"


def _away(far: Distance) -> str:
    """', 3.2 s before the target'."""
    amount = far.seconds if far.bytes is None else far.bytes
    if amount is None:
        return ""
    if amount == 0:
        return ", exactly at the target"
    shown = show_duration(abs(amount)) if far.bytes is None else show_size(abs(far.bytes))
    return f", {shown} {'before' if amount < 0 else 'after'} the target"


def _source_rows(plan: RestorePlan) -> list[tuple[str, Cell]]:
    backup, wal = plan.backup, plan.wal
    size = f"{show_size(plan.write_bytes)} in {plural(plan.files, 'file')}"
    names = wal.first if wal.segments == 1 else f"{wal.first} to {wal.last}"
    return [
        ("backup", f"{backup.backup}, ended {show_in(plan.zone, stopped_at(backup))}: {size}"),
        ("then WAL", f"{names}: {plural(wal.segments, 'segment')}, {show_size(wal.bytes)} at most"),
    ]


def _place_rows(plan: RestorePlan) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = [("into", Text(plan.directory, style="bold"))]
    rows += [("tablespace", f"{space.name}: {space.source} goes to {space.target}") for space in plan.tablespaces]
    rows += [("space", f"{show_size(v.needed)} needed, {show_size(v.free)} free at {v.path}") for v in plan.volumes]
    programs = f"PostgreSQL {plan.programs.version} ({plan.programs.bindir}), as {plan.account.name}"
    return [
        *rows,
        ("server", programs),
        ("listens", f"on its socket in {plan.place.socket_directory} alone, port {plan.place.port}"),
        ("at the target", _THEN[plan.action]) if plan.standby is None else ("replica", _follows(plan.standby)),
        ("not touched", "running servers, original tablespaces, the repository"),
        ("until adopted", "it archives nothing and connects to nobody"),
    ]


def _follows(standby: Standby) -> str:
    slot = f", with slot {standby.slot}" if standby.slot else ""
    return f"it follows its primary along the newest timeline{slot}, and fetches from the archive what that has lost"


def _over_rows(plan: RestorePlan) -> list[tuple[str, Cell]]:
    """What becomes of the data directory that is there."""
    over = plan.over
    if over is None:
        return []
    rows: list[tuple[str, Cell]] = [("kept as", f"{to} (now {path})") for path, to in over.moved]
    if over.how is not How.KEEP:
        proof = f"by {over.proof}" if over.proof else Text("nothing proves it", style="bold")
        rows.append(("the same cluster", proof))
    if over.differences is not None:
        rows += _difference_rows(over.how, over.differences)
    return rows + _wal_rows(over.wal)


def _difference_rows(how: How, found: Differences) -> list[tuple[str, Cell]]:
    there, size = found.compared, found.compared_bytes
    if how is How.REPLACE:
        text = f"everything: {plural(there + found.removed, 'file')}, {show_size(size + found.removed_bytes)}"
        return [("deleted", Text(text, style="bold"))]
    shown = ", ".join(found.removed_paths) + (" ..." if found.removed > len(found.removed_paths) else "")
    deleted = f"{plural(found.removed, 'file')}, {show_size(found.removed_bytes)}, not in the backup: {shown}"
    return [
        ("compared", f"{plural(there, 'file')}, {show_size(size)}: only what differs is written"),
        ("missing", f"{plural(found.missing, 'file')}, {show_size(found.missing_bytes)}: written"),
        ("deleted", deleted if found.removed else "nothing but old WAL"),
    ]


def _wal_rows(wal: PresentWal | None) -> list[tuple[str, Cell]]:
    if wal is None:
        return []
    rows: list[tuple[str, Cell]] = []
    if wal.waiting:
        rows.append(("WAL not archived", f"{_span(wal.waiting)}: saved first, so recovery may come further than this"))
    if wal.pushed:
        rows.append(("WAL saved", f"{_span(wal.pushed)}: in the archive now"))
    if wal.kept and wal.where:
        rows.append(("WAL kept", f"{_span(wal.kept)}: in {wal.where} ({wal.why})"))
    return rows


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{plural(len(names), 'file')}, {names[0]} to {names[-1]}"


def result_json(result: RestoreResult) -> dict[str, Any]:
    """docs/json.md, restore."""
    return {
        "dry_run": False,
        "plan": result.plan.as_json(),
        "bytes": result.bytes,
        "seconds": round(result.seconds, 3),
        "recovered": _recovered_json(result.recovered) if result.recovered else None,
    }


def _recovered_json(recovered: Recovered) -> dict[str, Any]:
    return {
        "state": recovered.state,
        "lsn": str(recovered.lsn) if recovered.lsn is not None else None,
        "last_transaction": json_time(recovered.last_time),
        "timeline": recovered.timeline,
        "said": recovered.said or None,
        "port": recovered.port,
        "socket_directory": recovered.socket_directory,
        "log": recovered.log,
        "seconds": round(recovered.seconds, 3),
    }


def result_text(result: RestoreResult) -> RenderableType:
    """What was written and recovered, and the commands that come next."""
    plan, recovered = result.plan, result.recovered
    took = f"{show_size(result.bytes)} in {show_duration(result.seconds)}"
    head = Text(f"restored to {plan.directory}: {took}")
    if recovered is None:
        log = f"{plan.directory}/{LOG_NAME}"
        return Group(
            head, facts([("start it with", _pg_ctl(plan, "-l", log, "start")), ("connect with", _connect(plan))])
        )
    said = Text(f"{describe(recovered, plan)} (in {show_duration(recovered.seconds)})", style="bold")
    rows = [("log", recovered.log)]
    if recovered.state != "shut-down":
        rows = [("connect with", _connect(plan)), ("stop it with", _pg_ctl(plan, "stop")), *rows]
    return Group(head, said, facts(rows))


def _pg_ctl(plan: RestorePlan, *arguments: str) -> str:
    command = shlex.join([plan.programs.path("pg_ctl"), "-D", plan.directory, *arguments])
    return command if plan.account.is_self else f"sudo -u {plan.account.name} {command}"


def _connect(plan: RestorePlan) -> str:
    return shlex.join(["psql", "-h", plan.place.socket_directory, "-p", str(plan.place.port)])
