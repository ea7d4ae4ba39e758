"""Globals: which roles and tablespaces of a dumped server are made on another one.  Pure.

1. By name: what exists there stays as it is; neither its attributes, nor its password, nor its settings, nor what it is
   a member of are touched.
2. Only what pg_dumpall --globals-only writes is understood; any other statement is left out, and counted.
3. A clause that an older server does not know is said as that server says it; nothing else of a statement changes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pgkeep.pg.rolenames import with_other_roles
from pgkeep.pg.sqltext import Statement, name_of, statements

_OPTIONS_SINCE: Final = 16
"""GRANT role WITH INHERIT TRUE, SET FALSE."""
_GRANTED_BY: Final = re.compile(r"\s+GRANTED BY\s+(?:\"(?:[^\"]|\"\")*\"|\S+)\s*$", re.DOTALL)
_WITH: Final = re.compile(r"\s+WITH\s+[A-Z, ]+$")


@dataclass(frozen=True, slots=True)
class GlobalsPlan:
    """`statements` run in their order in one transaction, `tablespaces` before them one by one."""

    statements: tuple[str, ...] = field(repr=False)
    """With the verifiers of passwords."""
    tablespaces: tuple[str, ...]
    creates_roles: frozenset[str]
    creates_tablespaces: Mapping[str, str]
    """Name -> the directory on the server's machine."""
    kept_roles: frozenset[str]
    """That exist: they stay as they are."""
    kept_tablespaces: frozenset[str]
    left_out: int
    """Statements that are not understood."""

    def as_json(self) -> dict[str, Any]:
        return {
            "creates_roles": sorted(self.creates_roles),
            "kept_roles": sorted(self.kept_roles),
            "creates_tablespaces": sorted(self.creates_tablespaces),
            "kept_tablespaces": sorted(self.kept_tablespaces),
            "left_out": self.left_out,
        }


def plan_globals(
    script: str,
    roles: Collection[str],
    tablespaces: Collection[str],
    major: int,
    owners: Mapping[str, str] = MappingProxyType({}),
    *,
    with_tablespaces: bool = True,
) -> GlobalsPlan:
    """What of the script a server of `major` with these roles and tablespaces lacks.

    For the roles in `owners` others stand: they are not made, and nobody becomes a member of either for their sake.
    """
    found = [one for one in statements(script) if not _is_of(one, owners)]
    named = [name_of(one.tokens[2]) for one in found if one.words(2) == ("CREATE", "ROLE") and len(one.tokens) > 2]
    places = {name_of(one.tokens[2]): _place(one) for one in found if one.words(2) == ("CREATE", "TABLESPACE")}
    new = frozenset(named) - set(roles)
    new_spaces = {name: place for name, place in places.items() if with_tablespaces and name not in tablespaces}
    run: list[str] = []
    run_alone: list[str] = []
    left_out = 0
    for one in found:
        match _kind(one):
            case "tablespace" if name_of(one.tokens[2]) in new_spaces:
                run_alone.append(_mapped(one, owners))
            case "role" if name_of(one.tokens[2]) in new:
                run.append(one.text)
            case "comment" if name_of(one.tokens[3]) in new:
                run.append(one.text)
            case "about-tablespace" if _named_after(one, "TABLESPACE") in new_spaces:
                run.append(_mapped(one, owners))
            case "member" if _member(one) in new:
                run.append(_membership(one, major))
            case "":
                left_out += 1
            case _:
                continue
    return GlobalsPlan(
        tuple(run),
        tuple(run_alone),
        new,
        new_spaces,
        frozenset(named) - new,
        frozenset(places.keys() - new_spaces.keys()),
        left_out,
    )


def _place(one: Statement) -> str:
    at = one.find("LOCATION")
    text = one.tokens[at + 1].text if 0 < at < len(one.tokens) - 1 else ""
    return text[1:-1].replace("''", "'") if text.startswith("'") else ""


def _mapped(one: Statement, owners: Mapping[str, str]) -> str:
    return with_other_roles(one.text, owners).removesuffix(";\n")


def _is_of(one: Statement, roles: Collection[str]) -> bool:
    """Whether the statement makes one of these roles, or says something of it; a tablespace's is none."""
    if one.words(2) in {("CREATE", "ROLE"), ("ALTER", "ROLE")}:
        return len(one.tokens) > 2 and name_of(one.tokens[2]) in roles
    if one.words(3) == ("COMMENT", "ON", "ROLE"):
        return len(one.tokens) > 3 and name_of(one.tokens[3]) in roles
    is_member = one.word(0) == "GRANT" and one.word(2) == "TO" and len(one.tokens) > 3
    return is_member and not {name_of(one.tokens[1]), name_of(one.tokens[3])}.isdisjoint(roles)


def _kind(one: Statement) -> str:
    first, second, third = one.words(3)
    if first == "SET" or (first == "SELECT" and one.text.startswith("SELECT pg_catalog.set_config")):
        return "setting"
    if (first, second) in {("CREATE", "ROLE"), ("ALTER", "ROLE")} and len(one.tokens) > 2:
        return "elsewhere" if _is_of_a_database(one) else "role"
    if (first, second) == ("CREATE", "TABLESPACE"):
        return "tablespace"
    if (first, second, third) == ("COMMENT", "ON", "ROLE") and len(one.tokens) > 3:
        return "comment"
    if _named_after(one, "TABLESPACE"):
        return "about-tablespace"
    if first == "GRANT" and one.find("ON") < 0 and one.find("TO") > 0:
        return "member"
    return ""


def _is_of_a_database(one: Statement) -> bool:
    """ALTER ROLE r IN DATABASE d SET: of a database, so its own dump says it."""
    return one.word(3) == "IN" and one.word(4) == "DATABASE"


def _named_after(one: Statement, keyword: str) -> str:
    at = one.find(keyword)
    return name_of(one.tokens[at + 1]) if 0 < at < len(one.tokens) - 1 else ""


def _member(one: Statement) -> str:
    """Who becomes a member: the name behind TO.  A role may be called to: key words stand at odd places only."""
    return name_of(one.tokens[3]) if one.word(2) == "TO" and len(one.tokens) > 3 else ""


def _membership(one: Statement, major: int) -> str:
    """Granted by whom this server knows, with the options that it knows."""
    text = one.text
    match = _GRANTED_BY.search(text)
    if match is not None:
        text = text[: match.start()]
    with_options = _WITH.search(text)
    if major < _OPTIONS_SINCE and with_options is not None:
        is_admin = "ADMIN OPTION" in with_options[0] or "ADMIN TRUE" in with_options[0]
        text = text[: with_options.start()] + (" WITH ADMIN OPTION" if is_admin else "")
    return text
