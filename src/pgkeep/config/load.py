"""From the file's text to Settings, with every complaint placed: file, line, table, key."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgkeep.config import keys
from pgkeep.config.settings import ClusterSettings, DumpSettings, RepositorySettings, Settings
from pgkeep.errors import Fault

Table = dict[str, Any]


def load(path: str, overrides: Mapping[str, str] | None = None) -> Settings:
    """The settings in the file at `path`; `overrides` are the PGKEEP_* variables of the environment.

    PGKEEP_REPOSITORY_URL, PGKEEP_CLUSTER_CONNECTION ... override the only table of their kind,
    PGKEEP_CLUSTER_<NAME>_CONNECTION ... the one with that name ('-' written '_').
    Raises Fault `config-missing` (cannot be read) and `config-invalid`.
    """
    return parse(_read(path), os.path.abspath(path), overrides)


def parse(text: str, path: str, overrides: Mapping[str, str] | None = None) -> Settings:
    """As `load`, for text that is at hand."""
    reading = _Reading(path, text)
    try:
        top = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "mend that line; pgkeep init writes an example into a new file (--config FILE)"
        raise Fault("config-invalid", f"{path}: not TOML: {_lowered(str(error))}", hint=hint, path=path) from None
    reading.refuse_unknown(top, ("repository", "cluster"), keys.LATER_TOP, "")
    repositories = reading.repositories(top)
    clusters = reading.clusters(top)
    _override(repositories, "PGKEEP_REPOSITORY_", keys.REPOSITORY, overrides or {})
    _override(clusters, "PGKEEP_CLUSTER_", keys.CLUSTER, overrides or {})
    return Settings(
        path,
        tuple(RepositorySettings(**_fields(named)) for named in repositories),
        tuple(ClusterSettings(**_fields(named)) for named in clusters),
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise Fault("config-invalid", f"{path}: not UTF-8 at byte {error.start}", path=path) from None
    except OSError as error:
        hint = "make one with: pgkeep init, or name one with: --config FILE"
        if isinstance(error, PermissionError):
            hint = "let this account read the file, or run pgkeep as the account that owns it"
        raise Fault("config-missing", f"{path}: {_lowered(error.strerror or str(error))}", hint=hint) from None


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


@dataclass(slots=True)
class _Named:
    """A table on its way: its name and the values read so far."""

    name: str
    values: Table = field(default_factory=dict)


def _fields(named: _Named) -> dict[str, Any]:
    return {"name": named.name, **{key.replace("-", "_"): value for key, value in named.values.items()}}


@dataclass(frozen=True, slots=True)
class _Reading:
    """One file being read: knows its path and text, so that it can say where something stands."""

    path: str
    text: str

    def repositories(self, top: Table) -> list[_Named]:
        found = top.get("repository")
        if isinstance(found, dict):
            found = [found]
        if not found or not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
            raise self.fault("has no [repository] table", "repository", "", 'add: [repository] with url = "..."')
        several = len(found) > 1
        return _distinct([self._repository(table, several) for table in found], self)

    def _repository(self, table: Table, several: bool) -> _Named:
        self.refuse_unknown(table, keys.REPOSITORY, keys.LATER_REPOSITORY, "repository")
        self._require(table, "url", "repository")
        if several:
            self._require(table, "name", "repository")
        values = self._values(table, keys.REPOSITORY, "repository")
        return _Named(values.pop("name", "main"), values)

    def clusters(self, top: Table) -> list[_Named]:
        found = top.get("cluster")
        if not isinstance(found, dict) or not found:
            raise self.fault("has no [cluster.NAME] table", "cluster", "", "add: [cluster.main] with connection = ...")
        if stray := [key for key, table in found.items() if not isinstance(table, dict)]:
            hint = f"put it under a name, such as [cluster.main], not [cluster] ({stray[0]} was read as a name)"
            raise self.fault(f"expected a table for the cluster {stray[0]!r}", "cluster", stray[0], hint)
        return [self._cluster(name, table) for name, table in found.items()]

    def _cluster(self, name: str, table: Table) -> _Named:
        where = f"cluster.{name}"
        if not name.strip() or "\0" in name:
            raise self.fault("a cluster needs a name that can be seen", where, "", "write [cluster.main]")
        self.refuse_unknown(table, (*keys.CLUSTER, "dumps"), keys.LATER_CLUSTER, where)
        self._require(table, "connection", where)
        rest = {key: value for key, value in table.items() if key != "dumps"}
        values = self._values(rest, keys.CLUSTER, where)
        return _Named(name, {**values, "dumps": self._dumps(table.get("dumps", {}), f"{where}.dumps")})

    def _dumps(self, found: Any, where: str) -> tuple[DumpSettings, ...]:
        if not isinstance(found, dict):
            raise self.fault("expected tables of dumps", where, "", f"write [{where}.NAME], with a name of your choice")
        if stray := [key for key, table in found.items() if not isinstance(table, dict)]:
            hint = f"put it under a name, such as [{where}.shop] ({stray[0]} was read as a name)"
            raise self.fault(f"expected a table for the dumps {stray[0]!r}", where, stray[0], hint)
        return tuple(self._dump(name, table, f"{where}.{name}") for name, table in found.items())

    def _dump(self, name: str, table: Table, where: str) -> DumpSettings:
        if not name.strip() or "\0" in name:
            raise self.fault("dumps need a name that can be seen", where, "", "write [cluster.main.dumps.shop]")
        self.refuse_unknown(table, keys.DUMPS, frozenset(), where)
        settings = DumpSettings(**_fields(_Named(name, self._values(table, keys.DUMPS, where))))
        for key, problem in _contradictions(settings):
            raise self.fault(problem, where, key)
        return settings

    def _values(self, table: Table, known: Mapping[str, keys.Reader], where: str) -> Table:
        return {key: self._value(known[key], key, value, where) for key, value in table.items()}

    def _value(self, read: keys.Reader, key: str, value: Any, where: str) -> Any:
        try:
            return read(value)
        except (ValueError, OverflowError) as error:
            raise self.fault(f"{key}: {error}", where, key) from None

    def _require(self, table: Table, key: str, where: str) -> None:
        if key not in table:
            raise self.fault(f"lacks the key {key!r}", where, "", f'add: {key} = "..."')

    def refuse_unknown(self, table: Table, known: Iterable[str], later: frozenset[str], where: str) -> None:
        for key in table:
            if key in known:
                continue
            if keys.is_later(key, later):
                raise self.fault(f"{key!r} is not in this version of pgkeep", where, key, "leave it out for now")
            raise self.fault(f"unknown key {key!r}", where, key, _nearest(key, [*known]))

    def fault(self, message: str, where: str, key: str, hint: str = "") -> Fault:
        line = line_of(self.text, where, key)
        place = self.path + (f", line {line}" if line else "")
        table = f"[{where}] " if where else ""
        return Fault("config-invalid", f"{place}: {table}{message}", hint=hint, path=self.path, table=where, key=key)


def _contradictions(dump: DumpSettings) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it beside another one)."""
    if dump.all:
        given = {"database": dump.database, "schemas": dump.schemas, "tables": dump.tables, "filter": dump.filter}
        yield from ((key, f"{key}: all = true takes every database whole") for key, value in given.items() if value)
    if dump.schema_only and dump.data_only:
        yield "data-only", "data-only: with schema-only nothing is left"
    if dump.jobs is not None and dump.jobs > 1 and dump.format != "directory":
        yield "jobs", f'jobs: only format = "directory" is written by several, not {dump.format!r}'


def _distinct(tables: list[_Named], reading: _Reading) -> list[_Named]:
    seen: set[str] = set()
    for table in tables:
        if table.name in seen:
            raise reading.fault(f"two repositories are named {table.name!r}", "repository", "name")
        seen.add(table.name)
    return tables


def _nearest(key: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key.lower().replace("_", "-"), known, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def line_of(text: str, where: str, key: str) -> int | None:
    """The line (from 1) of `key` in the table `where`, or of the table's own head; None when it is not seen.

    A look for people, not a parser: what TOML writes in an unusual way goes without a line number.
    """
    table, head = "", None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = stripped.partition("]")[0].strip("[ ").replace('"', "").replace("'", "")
            if key and f"{where}.{key}".lstrip(".") == table:
                return number
            head = head or (number if table == where else None)
        elif key and table == where and stripped.partition("=")[0].strip().strip("\"'").partition(".")[0] == key:
            return number
    return head


# --- what the environment overrides


def _override(
    tables: list[_Named], prefix: str, known: Mapping[str, keys.Reader], overrides: Mapping[str, str]
) -> None:
    variables = {_variable(key): key for key in known if key not in {"name", "keep"}}
    for variable, value in overrides.items():
        if not variable.startswith(prefix):
            continue
        table, key = _addressed(tables, variables, variable, variable.removeprefix(prefix))
        table.values[key] = _overriding(known[key], variable, value, is_secret=key in keys.SECRETS)


def _variable(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.upper())


def _addressed(tables: list[_Named], variables: Mapping[str, str], variable: str, rest: str) -> tuple[_Named, str]:
    """The table and key that PREFIX<rest> means."""
    if rest in variables and len(tables) == 1:
        return tables[0], variables[rest]
    for table in tables:
        name, key = f"{_variable(table.name)}_", rest.removeprefix(f"{_variable(table.name)}_")
        if rest.startswith(name) and key in variables:
            return table, variables[key]
    names = ", ".join(table.name for table in tables)
    raise Fault(
        "config-invalid",
        f"the environment variable {variable} overrides nothing: expected [NAME_]KEY with NAME of {names}"
        f" and KEY of {', '.join(variables)}",
        hint=f"correct or unset {variable}",
    )


def _overriding(read: keys.Reader, variable: str, value: str, *, is_secret: bool) -> Any:
    is_number = value.isascii() and value.isdigit() and len(value) < 20 and not is_secret
    try:
        return read(int(value) if is_number else value)
    except (ValueError, OverflowError) as error:
        raise Fault("config-invalid", f"the environment variable {variable}: {error}") from None
