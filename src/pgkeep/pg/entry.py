"""Paths of a data directory as values, and as columns where there are a million of them.

`datadir` finds them; what they are to a backup is said here alone.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterable, Iterator
from enum import IntEnum
from itertools import islice
from typing import Final, NamedTuple

from pgkeep.pg.relfile import Fork, RelationFile, relation_of

_CHUNK: Final = 1024
"""Paths that are kept in one piece."""
_NO_FORK: Final = 255


class EntryType(IntEnum):
    """What a path is."""

    FILE = 0
    DIRECTORY = 1
    LINKED_TABLESPACE = 2
    """A symbolic link in pg_tblspc; what it leads to follows beneath its path."""
    IN_PLACE_TABLESPACE = 3
    """A plain directory in pg_tblspc (allow_in_place_tablespaces); not in tablespace_map."""


class Unit(IntEnum):
    """What a file is made of."""

    BYTES = 0
    PAGES = 1


class Entry(NamedTuple):
    """One path of a backup.

    `mode` holds the permission bits, `size` bytes (0 unless a file), `fork` is set for relation files, `target` is
    where a linked tablespace leads, as the link says.
    """

    path: str
    type: EntryType
    mode: int
    size: int = 0
    fork: Fork | None = None
    target: str = ""

    @property
    def unit(self) -> Unit:
        """PAGES for every fork of a relation: all have page headers and, where they are on, checksums."""
        return Unit.BYTES if self.fork is None else Unit.PAGES

    @property
    def inheritable(self) -> bool:
        """Whether pages may be taken from a base backup by their LSN.

        Main forks alone: fsm and vm change without a new LSN, init forks are not read through shared buffers.
        """
        return self.fork is Fork.MAIN

    @property
    def relation(self) -> RelationFile | None:
        """Which relation's file this is; None unless `fork` is set."""
        return None if self.fork is None else relation_of(self.path)


class EntryTable(Collection[Entry]):
    """Entries kept as columns, in the order given: the path's bytes and 13 more, where an Entry takes 250.

    Iterating makes the entries anew.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._paths: list[bytes] = []
        self._types = array("B")
        self._modes = array("H")
        self._sizes = array("Q")
        self._forks = array("B")
        self._targets: dict[int, str] = {}
        source = iter(entries)
        while chunk := list(islice(source, _CHUNK)):
            self._extend(chunk)

    def _extend(self, entries: list[Entry]) -> None:
        first = len(self)
        self._targets.update((first + n, entry.target) for n, entry in enumerate(entries) if entry.target)
        self._paths.append(b"\0".join(os.fsencode(entry.path) for entry in entries))
        self._types.extend(entry.type for entry in entries)
        self._modes.extend(entry.mode for entry in entries)
        self._sizes.extend(entry.size for entry in entries)
        self._forks.extend(_NO_FORK if entry.fork is None else entry.fork for entry in entries)

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, entry: object) -> bool:
        return any(entry == each for each in self)

    def __iter__(self) -> Iterator[Entry]:
        columns = zip(self._all_paths(), self._types, self._modes, self._sizes, self._forks, strict=True)
        for number, (path, kind, mode, size, fork) in enumerate(columns):
            target = self._targets.get(number, "")
            yield Entry(path, _TYPES[kind], mode, size, None if fork == _NO_FORK else _FORKS[fork], target)

    def _all_paths(self) -> Iterator[str]:
        for chunk in self._paths:
            yield from map(os.fsdecode, chunk.split(b"\0"))


# Looked up by position: calling an enumeration costs more than all else that makes an entry.
_TYPES: Final = tuple(EntryType)
_FORKS: Final = tuple(Fork)
