"""How the dumped database was made, and what was said of it: for a new one.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pgkeep.logical.source import Source
from pgkeep.pg.sqltext import name_of, renamed_database, statements
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


def about_database(script: str, name: str) -> list[str]:
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
