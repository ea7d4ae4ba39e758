"""Other owners: the roles of a dump that stand for others where it is loaded.  Pure.

1. The archive is loaded with other names in its table of contents (`mapped_toc`, pg/toccopy): owners, privileges,
   default privileges, policies, user mappings, what belongs to the database.  pg_restore does all else as ever.
2. Names are exact: OLD=NEW, with SQL's double quotes around a name that holds = or begins with a quote.
3. What is no name by SQL's grammar stays: text of functions, settings, rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from pgkeep.errors import Fault
from pgkeep.logical.selection import ACLS, OF_THE_DATABASE
from pgkeep.pg.dumptoc import Toc, TocEntry
from pgkeep.pg.rolenames import roles_in, with_other_roles

_NAMING: Final = ACLS | OF_THE_DATABASE | {"POLICY", "USER MAPPING"}
"""Kinds whose statements name roles."""
_PAIR: Final = re.compile(r'("(?:[^"]|"")+"|[^="][^=]*)=("(?:[^"]|"")+"|[^="][^=]*)', re.DOTALL)


def parse_owner_map(texts: Iterable[str]) -> dict[str, str]:
    """{'old': 'new'} from 'old=new'; Fault 'usage' for what is none, and for two answers to one name."""
    found: dict[str, str] = {}
    for text in texts:
        match = _PAIR.fullmatch(text)
        if match is None:
            raise Fault(
                "usage", f"--owner-map {text!r} is not of the form OLD=NEW",
                hint="""a name that holds = stands in double quotes: --owner-map '"a=b"=c'""",
            )  # fmt: skip
        old, new = _bare(match[1]), _bare(match[2])
        if found.setdefault(old, new) != new:
            both = f"{found[old]} and {new}"
            raise Fault("usage", f"--owner-map maps {old} twice, to {both}", hint="leave out one of them")
    return found


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def mapped_entry(entry: TocEntry, owners: Mapping[str, str]) -> TocEntry:
    """The item as it is loaded."""
    definition, drop = entry.definition, entry.drop
    if entry.desc in _NAMING:
        definition = with_other_roles(definition, owners)
    if entry.desc == "USER MAPPING":
        drop = with_other_roles(drop, owners)
    owner = owners.get(entry.owner, entry.owner)
    if (definition, drop, owner) == (entry.definition, entry.drop, entry.owner):
        return entry
    return replace(entry, definition=definition, drop=drop, owner=owner)


def mapped_toc(toc: Toc, owners: Mapping[str, str]) -> Toc:
    """The table of contents as it is loaded."""
    return replace(toc, entries=tuple(mapped_entry(entry, owners) for entry in toc.entries))


def roles_of(toc: Toc) -> frozenset[str]:
    """Every role that the dump names, whatever of it is chosen."""
    found = {entry.owner for entry in toc.entries if entry.owner}
    for entry in toc.entries:
        if entry.desc in _NAMING:
            found |= roles_in(entry.definition)
    return frozenset(found)
