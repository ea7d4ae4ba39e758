"""The plan of a load and its result."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.cli.render.tables import Cell, facts, plural
from pgkeep.logical.loadjob import LoadResult
from pgkeep.logical.loadplan import LoadPlan, Way
from pgkeep.logical.rolesplan import GlobalsPlan
from pgkeep.pg.sqltext import shown_name
from pgkeep.values.quantity import show_duration, show_size

_SHOWN = 6


def plan_text(plan: LoadPlan) -> RenderableType:
    """What will be loaded, from where, into what; what is there, and what a failure would leave."""
    head = Text.assemble("load into ", (plan.database, "bold"), f" on {plan.server.shown}")
    rows = [*_source_rows(plan), *_target_rows(plan), *_globals_rows(plan.globals), *_way_rows(plan)]
    refused = [Text(f"cannot be: {one.text}", style="bold red") for one in plan.refusals]
    return Group(head, facts(rows), *refused)


def _source_rows(plan: LoadPlan) -> list[tuple[str, Cell]]:
    source = plan.source
    kind = f"{source.kind.value}, {source.compression}" if source.compression else source.kind.value
    made = f", by pg_dump {source.program_version}" if source.program_version else ""
    of = f", of PostgreSQL {source.server_version}" if source.server_version else ""
    rows: list[tuple[str, Cell]] = [
        ("from", source.content.shown),
        ("is", f"{kind}, {show_size(source.size)}{of}{made}"),
    ]
    counts = plan.counts()
    shown = [plural(count, desc.lower()) for desc, count in counts.items() if desc != "TABLE DATA"][:_SHOWN]
    rows.append(("holds", ", ".join(shown) + (" ..." if len(counts) > _SHOWN else "") or "nothing that was chosen"))
    if plan.selection is not None and plan.selection.left_out:
        rows.append(("left out", _some(plan.selection.left_out)))
    return rows


def _target_rows(plan: LoadPlan) -> list[tuple[str, Cell]]:
    server = f"PostgreSQL {plan.server.version}, as {plan.server.role.name}"
    if plan.new is not None:
        state = f"is made (encoding {plan.new.encoding or 'of template0'}, {_locale(plan)})"
    elif plan.present.is_empty:
        state = "exists, and is empty"
    else:
        state = f"exists, with {plural(len(plan.present.relations), 'relation')}"
    rows: list[tuple[str, Cell]] = [("server", server), ("database", state)]
    if plan.replaced:
        rows.append(("dropped and made anew", Text(_some(plan.replaced), style="bold")))
    if plan.appended:
        rows.append(("rows added to", _some(plan.appended)))
    return rows


def _locale(plan: LoadPlan) -> str:
    new = plan.new
    assert new is not None
    if new.provider:
        return f"locale {new.locale} of {new.provider}"
    return f"locale {new.collate}" if new.collate else f"the server's locale {plan.server.default_locale}"


def _globals_rows(made: GlobalsPlan | None) -> list[tuple[str, Cell]]:
    if made is None:
        return []
    rows: list[tuple[str, Cell]] = [("roles", f"made: {_some(sorted(made.creates_roles)) or 'none'}")]
    if made.kept_roles:
        rows.append(("", f"stay as they are: {_some(sorted(made.kept_roles))}"))
    if made.creates_tablespaces:
        rows.append(("tablespaces", f"made: {_some(sorted(made.creates_tablespaces))}"))
    return rows


def _way_rows(plan: LoadPlan) -> list[tuple[str, Cell]]:
    how = "in one transaction" if plan.one_transaction else plural(plan.jobs, "connection")
    through = ", through psql" if plan.way is Way.RESTORE_TO_PSQL else ""
    rows: list[tuple[str, Cell]] = [
        ("programs", f"{plan.tools}: {plan.tools.reason}"),
        ("how", f"{how}{through}"),
    ]
    if plan.laid_out:
        rows.append(("laid out", f"{show_size(plan.laid_out)}, until it is loaded"))
    if plan.request.owners:
        shown = [f"{shown_name(old)} is {shown_name(new)}" for old, new in plan.request.owners.items()]
        rows.append(("owners", _some(shown)))
    return [*rows, ("a failure leaves", plan.on_failure())]


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def result_json(result: LoadResult) -> dict[str, Any]:
    """docs/json.md, load."""
    return {
        "dry_run": False,
        "plan": result.plan.as_json(),
        "seconds": round(result.seconds, 3),
        "tolerated": [{"why": why, "count": count} for why, count in result.tolerated],
        "created_roles": list(result.created_roles),
        "created_tablespaces": list(result.created_tablespaces),
    }


def result_text(result: LoadResult) -> RenderableType:
    plan = result.plan
    head = Text(f"loaded into {plan.database} in {show_duration(result.seconds)}", style="bold")
    rows: list[tuple[str, Cell]] = []
    if result.created_roles:
        rows.append(("roles made", _some(result.created_roles)))
    if result.created_tablespaces:
        rows.append(("tablespaces made", _some(result.created_tablespaces)))
    if plan.selection is None or plan.selection.has_rows():
        rows.append(("next", f"ANALYZE in {plan.database}: until then queries are planned without statistics"))
    return Group(head, facts(rows)) if rows else head
