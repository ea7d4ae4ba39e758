"""Which items of an archive are loaded, when not all are: pure.

1. Who names a table gets what belongs to it: rows, indexes, constraints, triggers, policies, comments, privileges,
   owned sequences, partitions.  (pg_restore --table gives the bare table and its rows.)
2. What a chosen item needs and the target lacks is loaded with it, but never another table: that would be data that
   nobody asked for.  Keys and rules that lead to a table which is neither chosen nor there are left out, and named.
3. Patterns are pg_dump's: shop.orders, shop.*, orders (in any schema), quotes for capitals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Fault
from pgkeep.logical.patterns import split_pattern
from pgkeep.pg.dumptoc import Toc, TocEntry

TABLES: Final = frozenset({"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"})
ROWS: Final = frozenset(
    {"TABLE DATA", "SEQUENCE SET", "BLOB", "BLOB METADATA", "BLOBS", "MATERIALIZED VIEW DATA", "STATISTICS DATA"}
)
HEAD: Final = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH"})
OF_THE_DATABASE: Final = frozenset({"DATABASE", "DATABASE PROPERTIES"})
ACLS: Final = frozenset({"ACL", "DEFAULT ACL"})
_HOLDING: Final = frozenset({"TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"})
_BELONGS: Final = frozenset(
    {
        "TABLE DATA", "SEQUENCE SET", "MATERIALIZED VIEW DATA", "STATISTICS DATA", "INDEX", "CONSTRAINT",
        "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "ROW SECURITY", "DEFAULT",
        "SEQUENCE OWNED BY", "COMMENT", "SECURITY LABEL", "ACL", "STATISTICS", "INDEX ATTACH", "TABLE ATTACH",
    }
)  # fmt: skip


_WORTH_A_WORD: Final = frozenset({"FK CONSTRAINT", "VIEW", "MATERIALIZED VIEW", "RULE", "TRIGGER", "TABLE", "FUNCTION"})
"""Of what is left out: the rest merely belongs to it."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was asked for: patterns; all empty means everything."""

    tables: Sequence[str] = ()
    schemas: Sequence[str] = ()
    exclude_tables: Sequence[str] = ()
    exclude_schemas: Sequence[str] = ()
    schema_only: bool = False
    data_only: bool = False
    no_owner: bool = False
    no_acl: bool = False
    no_tablespaces: bool = False
    no_publications: bool = False

    @property
    def is_everything(self) -> bool:
        return not (self.tables or self.schemas or self.exclude_tables or self.exclude_schemas)


@dataclass(frozen=True, slots=True)
class Selection:
    """Items in the archive's order; `left_out` are names of what cannot come without a table that was not chosen."""

    entries: tuple[TocEntry, ...]
    left_out: tuple[str, ...] = ()

    def has_rows(self) -> bool:
        return any(entry.desc in ROWS for entry in self.entries)


def select(toc: Toc, chosen: Chosen, is_there: Callable[[TocEntry], bool]) -> Selection:
    """The items to load into a target for which `is_there` tells what it has; Fault 'usage' for a pattern that finds
    nothing."""
    ids, left_out = _ids(toc, chosen, is_there)
    entries = tuple(
        entry
        for entry in toc.entries
        if entry.dump_id in ids and not _is_of_database(entry) and _is_wanted(entry, chosen)
    )
    return Selection(entries, left_out)


def _is_of_database(entry: TocEntry) -> bool:
    """Said of the database itself: pg_restore leaves it out too unless it makes the database (--create)."""
    return entry.desc in OF_THE_DATABASE or is_about_database(entry)


def is_about_database(entry: TocEntry) -> bool:
    """A comment, privileges or a label of the database."""
    return entry.desc in {"COMMENT", "ACL", "SECURITY LABEL"} and entry.tag.startswith("DATABASE ")


def _is_wanted(entry: TocEntry, chosen: Chosen) -> bool:
    if entry.desc in HEAD or (chosen.no_acl and entry.desc in ACLS):
        return False
    if chosen.no_publications and entry.desc.startswith("PUBLICATION"):
        return False
    is_data = entry.desc in ROWS or entry.tag.startswith("LARGE OBJECT")  # their comments and privileges
    return not (chosen.schema_only and is_data) and not (chosen.data_only and not is_data)


def _ids(toc: Toc, chosen: Chosen, is_there: Callable[[TocEntry], bool]) -> tuple[set[int], tuple[str, ...]]:
    everything = {entry.dump_id for entry in toc.entries}
    if chosen.is_everything:
        return everything, ()
    graph = _Graph(toc, is_there)
    is_narrowed = bool(chosen.tables or chosen.schemas)
    found = graph.with_needs(_named(toc, chosen)) if is_narrowed else everything
    unwanted = _excluded(toc, chosen)
    return graph.without(found, unwanted)


def _named(toc: Toc, chosen: Chosen) -> set[int]:
    found: set[int] = set()
    for pattern in chosen.schemas:
        _, name = split_pattern(pattern, two=False)
        hits = {
            entry.dump_id
            for entry in toc.entries
            if name.fullmatch(entry.tag if entry.desc == "SCHEMA" else entry.namespace)
            and (entry.namespace or entry.desc == "SCHEMA")
        }
        found |= _hits(hits, "schema", pattern, toc)
    for pattern in chosen.tables:
        found |= _hits(_tables(toc, [pattern]), "table", pattern, toc)
    return found


def _hits(hits: set[int], kind: str, pattern: str, toc: Toc) -> set[int]:
    if not hits:
        raise Fault(
            "usage",
            f"the dump of {toc.dbname or 'this database'} holds no {kind} that fits {pattern!r}",
            hint="a name with capitals or blanks needs double quotes inside the shell's; --dry-run shows what there is",
        )
    return hits


def _tables(toc: Toc, patterns: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for pattern in patterns:
        schema, name = split_pattern(pattern)
        found |= {
            entry.dump_id
            for entry in toc.entries
            if entry.desc in TABLES and schema.fullmatch(entry.namespace) and name.fullmatch(entry.tag)
        }
    return found


def _excluded(toc: Toc, chosen: Chosen) -> set[int]:
    found = _tables(toc, chosen.exclude_tables)
    for pattern in chosen.exclude_schemas:
        _, name = split_pattern(pattern, two=False)
        found |= {
            entry.dump_id
            for entry in toc.entries
            if (entry.desc == "SCHEMA" and name.fullmatch(entry.tag))
            or (entry.namespace and name.fullmatch(entry.namespace))
        }
    return found


class _Graph:
    """What depends on what in an archive, by dump id."""

    def __init__(self, toc: Toc, is_there: Callable[[TocEntry], bool]) -> None:
        self._entries: Mapping[int, TocEntry] = {entry.dump_id: entry for entry in toc.entries}
        self._is_there = is_there
        self._schemas = {entry.tag: entry.dump_id for entry in toc.entries if entry.desc == "SCHEMA"}
        self._dependents: dict[int, list[TocEntry]] = defaultdict(list)
        for entry in toc.entries:
            for needed in entry.dependencies:
                self._dependents[needed].append(entry)

    def with_needs(self, start: set[int]) -> set[int]:
        """With what belongs to them and what they need."""
        found: set[int] = set()
        todo = list(start)
        while todo:
            number = todo.pop()
            if number in found or number not in self._entries:
                continue
            found.add(number)
            entry = self._entries[number]
            todo += [one.dump_id for one in self._dependents[number] if self._belongs(one, entry)]
            todo += self._needs(entry)
        return found

    def _belongs(self, entry: TocEntry, to: TocEntry) -> bool:
        if entry.desc == "TABLE ATTACH":
            return True
        if entry.desc == "SEQUENCE" and to.desc == "TABLE":
            return True  # of an identity column
        return entry.desc in _BELONGS and (to.desc != "FUNCTION" or entry.desc in {"COMMENT", "ACL"})

    def _needs(self, entry: TocEntry) -> list[int]:
        found = []
        if entry.namespace in self._schemas and not self._is_there(self._entries[self._schemas[entry.namespace]]):
            found.append(self._schemas[entry.namespace])
        for number in entry.dependencies:
            needed = self._entries.get(number)
            if needed is None:
                continue
            is_child = entry.desc == "TABLE ATTACH" and (needed.namespace, needed.tag) == (entry.namespace, entry.tag)
            is_sequence = needed.desc == "SEQUENCE" and entry.desc in {"DEFAULT", "SEQUENCE OWNED BY", "TABLE"}
            if is_child or is_sequence or (needed.desc not in TABLES | ROWS and not self._is_there(needed)):
                found.append(number)
        return found

    def without(self, found: set[int], unwanted: set[int]) -> tuple[set[int], tuple[str, ...]]:
        """Leave out what cannot be without a table that does not come, and name it, until nothing changes."""
        kept = found - unwanted
        left_out: dict[int, str] = {}
        changed = True
        while changed:
            changed = False
            for number in sorted(kept):
                entry = self._entries[number]
                missing = self._missing(entry, kept, unwanted)
                if missing:
                    kept.discard(number)
                    changed = True
                    if entry.desc in _WORTH_A_WORD:
                        left_out[number] = f"{entry.desc} {entry.name} (without {missing[0].name})"
        return kept, tuple(left_out.values())

    def _missing(self, entry: TocEntry, kept: set[int], unwanted: set[int]) -> list[TocEntry]:
        found = []
        for number in entry.dependencies:
            needed = self._entries.get(number)
            if needed is None or number in kept or needed.desc in ROWS:
                continue
            is_firm = needed.desc in _HOLDING or needed.desc in _BELONGS
            if number in unwanted or (is_firm and not self._will_be_there(needed)):
                found.append(needed)
        return found

    def _will_be_there(self, needed: TocEntry) -> bool:
        """An item that is not loaded: in the target, or a part of a table in the target."""
        if self._is_there(needed):
            return True
        holders = [one for number in needed.dependencies if (one := self._entries.get(number)) and one.desc in _HOLDING]
        return needed.desc in _BELONGS and bool(holders) and all(map(self._is_there, holders))
