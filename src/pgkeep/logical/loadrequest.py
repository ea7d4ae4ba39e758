"""What is asked of a load, and what there is to say of it before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pgkeep.logical.ownermap import mapped_entry
from pgkeep.logical.selection import Chosen
from pgkeep.logical.source import Kind, Source
from pgkeep.pg.dumptoc import TocEntry


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know; `code` is permanent."""

    code: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What was asked for, besides the source and the server.  `jobs` None: as many as are sensible."""

    database: str
    chosen: Chosen = field(default_factory=Chosen)
    jobs: int | None = None
    clean: bool = False
    role: str = ""
    keep: bool = False
    disable_triggers: bool = False
    owners: Mapping[str, str] = field(default_factory=dict)
    """Roles of the dump that others stand for; the source's table of contents is mapped already."""
    text_encoding: str = ""
    """What the text of a dump in SQL_ASCII is taken for: the encoding of the database, which checks it then."""

    @property
    def changes_archive(self) -> bool:
        """The program reads an archive that is not byte for byte the dump's."""
        return bool(self.owners or self.text_encoding)

    def changed(self, entry: TocEntry) -> TocEntry:
        """An item as the program reads it."""
        if entry.desc == "ENCODING" and self.text_encoding:
            return replace(entry, definition=f"SET client_encoding = '{self.text_encoding}';\n")
        return mapped_entry(entry, self.owners)


def is_streamed(source: Source, request: LoadRequest) -> bool:
    """A file that the program cannot open by itself, or that gets another table of contents on its way to it."""
    return source.kind is not Kind.DIRECTORY and (source.direct_path is None or request.changes_archive)
