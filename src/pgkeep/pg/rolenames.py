"""Where the statements of pg_dump and pg_dumpall name roles: to ask which they need, and to say them of others.  Pure.

1. By the grammar of each statement, never by the look of a word: a table may be called role, and a policy's expression
   may hold any text.  TO, FROM, USING, WITH, FOR and GROUP are reserved: without quotes they are key words.
2. What names no role by its grammar is not touched: bodies of functions, settings, text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pgkeep.pg.sqltext import Statement, Token, name_of, quoted_name, statements

_NO_ROLE: Final = frozenset({"PUBLIC", "CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "DEFAULT", "USER"})
"""Without quotes: nobody, or whoever runs the statement."""
_NAMES: Final = frozenset({"word", "quoted"})


def roles_in(script: str) -> set[str]:
    """Every role that these statements name."""
    return {name_of(one.tokens[at]) for one in statements(script) for at in role_places(one)}


def with_other_roles(script: str, roles: Mapping[str, str]) -> str:
    """The script with other roles in place of those that are the keys; the same text when it names none of them."""
    found = statements(script)
    if not any(name_of(one.tokens[at]) in roles for one in found for at in role_places(one)):
        return script
    return "".join(f"{_renamed(one, roles)};\n" for one in found)


def _renamed(one: Statement, roles: Mapping[str, str]) -> str:
    text = one.text
    for at in sorted(role_places(one), reverse=True):
        token = one.tokens[at]
        name = name_of(token)
        if name in roles:
            text = text[: token.start] + quoted_name(roles[name]) + text[token.start + len(token.text) :]
    return text


def role_places(one: Statement) -> tuple[int, ...]:
    """The places among the statement's tokens where a role stands."""
    return tuple(at for at in _places(one) if at < len(one.tokens) and _is_role(one.tokens[at]))


def _places(one: Statement) -> Iterator[int]:
    match one.words(3):
        case ("SET", "SESSION", "AUTHORIZATION"):
            yield 3
        case ("GRANT" | "REVOKE", _, _):
            yield from _grantees(one, 1)
        case ("ALTER", "DEFAULT", "PRIVILEGES"):
            if one.word(3) == "FOR":
                yield from _list(one, 5)
            yield from _grantees(one, 5)
        case ("ALTER", "ROLE" | "USER", _):
            yield 2
        case ("CREATE", "TABLESPACE", _):
            if one.word(3) == "OWNER":
                yield 4
        case ("CREATE", "POLICY", _):
            yield from _of_policy(one)
        case ("CREATE" | "DROP", "USER", "MAPPING"):
            at = one.find("FOR")
            if at > 0:
                yield at + 1
        case ("ALTER", _, _):
            yield from (at + 2 for at in range(len(one.tokens)) if (one.word(at), one.word(at + 1)) == ("OWNER", "TO"))
        case _:
            return


def _grantees(one: Statement, start: int) -> Iterator[int]:
    """GRANT ... TO a, b WITH GRANT OPTION; REVOKE ... FROM a; of GRANT role TO role the first one too."""
    end = next((at for at in range(start, len(one.tokens)) if one.word(at) in {"TO", "FROM"}), len(one.tokens))
    if one.word(0) == "GRANT" and not any(one.word(at) == "ON" for at in range(start, end)):
        yield from _list(one, 1)
    yield from _list(one, end + 1)


def _of_policy(one: Statement) -> Iterator[int]:
    """CREATE POLICY name ON table AS PERMISSIVE FOR SELECT TO a, b USING (...) WITH CHECK (...)."""
    for at in range(3, len(one.tokens)):
        if one.word(at) in {"USING", "WITH"}:
            return
        if one.word(at) == "TO":
            yield from _list(one, at + 1)
            return


def _list(one: Statement, at: int) -> Iterator[int]:
    """Names with commas between them."""
    while at < len(one.tokens):
        if one.word(at) == "GROUP":
            at += 1
        yield at
        if at + 1 >= len(one.tokens) or one.tokens[at + 1].text != ",":
            return
        at += 2


def _is_role(token: Token) -> bool:
    return token.kind == "quoted" or (token.kind in _NAMES and token.text.upper() not in _NO_ROLE)
