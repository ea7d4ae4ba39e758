"""How the dumped database was made, and what was said of it: for a new one.  Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pgkeep.logical.loadrequest import LoadRequest
from pgkeep.logical.selection import is_about_database
from pgkeep.logical.source import Source
from pgkeep.pg.rolenames import roles_in
from pgkeep.pg.sqltext import name_of, quoted_name, renamed_database, statements
from pgkeep.pg.target import NewDatabase


def encoding_of(source: Source) -> str:
    """Of the text in the dump; '' when it does not say."""
    if source.script is not None:
        return source.script.encoding
    entries = source.toc.entries if source.toc is not None else ()
    for entry in entries:
        if entry.desc == "ENCODING" and (match := re.search(r"'([^']*)'", entry.definition)):
            return match[1]
    return ""


def wishes_of(source: Source) -> NewDatabase:
    """How the dumped database was made: from the CREATE DATABASE of the archive, or beside the script."""
    if source.toc is not None:
        made = next((entry.definition for entry in source.toc.entries if entry.desc == "DATABASE"), "")
    else:
        made = source.content.database_text() or ""
    found: dict[str, str] = {}
    for statement in statements(made):
        if statement.words(2) != ("CREATE", "DATABASE"):
            continue
        for at, token in enumerate(statement.tokens):
            if token.text == "=" and 0 < at < len(statement.tokens) - 1:
                found[statement.word(at - 1)] = _value(statement.tokens[at + 1].text)
    return new_database(found, encoding_of(source))


@dataclass(frozen=True, slots=True)
class AboutDatabase:
    """What is said of a new database once it is filled: owner, settings, comment, privileges."""

    statements: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Roles that have settings of their own in it, and are not there: those settings are of no use to anybody."""
    needs: frozenset[str] = frozenset()
    """Roles without which the statements fail."""


def about_new_database(source: Source, request: LoadRequest, roles: Collection[str], name: str) -> AboutDatabase:
    """Of the database `name`, on a server that has these roles: an owner that is not among them owns nothing."""
    run: list[str] = []
    left_out: set[str] = set()
    needs: set[str] = set()
    for text in _of_database(source, request, name):
        (one,) = statements(text)
        named = roles_in(text)
        is_there = named <= set(roles)
        if one.words(2) == ("ALTER", "ROLE") and not is_there:
            left_out |= named
        elif one.words(2) != ("ALTER", "DATABASE") or is_there:
            run.append(text)
            needs |= named
    return AboutDatabase(tuple(run), tuple(sorted(left_out)), frozenset(needs))


def _of_database(source: Source, request: LoadRequest, name: str) -> list[str]:
    toc, chosen = source.toc, request.chosen
    if toc is None:
        text = source.content.database_text()
        return _of_script(text, name) if text is not None else []
    if chosen.data_only or not chosen.is_everything:
        return []
    found: list[str] = []
    for entry in toc.entries:
        if entry.desc == "DATABASE" and entry.owner and not (chosen.no_owner or request.role):
            found.append(f"ALTER DATABASE {quoted_name(name)} OWNER TO {quoted_name(entry.owner)}")
        is_left_out = entry.desc == "ACL" and chosen.no_acl
        if entry.desc == "DATABASE PROPERTIES" or (is_about_database(entry) and not is_left_out):
            found += renamed_database(entry.definition, toc.dbname, name)
    return found


def _of_script(script: str, name: str) -> list[str]:
    """The statements of a script beside plain SQL that say something of its database, said of `name`."""
    found = statements(script)
    old = next((name_of(one.tokens[2]) for one in found if one.words(2) == ("CREATE", "DATABASE")), None)
    if old is None:
        return []
    about = "".join(f"{one.text};\n" for one in found if one.word(0) not in {"CREATE", "SET", "SELECT"})
    return renamed_database(about, old, name)


def new_database(found: Mapping[str, str], encoding: str) -> NewDatabase:
    """From the words of CREATE DATABASE; LOCALE stands for LC_COLLATE and LC_CTYPE."""
    provider = found.get("LOCALE_PROVIDER", "").lower()
    locale = found.get("LOCALE", "")
    return NewDatabase(
        encoding=found.get("ENCODING", encoding),
        provider="" if provider == "libc" else provider,
        locale=found.get("ICU_LOCALE", found.get("BUILTIN_LOCALE", "")),
        collate=found.get("LC_COLLATE", locale),
        ctype=found.get("LC_CTYPE", locale),
        icu_rules=found.get("ICU_RULES", ""),
    )


def _value(text: str) -> str:
    return text[1:-1].replace("''", "'") if text.startswith("'") else text
