"""Where a backup's tablespaces go (pure), and rule A: never where they came from, unless that was asked for.

Rule A.  A cluster's tablespaces are absolute paths.  A recovery on production's own host that writes to them, or that
replays CREATE TABLESPACE (which links to the *original* path, tablespace.c, create_tablespace_directories), writes
into the live server's files.  So:

1. The default target is `<DIR>-tablespaces/<oid>`, beside the data directory.
2. The original path is a target only by an explicit mapping OLD=OLD, and only if what is there is empty and no running
   server links it (`preflight`).
3. CREATE TABLESPACE in the WAL to be replayed whose original path exists on this host is refused.  No flag changes it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pgkeep.errors import Fault
from pgkeep.format.manifest import Tablespace
from pgkeep.pg.waldump import TablespaceCreated


@dataclass(frozen=True, slots=True)
class MappedTablespace:
    """A linked tablespace: OID, name, where it was and where it goes (absolute paths)."""

    oid: int
    name: str
    source: str
    target: str
    explicit: bool
    """Mapped by the user; only then may `target` be `source`."""


def parse_mapping(text: str) -> tuple[str, str]:
    """'OLD=NEW' -> both as absolute, normalised paths; `\\=` is a '=' within a path, as for pg_basebackup."""
    parts = [part.replace("\0", "=") for part in text.replace("\\=", "\0").split("=")]
    if len(parts) != 2 or not all(part.startswith("/") for part in parts):
        raise Fault(
            "usage",
            f"not a tablespace mapping: {text!r}, expected OLD=NEW with two absolute paths",
            hint=r"write --tablespace-map /srv/fast=/srv/restored-fast ('\=' for a '=' within a path)",
        )
    return os.path.normpath(parts[0]), os.path.normpath(parts[1])


def map_tablespaces(
    tablespaces: Sequence[Tablespace], directory: str, mappings: Mapping[str, str]
) -> tuple[MappedTablespace, ...]:
    """Where each linked tablespace goes.  `usage` for a mapping of what the backup does not have.

    `target-unsafe` when two would share a directory, or one would lie within the data directory; `tablespace-unsafe`
    when one would go to its original path although nobody mapped it there.
    """
    linked = [space for space in tablespaces if space.location]
    known = {os.path.normpath(os.fsdecode(space.location)) for space in linked}
    if unknown := sorted(set(mappings) - known):
        listed = ", ".join(sorted(known)) or "none"
        raise Fault(
            "usage",
            f"the backup has no tablespace at {unknown[0]} (it has: {listed})",
            hint="name the original path on the left: --tablespace-map OLD=NEW",
        )
    mapped = tuple(_map(space, directory, mappings) for space in linked)
    _check_apart(mapped, directory)
    return mapped


def default_target(directory: str, oid: int) -> str:
    """Where a tablespace goes unless it is mapped: beside the data directory."""
    return f"{directory.rstrip('/')}-tablespaces/{oid}"


def _map(space: Tablespace, directory: str, mappings: Mapping[str, str]) -> MappedTablespace:
    source = os.path.normpath(os.fsdecode(space.location))
    name = space.name.decode("utf-8", "backslashreplace")
    default = default_target(directory, space.oid)
    if source == default and source not in mappings:
        raise Fault(
            "tablespace-unsafe",
            f"tablespace {name} would go to {default}, which is where it came from",
            hint="restore into another directory, or say so with"
            f" {shlex.join(['--tablespace-map', f'{source}={source}'])} (it must be empty and unused)",
        )
    return MappedTablespace(space.oid, name, source, mappings.get(source, default), source in mappings)


def _check_apart(mapped: Sequence[MappedTablespace], directory: str) -> None:
    taken: dict[str, str] = {directory: "the data directory"}
    for space in mapped:
        for other, whose in taken.items():
            if _overlap(space.target, other):
                raise Fault(
                    "target-unsafe",
                    f"tablespace {space.name} would go to {space.target}, which overlaps {whose} ({other})",
                    hint="give each tablespace a directory of its own with --tablespace-map OLD=NEW",
                )
        taken[space.target] = f"tablespace {space.name}"


def _overlap(one: str, other: str) -> bool:
    return (one + "/").startswith(other + "/") or (other + "/").startswith(one + "/")


def root_of(path: bytes, roots: Mapping[int, int]) -> tuple[int, bytes]:
    """(root number, path below it) of a backup's path; `roots` numbers the linked tablespaces by OID, 0 is the rest.

    The link itself, `pg_tblspc/<oid>`, belongs to root 0.
    """
    if path.startswith(b"pg_tblspc/"):
        parts = path.split(b"/", 2)
        if len(parts) == 3 and parts[1].isdigit() and (root := roots.get(int(parts[1]))) is not None:
            return root, parts[2]
    return 0, path


def check_created(created: Iterable[TablespaceCreated], existing: frozenset[str]) -> list[str]:
    """Rule A.3: `tablespace-unsafe` when the path of one of `created` is in `existing` (on this host).

    Otherwise the paths at which replay will stop until somebody makes an empty directory there.
    """
    missing: dict[str, None] = {}
    for space in created:
        if not space.path:
            continue
        if space.path in existing:
            raise Fault(
                "tablespace-unsafe",
                f"the WAL to be replayed creates tablespace {space.oid} in {space.path} (at {space.lsn}), which exists"
                " on this host: recovery would write into it",
                hint="take a backup made after that CREATE TABLESPACE as the base (--backup), restore on another host,"
                f" or move {space.path} away first",
                path=space.path,
            )
        missing[space.path] = None
    return list(missing)
