"""`load`: from what people write to a plan, and from the plan to a database."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from pgkeep.app.place import APPLICATION, Place, available_processors
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Warned
from pgkeep.logical import loadjob
from pgkeep.logical.content import Content, LocalContent, read_text
from pgkeep.logical.loadjob import LoadResult
from pgkeep.logical.loadplan import LoadPlan, is_there, plan_load
from pgkeep.logical.loadrequest import LoadRequest, Notice
from pgkeep.logical.lockwatch import LockWatch
from pgkeep.logical.newdatabase import encoding_of, wishes_of
from pgkeep.logical.ownermap import mapped_toc, roles_of
from pgkeep.logical.rolesplan import GlobalsPlan, plan_globals
from pgkeep.logical.selection import select
from pgkeep.logical.source import Source, look_into
from pgkeep.logical.stored import StoredContent, find_dump, stored_content
from pgkeep.pg.dumptoc import major_of
from pgkeep.pg.link import Link, link_of
from pgkeep.pg.target import NewDatabase, Present, TargetServer, open_target, read_place, read_present, read_server
from pgkeep.pg.tools import LOAD_TOOLS, choose_load_tools, find_tools
from pgkeep.repo.keeping import kept

NO_ENCODING: Final = "SQL_ASCII"
"""PostgreSQL's COPY does not check text that is said to be in it, whatever the database is in (copyfromparse.c)."""
Locate = Callable[[], Place]
"""Opens the repository of the configuration; called only for a dump that is in it."""


@dataclass(frozen=True, slots=True)
class LoadChoices:
    """What the command line says.  `conninfo` leads to the target server ('' leaves it to libpq's habits), `bindir` is
    where its client programs are, `globals_file` '' means what was saved beside the dump."""

    source: str
    request: LoadRequest
    conninfo: str = field(default="", repr=False)
    set_name: str | None = None
    database: str | None = None
    with_globals: bool = False
    globals_file: str = ""
    encoding: str = ""
    scratch: str = ""
    bindir: Path | None = None


@dataclass(frozen=True, slots=True)
class PreparedLoad:
    """A plan and what carrying it out needs."""

    plan: LoadPlan
    conninfo: str = field(repr=False)
    link: Link
    scratch: str


@contextmanager
def prepared(choices: LoadChoices, locate: Locate, clock: Clock, announce: Announce) -> Iterator[PreparedLoad]:
    """The plan; a lease is held on a dump of the repository until the block ends.

    Faults: of the source ('io', 'dump-unknown', 'dump-damaged', 'dump-unsupported', the repository's), of the server
    ('postgres-unreachable', 'postgres-version'), of the programs ('postgres-program', 'postgres-version'), 'usage'.
    """
    if os.path.exists(choices.source):
        content: Content = LocalContent(choices.source)
        yield _prepare(choices, content, announce)
        return
    place = locate()
    dump = find_dump(place.cluster, choices.source, choices.set_name, choices.database)
    with kept(place.cluster, clock, announce, purpose="load", bases=[dump]):
        yield _prepare(choices, stored_content(place.cluster, dump, choices.database), announce)


def _prepare(choices: LoadChoices, content: Content, announce: Announce) -> PreparedLoad:
    announce(Phase("plan", "comparing the dump with the server"))
    found = look_into(content)
    choices, notices = _as_it_was_taken(choices, found)
    source, strangers = _mapped(found, choices.request)
    notices += strangers
    with open_target(choices.conninfo) as session:
        server, link = read_server(session), link_of(session, f"{APPLICATION}-load-{secrets.token_hex(4)}")
    request = choices.request
    present = _present(choices.conninfo, server, request.database)
    wishes = _wishes(choices, content, source)
    known = present.encoding if present is not None else wishes.encoding
    if encoding_of(source) == NO_ENCODING and known not in {"", NO_ENCODING}:
        request = replace(request, text_encoding=known)
    tools = choose_load_tools(
        find_tools(LOAD_TOOLS, choices.bindir), _archive_major(source), server.major, named=choices.bindir
    )
    selection = None
    if source.toc is not None:
        selection = select(source.toc, request.chosen, lambda entry: is_there(present or Present(), entry))
    made = _globals(choices, content, server)
    plan = plan_load(
        source, request, server, present, tools, selection, wishes,
        made, available_processors(), notices, _places(choices.conninfo, made),
    )  # fmt: skip
    for notice in plan.warnings:
        announce(Warned(notice.code, notice.text, notice.hint))
    return PreparedLoad(plan, choices.conninfo, link, choices.scratch)


def _places(conninfo: str, made: GlobalsPlan | None) -> dict[str, str]:
    """Of each tablespace that would be made: what its directory is."""
    if made is None or not made.creates_tablespaces:
        return {}
    with open_target(conninfo) as session:
        return {name: read_place(session, where) for name, where in made.creates_tablespaces.items() if where}


def _as_it_was_taken(choices: LoadChoices, source: Source) -> tuple[LoadChoices, list[Notice]]:
    """A dump of the repository that was taken without owners is loaded without them, whatever its format."""
    request, content = choices.request, source.content
    if source.toc is None or not isinstance(content, StoredContent) or not content.without_owners:
        return choices, []
    if request.owners or request.chosen.no_owner:
        return choices, []
    chosen = replace(request.chosen, no_owner=True)
    text = "the dump was taken with --no-owner: everything belongs to who loads it"
    return replace(choices, request=replace(request, chosen=chosen)), [Notice("no-owner", text)]


def _mapped(source: Source, request: LoadRequest) -> tuple[Source, list[Notice]]:
    """With the owners that are asked for, and what there is to say of them."""
    if source.toc is None or not request.owners:
        return source, []
    unknown = sorted(request.owners.keys() - roles_of(source.toc))
    text = f"the dump does not name the roles {', '.join(unknown)} of --owner-map"
    notices = [Notice("owner-map", text, "look for capitals: names are exact")] if unknown else []
    return replace(source, toc=mapped_toc(source.toc, request.owners)), notices


def _present(conninfo: str, server: TargetServer, database: str) -> Present | None:
    if database not in server.databases:
        return None
    if database == "template0":
        raise Fault("usage", "template0 takes no connections", hint="name another database")
    with open_target(conninfo, database) as session:
        return read_present(session)


def _archive_major(source: Source) -> int | None:
    """The pg_restore that is needed: by the archive's version, and as new as the pg_dump that wrote it."""
    if source.toc is None:
        return None
    return max(source.toc.needs_major, major_of(source.toc.program_version))


def _wishes(choices: LoadChoices, content: Content, source: Source) -> NewDatabase:
    wishes = content.wishes() if isinstance(content, StoredContent) else wishes_of(source)
    return replace(wishes, encoding=choices.encoding) if choices.encoding else wishes


def _globals(choices: LoadChoices, content: Content, server: TargetServer) -> GlobalsPlan | None:
    if choices.globals_file:
        text: str | None = read_text(choices.globals_file)
    elif choices.with_globals:
        text = content.globals_text()
        if text is None:
            raise Fault(
                "usage",
                f"beside {content.shown} there is no globals.sql",
                hint="name a script of pg_dumpall --globals-only: --globals-file FILE",
            )
    else:
        return None
    assert text is not None
    return plan_globals(
        text, server.roles, server.tablespaces, server.major, choices.request.owners,
        with_tablespaces=not choices.request.chosen.no_tablespaces,
    )  # fmt: skip


def carry_out(ready: PreparedLoad, clock: Clock, announce: Announce) -> LoadResult:
    """Load; 'load-refused' when the plan says that it cannot be, else the faults of `loadjob.carry_out`."""
    check(ready.plan)
    hint = "it goes on when that transaction ends"
    with ExitStack() as stack:
        if ready.plan.new is None:  # nobody else is in a new one
            ask = partial(open_target, ready.conninfo)
            stack.enter_context(LockWatch(ask, ready.link.application_name, announce, hint))
        return loadjob.carry_out(ready.plan, ready.conninfo, ready.link, clock, announce, ready.scratch)


def check(plan: LoadPlan) -> None:
    """'load-refused' with everything that stands against it; nothing was done."""
    if plan.refusals:
        first, *others = plan.refusals
        also = "".join(f"; and {one.text}" for one in others)
        raise Fault("load-refused", f"{first.text}{also}", hint=first.hint)
