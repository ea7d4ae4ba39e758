"""Whether a scanned data directory holds what a restored server cannot start without.  Pure: no file is opened.

A file that vanished while the directory was listed is no error in itself, since tables are dropped at any time.  So
absence must be judged against what has to be there: the files of every database and tablespace that the catalogs
name, and every segment of a relation below its last one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from pgkeep.errors import Fault
from pgkeep.pg.controlfile import CONTROL_FILE
from pgkeep.pg.datadir import DataDirectory
from pgkeep.pg.entry import Entry, EntryType
from pgkeep.pg.relfile import PG_DEFAULT, PG_GLOBAL, Fork
from pgkeep.pg.relmap import RELMAP_NAME

_FILES: Final = ("PG_VERSION", CONTROL_FILE, f"global/{RELMAP_NAME}")
_DIRECTORIES: Final = ("base", "pg_multixact", "pg_tblspc", "pg_wal", "pg_xact")


class DatabaseHome(NamedTuple):
    """A row of pg_database: its OID, and the OID of its tablespace (dattablespace)."""

    oid: int
    tablespace: int


def check_complete(
    directory: DataDirectory, databases: Iterable[DatabaseHome], tablespaces: Iterable[int]
) -> Fault | None:
    """The first thing that is missing, as a Fault 'datadir-invalid'; None if the backup would be complete.

    `databases` are those that stood in pg_database before the scan began and still do after it, without those that a
    failed DROP DATABASE left invalid (datconnlimit = -2).  `tablespaces` are the OIDs in pg_tablespace, likewise.
    A relation that is being dropped can look like one with a gap for a moment: scan once more before believing it.
    """
    missing = _missing(directory.entries, _required(directory.version_directory, databases, tablespaces))
    if missing:
        return Fault(
            "datadir-invalid",
            f"{missing} is not in the data directory {directory.path}, expected it there while its database or"
            " tablespace exists",
            hint="check that every file system of the cluster is mounted and readable",
        )
    gap = _gap(directory.entries)
    if gap is None:
        return None
    return Fault(
        "datadir-invalid",
        f"{gap[0]} is there, but no segment {gap[1]} of the same relation, expected segments without a gap",
        hint="compare with pg_class.relfilenode: a relation that is there has lost data, so restore it from an older"
        " backup; files that no relation owns were left by a crash, and may be moved away",
    )


def _required(
    version_directory: str, databases: Iterable[DatabaseHome], tablespaces: Iterable[int]
) -> Iterable[tuple[str, EntryType]]:
    """Paths that must be there, and whether as a file or a directory."""
    yield from ((path, EntryType.FILE) for path in _FILES)
    yield from ((path, EntryType.DIRECTORY) for path in _DIRECTORIES)
    for database in databases:
        home = _home(version_directory, database)
        yield f"{home}/PG_VERSION", EntryType.FILE
        yield f"{home}/{RELMAP_NAME}", EntryType.FILE
    for oid in tablespaces:
        if oid not in (PG_DEFAULT, PG_GLOBAL):
            yield f"pg_tblspc/{oid}/{version_directory}", EntryType.DIRECTORY


def _home(version_directory: str, database: DatabaseHome) -> str:
    """GetDatabasePath of common/relpath.c."""
    if database.tablespace == PG_DEFAULT:
        return f"base/{database.oid}"
    return f"pg_tblspc/{database.tablespace}/{version_directory}/{database.oid}"


def _missing(entries: Iterable[Entry], required: Iterable[tuple[str, EntryType]]) -> str | None:
    """The first path, in byte order, that is required and not there with content (files) or as a directory."""
    wanted = dict(required)
    for entry in entries:
        kind = wanted.get(entry.path)
        if kind is entry.type and (kind is EntryType.DIRECTORY or entry.size > 0):
            del wanted[entry.path]
    return min(wanted, default=None)


def _gap(entries: Iterable[Entry]) -> tuple[str, int] | None:
    """(a segment's path, a lower number that is missing) where a main fork has a hole; None if there is none.

    Relies on the order of entries: segments of a relation follow its first one.  An empty first segment means that
    the relation is being dropped or truncated (mdunlinkfork of md.c): then later segments may be in any state.
    """
    stem, dropped, segments = "", False, list[int]()
    for entry in entries:
        if entry.fork is not Fork.MAIN:
            continue
        path, _, segment = entry.path.partition(".")
        if path != stem:
            if (gap := _hole(stem, segments)) is not None:
                return gap
            stem, dropped, segments = path, not segment and entry.size == 0, []
        if not dropped:
            segments.append(int(segment or 0))
    return _hole(stem, segments)


def _hole(stem: str, segments: list[int]) -> tuple[str, int] | None:
    for expected, number in enumerate(sorted(segments)):
        if number != expected:
            return f"{stem}.{number}", expected
    return None
