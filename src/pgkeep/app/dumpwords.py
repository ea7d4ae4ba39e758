"""What is to be dumped: the configuration's sets, overruled by the command line.

1. A dump belongs to a set, and what is kept is counted by set; so a part of a database that somebody wants by the way
   must not count as that day's dump of the database: it goes into a set of its own.
2. Options on the line take the place of the set's own, one by one; those that choose a part take the place of all of
   those.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pgkeep.config.settings import ClusterSettings, DumpSettings
from pgkeep.errors import Fault
from pgkeep.logical.request import WHOLE, Chosen, DumpRequest, Format, Part

ALL: Final = "all"
"""The set of --all when the configuration has none."""
PART: Final = "-part"


@dataclass(frozen=True, slots=True)
class DumpWords:
    """What the command line says; None and the defaults leave it to the configuration."""

    database: str | None = None
    name: str | None = None
    every: bool = False
    chosen: Chosen = WHOLE
    format: Format | None = None
    jobs: int | None = None
    compress: str | None = None
    inserts: bool = False
    lock_timeout: timedelta | None = None
    program_major: int | None = None
    label: str = ""


def request_of(known: DumpSettings) -> DumpRequest:
    """A set of the configuration as it is."""
    part: Part = "schema" if known.schema_only else "data" if known.data_only else "all"
    chosen = Chosen(
        schemas=known.schemas, tables=known.tables, exclude_tables=known.exclude_tables, filter=known.filter, part=part,
        owner=not known.no_owner, acl=not known.no_acl,
    )  # fmt: skip
    return DumpRequest(
        name=known.name, database=known.source, chosen=chosen, format=known.format, jobs=known.jobs,
        compress=known.compress, lock_timeout=known.lock_timeout,
    )  # fmt: skip


def request_for(settings: ClusterSettings, words: DumpWords) -> DumpRequest:
    """What is asked for; Fault `usage` when that is not clear."""
    known = _set(settings, words)
    base = request_of(known) if known is not None else _new(words)
    narrowed = words.chosen if words.chosen != WHOLE else base.chosen
    if base.database is None and not _only_privileges(narrowed):
        raise Fault("usage", "--all takes every database whole", hint="name one database to choose a part of it")
    name = base.name
    if words.name is None and words.chosen != WHOLE and not _only_privileges(words.chosen):
        name = f"{base.database}{PART}"
    form = words.format or base.format
    return DumpRequest(
        name=name, database=base.database, chosen=narrowed, format=form,
        jobs=words.jobs or (base.jobs if form == "directory" else None),
        compress=words.compress or base.compress, inserts=words.inserts,
        lock_timeout=words.lock_timeout or base.lock_timeout, program_major=words.program_major,
        label=words.label,
    )  # fmt: skip


def _only_privileges(chosen: Chosen) -> bool:
    """Whether no content is left out, at most owners and rights."""
    return chosen == Chosen(owner=chosen.owner, acl=chosen.acl)


def _set(settings: ClusterSettings, words: DumpWords) -> DumpSettings | None:
    """The set of the configuration that is meant; None for one that is made by the line."""
    known = settings.dumps
    if words.every and words.database is not None:
        raise Fault("usage", "a database and --all exclude each other", hint="leave out one of them")
    if words.name is not None:
        named = next((one for one in known if one.name == words.name), None)
        if named is not None:
            _check_same(named, words)
            return named
        if words.database is None and not words.every:
            raise _no_such_set(settings, words.name)
        return None
    if words.every:
        return next((one for one in known if one.all), None)
    if words.database is not None:
        return next((one for one in known if one.name == words.database and one.source == words.database), None)
    if len(known) == 1:
        return known[0]
    raise _which(settings)


def _check_same(known: DumpSettings, words: DumpWords) -> None:
    """The set's dumps are counted together, so they must be of one thing."""
    if (words.database is not None and words.database != known.source) or (words.every and not known.all):
        source = "every database" if known.source is None else f"the database {known.source}"
        raise Fault(
            "usage", f"the set {known.name!r} of the configuration is of {source}",
            hint="leave out the database, or choose another --name",
        )  # fmt: skip


def _new(words: DumpWords) -> DumpRequest:
    database = None if words.every else words.database
    return DumpRequest(name=words.name or database or ALL, database=database)


def _no_such_set(settings: ClusterSettings, name: str) -> Fault:
    listed = ", ".join(one.name for one in settings.dumps) or "none"
    return Fault(
        "usage",
        f"the configuration has no set of dumps named {name!r} (it has: {listed}), and no database is named",
        hint=f"add [cluster.{settings.name}.dumps.{name}], or name the database: pgkeep dump DATABASE --name {name}",
    )


def _which(settings: ClusterSettings) -> Fault:
    if not settings.dumps:
        return Fault("usage", "what is to be dumped?", hint="name a database: pgkeep dump DATABASE; or use --all")
    listed = ", ".join(one.name for one in settings.dumps)
    return Fault(
        "usage", f"the configuration has several sets of dumps ({listed}), expected the name of one",
        hint="use --name NAME, or name a database, or use --all or --due",
    )  # fmt: skip
