"""What the items of a dump need of a server: roles, extensions, tablespaces.  Pure."""

from __future__ import annotations

from pgkeep.logical.selection import ACLS, Chosen, Selection
from pgkeep.logical.source import Source
from pgkeep.pg.dumptoc import TocEntry
from pgkeep.pg.rolenames import roles_in


def needed_roles(source: Source, selection: Selection | None, chosen: Chosen) -> frozenset[str]:
    """Owners, and who is granted something or named by a policy or by default privileges."""
    if selection is None:
        return source.script.owners if source.script is not None else frozenset()
    found: set[str] = set()
    for entry in selection.entries:
        if entry.owner and not chosen.no_owner and _has_owner(entry):
            found.add(entry.owner)
        if entry.desc in ACLS or entry.desc in {"POLICY", "USER MAPPING"}:
            found |= roles_in(entry.definition)
    return frozenset(found)


def _has_owner(entry: TocEntry) -> bool:
    """pg_restore sets the owner of these (_printTocEntry in pg_backup_archiver.c); rows and comments have none."""
    return entry.desc not in {"TABLE DATA", "SEQUENCE SET", "COMMENT", "BLOBS", "EXTENSION", *ACLS}


def needed_extensions(source: Source, selection: Selection | None, chosen: Chosen) -> frozenset[str]:
    if selection is None:
        return source.script.extensions if source.script is not None else frozenset()
    return frozenset(entry.tag for entry in selection.entries if entry.desc == "EXTENSION")


def needed_tablespaces(selection: Selection | None, chosen: Chosen) -> frozenset[str]:
    if selection is None or chosen.no_tablespaces:
        return frozenset()
    return frozenset(entry.tablespace for entry in selection.entries if entry.tablespace)
