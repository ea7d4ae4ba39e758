"""The answer of `timeline`: a lane for each timeline, then the windows in words.

Positions in WAL are the axis, not time: they are exact, never go back, and a quiet week takes no room.  The signs are
ASCII letters, so that the picture can be read without colour and in a mail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from pgkeep.app.timeline import TimelineReport, Unarchived
from pgkeep.catalog.windows import BackupMark, Branch, Ending, IncarnationView, Stretch, holes
from pgkeep.cli.render.tables import plural
from pgkeep.cli.render.times import json_time, show_time
from pgkeep.values.quantity import show_duration, show_size

_WIDEST: Final = 120
_LABEL: Final = 13
"""Columns before the lanes."""
_WAL, _GAP, _PRUNED, _BACKUP, _BROKEN, _FORK, _END = "=", ".", "-", "B", "b", "`", ">"


def report_json(report: TimelineReport) -> dict[str, Any]:
    """docs/json.md, timeline."""
    return {
        "cluster": report.cluster,
        "incarnations": [_incarnation_json(one) for one in report.incarnations],
        "server": _unarchived_json(report.unarchived) if report.unarchived else None,
        "server_problem": report.server_problem or None,
        "problems": list(report.problems),
    }


def _incarnation_json(one: IncarnationView) -> dict[str, Any]:
    return {
        "system_id": str(one.system_id),
        "server_version": one.server_version,
        "timelines": [_branch_json(branch, one.segment_size) for branch in one.branches],
        "windows": [_window_json(window, one.segment_size) for window in one.windows],
        "backups": [_backup_json(mark) for mark in one.backups],
    }


def _branch_json(branch: Branch, size: int) -> dict[str, Any]:
    return {
        "timeline": branch.timeline,
        "parent": branch.parent,
        "began": str(branch.began) if branch.parent is not None else None,
        "reason": branch.reason or None,
        "children": list(branch.children),
        "segments": sum(last - first + 1 for first, last in branch.runs),
        "gaps": [gap.describe(size) for gap in branch.lost],
        "lives": branch.lives,
        "problem": branch.problem or None,
    }


def _window_json(window: Stretch, size: int) -> dict[str, Any]:
    last = window.last
    return {
        "timeline": window.timeline,
        "from_lsn": str(window.begin),
        "from_time": json_time(window.begin_time),
        "to_lsn": str(window.end),
        "to_time": json_time(last.time) if last else None,
        "to_xid": last.xid if last else None,
        "to_archived": json_time(window.archived),
        "backups": list(window.backups),
        "ends": window.ending.value,
        "gap": window.gap.describe(size) if window.gap else None,
    }


def _backup_json(mark: BackupMark) -> dict[str, Any]:
    return {
        "backup": mark.backup,
        "timeline": mark.timeline or None,
        "stop_lsn": str(mark.stop) if mark.stop is not None else None,
        "stopped": json_time(mark.stopped),
        "restorable": mark.restorable,
        "problem": mark.problem or None,
    }


def _unarchived_json(state: Unarchived) -> dict[str, Any]:
    return {
        "archive_timeout": state.archive_timeout,
        "last_archived": json_time(state.last_archived),
        "seconds_since": None if state.seconds is None else round(state.seconds, 3),
        "unarchived_bytes": state.bytes,
    }


def report_text(report: TimelineReport, width: int) -> RenderableType:
    """The picture, the windows, and what to know."""
    parts: list[RenderableType] = []
    for one in report.incarnations:
        if len(report.incarnations) > 1:
            parts.append(Text(f"system identifier {one.system_id}, PostgreSQL {one.server_version // 10000}", "bold"))
        parts += [*_picture(one, min(width, _WIDEST)), Text(), *_windows(one), Text()]
    return Group(Text.assemble("cluster ", (report.cluster, "bold")), Text(), *parts, *_remarks(report))


def _picture(one: IncarnationView, width: int) -> Iterator[Text]:
    numbers = [number for branch in one.branches for run in branch.runs for number in run]
    numbers += [mark.stop // one.segment_size for mark in one.backups if mark.stop is not None]
    if not numbers:
        yield Text("nothing is archived yet")
        return
    scale = _Scale(min(numbers), max(numbers), max(width - _LABEL - 1, 20))
    for branch in one.branches:
        yield Text.assemble((f"timeline {branch.timeline}".ljust(_LABEL), "bold"), _lane(branch, one, scale))
    yield Text(" " * _LABEL + _legend(one), "dim")


def _legend(one: IncarnationView) -> str:
    pruned = any(holes(branch) != branch.lost for branch in one.branches)
    missing = ". missing  - pruned" if pruned else ". missing WAL"
    return f"B backup  = WAL  {missing}  ` left its parent  > goes on"


class _Scale:
    """Segment numbers to columns, the same for all lanes."""

    def __init__(self, first: int, last: int, width: int) -> None:
        self.first, self.width = first, width
        self._span = max(last - first, 1)

    def column(self, number: int) -> int:
        return (number - self.first) * (self.width - 2) // self._span


def _lane(branch: Branch, one: IncarnationView, scale: _Scale) -> Text:
    cells = [" "] * scale.width
    if branch.runs:
        begin, end = scale.column(branch.runs[0][0]), scale.column(branch.runs[-1][1])
        cells[begin : end + 1] = _WAL * (end + 1 - begin)
        if branch.lives:
            cells[end + 1] = _END
    for sign, missing in ((_PRUNED, holes(branch)), (_GAP, branch.lost)):
        for hole in missing:
            # At least one column, or the picture would hide it.
            first, last = scale.column(hole.first), scale.column(hole.last)
            cells[first : last + 1] = sign * (last + 1 - first)
    if branch.parent is not None:
        cells[scale.column(max(branch.began // one.segment_size, scale.first))] = _FORK
    for mark in one.backups:
        if mark.timeline == branch.timeline and mark.stop is not None:
            cells[scale.column(mark.stop // one.segment_size)] = _BACKUP if mark.restorable else _BROKEN
    styles = {_WAL: "green", _GAP: "bold red", _BACKUP: "bold", _BROKEN: "bold red"}
    return Text.assemble(*((cell, styles.get(cell, "")) for cell in cells))


def _windows(one: IncarnationView) -> Iterator[Text]:
    if not one.windows:
        yield Text.assemble(("nothing can be recovered", "bold red"), ": there is no backup with its WAL")
    alone = [window for window in one.windows if window.ending is Ending.PRUNED]
    if alone:
        yield Text.assemble(("besides", "bold"), f", the end of each of {plural(len(alone), 'older backup')}:")
        yield from (Text(f"      {show_time(window.begin_time)}  {window.backups[0]}") for window in alone)
    for window in one.windows:
        if window.ending is Ending.PRUNED:
            continue
        on = f"timeline {window.timeline}, {plural(len(window.backups), 'backup')}"
        yield Text.assemble("from  ", (show_time(window.begin_time), "bold"), f"  end of backup {window.backups[0]}")
        yield Text.assemble("to    ", (_until(window), "bold"), f"  {_last(window)}")
        yield Text(f"      {on}; {_why(window, one)}")


def _until(window: Stretch) -> str:
    if window.last is not None:
        return show_time(window.last.time)
    return show_time(window.archived) if window.archived is not None else str(window.end)


def _last(window: Stretch) -> str:
    if window.last is not None:
        return f"last transaction, {window.last.xid}"
    return "when its last WAL was archived" if window.archived is not None else "position in WAL"


def _why(window: Stretch, one: IncarnationView) -> str:
    match window.ending:
        case Ending.GAP:
            assert window.gap is not None
            return f"ends because the archive lacks {window.gap.describe(one.segment_size)}"
        case Ending.FORK:
            return f"ends where this branch was left, at {window.end}"
        case _:
            return f"ends with the archive, at {window.end}"


def _remarks(report: TimelineReport) -> Iterator[Text]:
    for one in report.incarnations:
        for branch in one.branches:
            if branch.problem:
                yield _warning(f"timeline {branch.timeline}: {branch.problem}")
        for mark in one.backups:
            if mark.problem:
                yield _warning(f"backup {mark.backup} cannot be restored: {mark.problem}")
    for problem in report.problems:
        yield _warning(f"{problem}; pgkeep verify shows everything that is damaged")
    if report.server_problem:
        yield _note(f"the server was not asked what it has not archived: {report.server_problem}")
    if report.unarchived is not None:
        yield from _server(report.unarchived)


def _server(state: Unarchived) -> Iterator[Text]:
    age = "nothing was archived since its statistics were reset"
    if state.seconds is not None:
        age = f"WAL was last archived {show_duration(state.seconds)} ago"
    cost = f"{age}, and {show_size(state.bytes)} that were written since are not in the archive"
    if state.archive_timeout:
        yield _note(f"{cost}; archive_timeout archives every {show_duration(state.archive_timeout)} at the latest")
        return
    yield _warning(
        f"archive_timeout is not set: {cost}. A quiet server archives only when {show_size(state.segment_size)} of WAL"
        " have come together; until then a lost disk costs everything since"
    )
    yield Text.assemble(
        ("hint: ", "bold"), "ALTER SYSTEM SET archive_timeout = '60s'; SELECT pg_reload_conf();"
    )  # fmt: skip


def _warning(text: str) -> Text:
    return Text.assemble(("warning: ", "bold yellow"), text)


def _note(text: str) -> Text:
    return Text.assemble(("note: ", "bold"), text)
