"""What is asked for: which part of which databases, in which form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

Format = Literal["directory", "custom", "plain"]
Part = Literal["all", "schema", "data"]

FORMATS: Final = ("directory", "custom", "plain")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of a database is taken; patterns are pg_dump's own."""

    schemas: tuple[str, ...] = ()
    exclude_schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()
    filter: str | None = None
    """Absolute path of a filter file (pg_dump 17 and newer)."""
    part: Part = "all"
    owner: bool = True
    acl: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self == WHOLE

    def options(self) -> Iterator[str]:
        """As pg_dump takes them."""
        yield from (f"--schema={pattern}" for pattern in self.schemas)
        yield from (f"--exclude-schema={pattern}" for pattern in self.exclude_schemas)
        yield from (f"--table={pattern}" for pattern in self.tables)
        yield from (f"--exclude-table={pattern}" for pattern in self.exclude_tables)
        yield from (f"--exclude-table-data={pattern}" for pattern in self.exclude_table_data)
        if self.filter is not None:
            yield f"--filter={self.filter}"
        if self.part != "all":
            yield f"--{self.part}-only"
        if not self.owner:
            yield "--no-owner"
        if not self.acl:
            yield "--no-acl"


WHOLE: Final = Chosen()


@dataclass(frozen=True, slots=True)
class DumpRequest:
    """A dump to be taken.  `jobs` None: as many as there are cores here, in directory format."""

    name: str
    """Of the set to which it belongs."""
    database: str | None
    """None: every database."""
    chosen: Chosen = WHOLE
    format: Format = "directory"
    jobs: int | None = None
    compress: str | None = None
    """As pg_dump's --compress; None: what is best here."""
    inserts: bool = False
    lock_timeout: timedelta | None = None
    """How long pg_dump waits for a table's lock; None: as long as it takes."""
    program_major: int | None = None
    """The only version of pg_dump that will do."""
    label: str = ""
