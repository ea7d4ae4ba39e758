"""What the items of a dump need of a server: roles, extensions, tablespaces.  Pure."""

from __future__ import annotations

from typing import Final

from pgkeep.logical.selection import ACLS, Chosen, Selection
from pgkeep.logical.source import Source
from pgkeep.pg.dumptoc import TocEntry
from pgkeep.pg.sqltext import name_of, statements

_PUBLIC: Final = frozenset({"PUBLIC", "CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "DEFAULT"})


def needed_roles(source: Source, selection: Selection | None, chosen: Chosen) -> frozenset[str]:
    """Owners, and who is granted something or named by a policy or by default privileges."""
    if selection is None:
        return source.script.owners if source.script is not None else frozenset()
    found: set[str] = set()
    for entry in selection.entries:
        if entry.owner and not chosen.no_owner and _has_owner(entry):
            found.add(entry.owner)
        if entry.desc in ACLS:
            found |= roles_in_acl(entry.definition)
        if entry.desc in {"POLICY", "USER MAPPING"}:
            found |= _roles_after(entry.definition, "TO" if entry.desc == "POLICY" else "FOR")
    return frozenset(found)


def _has_owner(entry: TocEntry) -> bool:
    """pg_restore sets the owner of these (_printTocEntry in pg_backup_archiver.c); rows and comments have none."""
    return entry.desc not in {"TABLE DATA", "SEQUENCE SET", "COMMENT", "BLOBS", "EXTENSION", *ACLS}


def roles_in_acl(definition: str) -> set[str]:
    """Everybody that GRANT, REVOKE, SET SESSION AUTHORIZATION and ALTER DEFAULT PRIVILEGES name."""
    found: set[str] = set()
    for statement in statements(definition):
        for at, token in enumerate(statement.tokens):
            is_name = statement.word(at - 1) in {"ROLE", "AUTHORIZATION"} and at > 0
            is_grantee = at > 1 and statement.word(at - 1) in {"TO", "FROM"}
            if (is_name or is_grantee) and token.kind in {"word", "quoted"} and _is_role(token.text, token.kind):
                found.add(name_of(token))
    return found


def _is_role(text: str, kind: str) -> bool:
    return kind == "quoted" or text.upper() not in _PUBLIC


def _roles_after(definition: str, keyword: str) -> set[str]:
    """The names in a list: CREATE POLICY ... TO a, b USING; CREATE USER MAPPING FOR a SERVER."""
    found: set[str] = set()
    for statement in statements(definition):
        at = statement.find(keyword)
        while 0 <= at < len(statement.tokens) - 1:
            token = statement.tokens[at + 1]
            if token.kind in {"word", "quoted"} and _is_role(token.text, token.kind):
                found.add(name_of(token))
            following = statement.tokens[at + 2 : at + 3]
            at = at + 2 if following and following[0].text == "," else -1
    return found


def needed_extensions(source: Source, selection: Selection | None, chosen: Chosen) -> frozenset[str]:
    if selection is None:
        return source.script.extensions if source.script is not None else frozenset()
    return frozenset(entry.tag for entry in selection.entries if entry.desc == "EXTENSION")


def needed_tablespaces(selection: Selection | None, chosen: Chosen) -> frozenset[str]:
    if selection is None or chosen.no_tablespaces:
        return frozenset()
    return frozenset(entry.tablespace for entry in selection.entries if entry.tablespace)
