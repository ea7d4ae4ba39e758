"""Names of relation files: which relation, fork and segment a path in a data directory is (common/relpath.c).

Paths are relative to the data directory.  `base/5/16384_vm.1` is segment 1 of the visibility map of relation 16384 in
database 5 and tablespace pg_default.  What does not parse is not a relation, whatever it looks like: such a file is
copied as bytes.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

PG_DEFAULT: Final = 1663  # catalog/pg_tablespace.dat
PG_GLOBAL: Final = 1664
RELSEG_SIZE: Final = 131072  # pages in a segment file of 1 GiB; pg_control says what the cluster was built with
_LARGEST_OID: Final = 0xFFFFFFFF
_LARGEST_SEGMENT: Final = 0xFFFFFFFF

_FORKS: Final = "fsm|vm|init"
# from parse_filename_for_nontemp_relation of storage/file/reinit.c: no leading zeros
_NAME: Final = re.compile(rf"([1-9][0-9]{{0,9}})(?:_({_FORKS}))?(?:\.([1-9][0-9]{{0,9}}))?")
# from looks_like_temp_rel_name of storage/file/fd.c
_TEMPORARY: Final = re.compile(rf"t[0-9]+_[0-9]+(?:_(?:{_FORKS}))?(?:\.[0-9]+)?")
_OID: Final = re.compile(r"[1-9][0-9]{0,9}")


class Fork(IntEnum):
    """ForkNumber of common/relpath.h."""

    MAIN = 0
    FSM = 1
    VM = 2
    INIT = 3


_FORK_OF: Final = {None: Fork.MAIN, "fsm": Fork.FSM, "vm": Fork.VM, "init": Fork.INIT}


class RelationName(NamedTuple):
    """What a file name says: relfilenode, fork, and number of the segment (0 for the first)."""

    number: int
    fork: Fork
    segment: int


class RelationFile(NamedTuple):
    """Which piece of which relation a file is.  `database` is 0 for shared relations."""

    tablespace: int
    database: int
    number: int
    fork: Fork
    segment: int

    def first_block(self, relseg_size: int = RELSEG_SIZE) -> int:
        """The number within the relation of the file's first page; page checksums are mixed with it."""
        return self.segment * relseg_size


def parse_oid(name: str) -> int | None:
    """The OID that a directory is named after; None for any other name."""
    if _OID.fullmatch(name) is None:
        return None
    oid = int(name)
    return oid if oid <= _LARGEST_OID else None


def parse_relation_name(name: str) -> RelationName | None:
    """Read the name of a file in a database's directory; None for temporary relations and everything else."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    number, segment = int(match[1]), int(match[3] or 0)
    if number > _LARGEST_OID or segment * RELSEG_SIZE > _LARGEST_SEGMENT:
        return None
    return RelationName(number, _FORK_OF[match[2]], segment)


def is_temporary_relation(name: str) -> bool:
    """True for `t<backend>_<relfilenode>`, its forks and segments."""
    return _TEMPORARY.fullmatch(name) is not None


@lru_cache(maxsize=64)
def relation_home(directory: str) -> tuple[int, int] | None:
    """(tablespace OID, database OID) of a directory that holds relations; None for any other.

    These are `global`, `base/<database>` and `pg_tblspc/<tablespace>/PG_<version>/<database>`.
    """
    parts = directory.split("/")
    match parts:
        case ["global"]:
            return PG_GLOBAL, 0
        case ["base", name]:
            database = parse_oid(name)
            return None if database is None else (PG_DEFAULT, database)
        case ["pg_tblspc", space, version, name] if version.startswith("PG_"):
            tablespace, database = parse_oid(space), parse_oid(name)
            return None if tablespace is None or database is None else (tablespace, database)
        case _:
            return None


@lru_cache(maxsize=8)  # whoever plans a backup asks twice for each of a million files
def relation_of(path: str) -> RelationFile | None:
    """Which relation's file `path` is; None if it is none."""
    directory, _, name = path.rpartition("/")
    found = parse_relation_name(name)
    home = relation_home(directory) if found is not None else None
    if found is None or home is None:
        return None
    return RelationFile(*home, found.number, found.fork, found.segment)
