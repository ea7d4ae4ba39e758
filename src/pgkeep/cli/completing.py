"""What a shell offers behind an option: names that the configuration and the repository know.

Completion is a convenience on somebody's prompt: whatever goes wrong means that nothing is offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from pgkeep.errors import Fault

if TYPE_CHECKING:
    from pgkeep.cli.session import Session

MOST: Final = 200
"""Backups offered at most, the newest."""


def backups(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of the cluster's backups, newest first; one listing of the repository, nothing is read."""
    return _ids(context, incomplete, dumps=False)


def _ids(context: click.Context, incomplete: str, *, dumps: bool) -> list[CompletionItem]:
    from pgkeep.app.place import known_ids

    session = _session(context)
    try:
        ids = known_ids(session.settings(), session.selection, dumps=dumps)
    except Fault:
        return []
    return [CompletionItem(one) for one in sorted(ids, reverse=True) if one.startswith(incomplete)][:MOST]


def roots(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """As `backups`, and ids of dumps."""
    return _ids(context, incomplete, dumps=True)


def clusters(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the configuration's clusters."""
    try:
        known = _session(context).settings().clusters
    except Fault:
        return []
    return [CompletionItem(one.name) for one in known if one.name.startswith(incomplete)]


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever the shell offers as files."""
    return [CompletionItem(incomplete, type="file")]


def _session(context: click.Context) -> Session:
    """The session with the options that stand on the line so far, on either side of the verb."""
    from pgkeep.cli.options import Options

    session: Session = context.obj
    at: click.Context | None = context
    found = Options()
    while at is not None:
        here = Options(at.params.get("config"), at.params.get("cluster"), at.params.get("repo"))
        found = found.over(here)
        at = at.parent
    session.adopt(found.over(session.options))
    return session
