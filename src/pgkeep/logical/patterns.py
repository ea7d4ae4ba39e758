"""pg_dump's patterns, as far as an estimate of sizes needs them (psql's: fe_utils/string_utils.c).

pg_dump itself decides what it dumps.  This may only be wrong towards too much, so what is not understood chooses all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from pgkeep.logical.request import Chosen
from pgkeep.pg.dumpable import TableSize

LARGE_OBJECTS: Final = ("pg_catalog", "pg_largeobject")
_ALL: Final = ".*"
_NOTHING: Final = "(?!)"


def chosen_tables(chosen: Chosen, tables: Iterable[TableSize]) -> list[TableSize]:
    """The tables whose data would be dumped, the largest first; large objects are one of them (LARGE_OBJECTS)."""
    schemas, tables_in = _all(chosen.schemas, _ALL, two=False), _all(chosen.tables, _ALL)
    without = _all(chosen.exclude_schemas, _NOTHING, two=False)
    tables_out = _all(chosen.exclude_tables + chosen.exclude_table_data, _NOTHING)
    narrowed = bool(schemas or tables_in)
    found = []
    for table in tables:
        if (table.schema, table.name) == LARGE_OBJECTS:
            if not narrowed:
                found.append(table)
            continue
        is_in = not narrowed or _hit(schemas, "", table.schema) or _hit(tables_in, table.schema, table.name)
        if is_in and not _hit(without, "", table.schema) and not _hit(tables_out, table.schema, table.name):
            found.append(table)
    return sorted(found, key=lambda table: -table.size)


_Pattern = tuple[re.Pattern[str], re.Pattern[str]]


def _all(patterns: Sequence[str], broken: str, *, two: bool = True) -> list[_Pattern]:
    return [split_pattern(pattern, broken, two=two) for pattern in patterns]


def _hit(patterns: Iterable[_Pattern], schema: str, name: str) -> bool:
    return any(one[0].fullmatch(schema) and one[1].fullmatch(name) for one in patterns)


def split_pattern(pattern: str, broken: str = _ALL, *, two: bool = True) -> _Pattern:
    """(schema, name) as regular expressions; without `two` the whole pattern is a name; `broken` for what is none.

    Unquoted letters are folded to lower case, * and ? are wild, a dot ends the schema.
    """
    parts = [""]
    quoted = False
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == '"':
            if quoted and pattern[at + 1 : at + 2] == '"':
                parts[-1] += '"'
                at += 1
            else:
                quoted = not quoted
        elif quoted:
            parts[-1] += re.escape(char)
        elif char == "." and two:
            parts.append("")
        else:
            lower = char.lower()
            parts[-1] += {"*": ".*", "?": "."}.get(char) or (lower if char in "|+()[]" else re.escape(lower))
        at += 1
    name, schema = parts[-1], parts[-2] if len(parts) > 1 else ".*"
    return _compiled(schema, broken), _compiled(name, broken)


def _compiled(expression: str, broken: str) -> re.Pattern[str]:
    try:
        return re.compile(expression, re.DOTALL)
    except re.error:
        return re.compile(broken, re.DOTALL)
