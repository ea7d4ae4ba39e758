"""The data directory: which paths belong to a backup, and what each of them is (backup/basebackup.c, sendDir).

Rules of this file:

1. `scan` lists what a backup of a running cluster must hold; it opens no file but PG_VERSION and pg_control.  What is
   left out stands in the tables below, and nowhere else.
2. Paths are relative to the data directory, '/'-separated, as `str` with surrogateescape: any byte but NUL may occur.
   Entries come in strictly ascending order of their paths' bytes.
3. A file that vanishes meanwhile is no error, nor is the directory of a database that is dropped; any other directory
   that vanishes is.  `check_complete` then says whether what must be there is there.
4. Symbolic links are followed in pg_tblspc, and beneath a tablespace only the directory `PG_<version>_<catversion>` of
   this server is read: others may share the location (pg_upgrade).  pg_wal and directories whose content is left out
   may be links too, and are listed as directories.  Any other link is a fault: what it names would be missing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from pgkeep.errors import Fault
from pgkeep.pg.controlfile import CONTROL_FILE, ControlFile, read_control
from pgkeep.pg.entry import Entry, EntryTable, EntryType
from pgkeep.pg.relfile import (
    Fork,
    is_temporary_relation,
    parse_oid,
    parse_relation_name,
    relation_home,
)

# excludeDirContents: emptied or rebuilt when a server starts, or wrong for it
CONTENT_LEFT_OUT: Final = frozenset(
    {
        "pg_dynshmem",
        "pg_notify",
        "pg_replslot",
        "pg_serial",
        "pg_snapshots",
        "pg_stat_tmp",
        "pg_subtrans",
        "pg_wal",  # WAL comes from the archive
    }
)
# excludeFiles, in the top directory
FILES_LEFT_OUT: Final = frozenset(
    {
        "backup_label",  # the backup brings its own
        "backup_manifest",  # of the backup that this server came from
        "current_logfiles.tmp",
        "postgresql.auto.conf.tmp",
        "postmaster.opts",
        "postmaster.pid",
        "tablespace_map",
        "pgkeep.instance",  # the WAL claim's token: a copy must not pass for this instance
    }
)
# in the top directory: the state of a restore of ours
PREFIX_LEFT_OUT: Final = "pgkeep.restore"
# anywhere: PG_TEMP_FILE_PREFIX of storage/fd.h
TEMPORARY_PREFIX: Final = "pgsql_tmp"
# in directories of relations: RELCACHE_INIT_FILENAME, and the files it is renamed from
RELCACHE_PREFIX: Final = "pg_internal.init"
# Directories that a restored server wants inside pg_wal, and since when.
WAL_DIRECTORIES: Final = (("archive_status", 14), ("summaries", 17))

_MAJOR: Final = re.compile(r"([0-9]{1,4})\n?")
_DIRECTORY_MODE: Final = 0o700  # pg_dir_create_mode, where a link stands for a directory


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """What `scan` found: entries in ascending order, and what a report should mention."""

    path: str
    major: int
    control: ControlFile
    entries: Collection[Entry] = field(repr=False)
    skipped: tuple[str, ...]
    """Sockets, pipes and devices: not in the backup, as pg_basebackup leaves them out with a warning."""
    vanished: tuple[str, ...]
    """Files and database directories that were listed and gone a moment later."""

    @property
    def version_directory(self) -> str:
        """TABLESPACE_VERSION_DIRECTORY: the server's own directory in every tablespace."""
        return version_directory(self.major, self.control)

    @property
    def tablespaces(self) -> tuple[Entry, ...]:
        """The linked and in-place tablespaces."""
        return tuple(entry for entry in self.entries if entry.type >= EntryType.LINKED_TABLESPACE)


def version_directory(major: int, control: ControlFile) -> str:
    """`PG_<major>_<catversion>` (common/relpath.h)."""
    return f"PG_{major}_{control.catalog_version}"


def tablespace_oid(entry: Entry) -> int:
    """The OID of a tablespace's entry; ValueError for any other."""
    return int(entry.path.removeprefix("pg_tblspc/"))


def read_major(pgdata: str) -> int:
    """The major version in PG_VERSION; Fault 'datadir-invalid' when it cannot be read or is none."""
    path = os.path.join(pgdata, "PG_VERSION")
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(64)
    except OSError as error:
        raise Fault(
            "datadir-invalid",
            f"{path} could not be read: {error.strerror}, expected a PostgreSQL data directory",
            hint="name the data directory (SHOW data_directory), and run pgkeep under the account that owns it",
        ) from error
    match = _MAJOR.fullmatch(text)
    if match is None:
        raise Fault("datadir-invalid", f"{path} holds {text!r}, expected a major version like 17")
    return int(match[1])


def scan(pgdata: str) -> DataDirectory:
    """List what a backup of `pgdata` must hold.

    Raises Fault 'datadir-invalid' for a directory that is none or has foreign links, 'postgres-version' for a version
    that pgkeep does not know, 'io' when something cannot be read.
    """
    major = read_major(pgdata)
    control = read_control(os.path.join(pgdata, CONTROL_FILE))
    if major not in control.majors:
        raise Fault(
            "postgres-version",
            f"PG_VERSION says {major}, but pg_control has version {control.control_version}, expected a cluster of"
            f" PostgreSQL {' or '.join(map(str, control.majors))}",
            hint="pgkeep supports PostgreSQL 14 to 18",
        )
    walk = Walk(pgdata, major, version_directory(major, control))
    entries = EntryTable(walk)
    return DataDirectory(pgdata, major, control, entries, tuple(walk.skipped), tuple(walk.vanished))


class Walk:
    """The entries of one pass over a data directory, one after another, for callers that cannot hold them all.

    `skipped` and `vanished` grow while it goes on.  Raises Faults as `scan` does.
    """

    def __init__(self, pgdata: str, major: int, versioned: str) -> None:
        self.skipped: list[str] = []
        self.vanished: list[str] = []
        self._root = pgdata
        self._wal_directories = [name for name, since in WAL_DIRECTORIES if major >= since]
        self._versioned = versioned
        self._tablespaces_inside = frozenset(self._inside())

    def __iter__(self) -> Iterator[Entry]:
        return self._beneath("", self._names(""))

    def _beneath(self, directory: str, names: list[str]) -> Iterator[Entry]:
        """What lies in a directory, at any depth, in the order of whole paths.

        A directory's content waits until no sibling sorts before it: "a.b" comes between "a" and "a/".  The one that
        was found last has to come first.
        """
        prefix = f"{directory}/" if directory else ""
        unlogged = None if relation_home(directory) is None else _unlogged(names)
        waiting: list[Entry] = []
        _sort(names)
        for name in names:
            path = prefix + name
            while waiting and os.fsencode(f"{waiting[-1].path}/") < os.fsencode(path):
                yield from self._content(waiting.pop())
            entry = self._entry(path) if unlogged is None else self._relation(path, name, unlogged)
            if entry is not None:
                yield entry
                if entry.type is not EntryType.FILE:
                    waiting.append(entry)
        while waiting:
            yield from self._content(waiting.pop())

    def _content(self, entry: Entry) -> Iterator[Entry]:
        """What belongs to the backup beneath a directory or a tablespace."""
        path = entry.path
        if entry.type is not EntryType.DIRECTORY:
            yield from self._beneath(path, [self._versioned])
        elif path == "pg_wal":
            for name in self._wal_directories:
                yield Entry(f"pg_wal/{name}", EntryType.DIRECTORY, entry.mode)
        elif path not in CONTENT_LEFT_OUT and path not in self._tablespaces_inside:
            yield from self._beneath(path, self._names(path))

    def _relation(self, path: str, name: str, unlogged: frozenset[int]) -> Entry | None:
        """The entry of a path in a directory of relations.

        Unlogged relations keep their init fork alone, temporary relations and the relation cache nothing.
        """
        found = parse_relation_name(name)
        if found is not None:
            left_out = found.number in unlogged and found.fork is not Fork.INIT
            return None if left_out else self._entry(path, found.fork)
        if name.startswith(RELCACHE_PREFIX) or is_temporary_relation(name):
            return None
        return self._entry(path)

    def _entry(self, path: str, fork: Fork | None = None) -> Entry | None:
        """The entry of a path; None if it vanished or is of no kind that a backup can hold."""
        try:
            found = os.lstat(f"{self._root}/{path}")
        except FileNotFoundError:
            self.vanished.append(path)
            return None
        except OSError as error:
            raise _unreadable(f"{self._root}/{path}", error) from error
        if stat.S_ISREG(found.st_mode):
            return Entry(path, EntryType.FILE, stat.S_IMODE(found.st_mode), found.st_size, fork)
        return self._other(path, found.st_mode)

    def _other(self, path: str, mode: int) -> Entry | None:
        """The entry of what is no regular file; None for sockets, pipes and devices, which are noted."""
        is_tablespace = path.startswith("pg_tblspc/") and parse_oid(path[10:]) is not None
        if stat.S_ISDIR(mode):
            kind = EntryType.IN_PLACE_TABLESPACE if is_tablespace else EntryType.DIRECTORY
            return Entry(path, kind, stat.S_IMODE(mode))
        if not stat.S_ISLNK(mode):
            self.skipped.append(path)
            return None
        if is_tablespace:
            return Entry(path, EntryType.LINKED_TABLESPACE, stat.S_IMODE(mode), target=self._target(path))
        if path in CONTENT_LEFT_OUT:
            return Entry(path, EntryType.DIRECTORY, _DIRECTORY_MODE)
        raise _foreign_link(f"{self._root}/{path}")

    def _names(self, directory: str) -> list[str]:
        """The names in a directory that may belong to a backup."""
        path = f"{self._root}/{directory}" if directory else self._root
        try:
            names = [name for name in os.listdir(path) if not name.startswith(TEMPORARY_PREFIX)]
        except FileNotFoundError:
            home = relation_home(directory)
            if home is None or home[1] == 0:
                raise _vanished(path) from None
            self.vanished.append(directory)
            return []
        except OSError as error:
            raise _unreadable(path, error) from error
        if directory:
            return names
        return [name for name in names if not (name in FILES_LEFT_OUT or name.startswith(PREFIX_LEFT_OUT))]

    def _target(self, path: str) -> str:
        try:
            return os.readlink(f"{self._root}/{path}")
        except OSError as error:
            raise _unreadable(f"{self._root}/{path}", error) from error

    def _inside(self) -> Iterator[str]:
        """Paths of tablespaces whose location lies in the data directory itself: they are read once, by their link.

        PostgreSQL warns of such a location and allows it.
        """
        root = os.path.realpath(self._root)
        for name in self._names("pg_tblspc"):
            link = f"{self._root}/pg_tblspc/{name}"
            location = os.path.realpath(link)
            if os.path.islink(link) and location.startswith(f"{root}/"):
                yield os.path.relpath(location, root)


def _sort(names: list[str]) -> None:
    """By their bytes; a million names need no million keys for it where text sorts as its bytes do."""
    if all(map(str.isascii, names)):
        names.sort()
    else:
        names.sort(key=os.fsencode)


def _unlogged(names: list[str]) -> frozenset[int]:
    """The relations among the names of a directory that have an init fork."""
    found = (parse_relation_name(name) for name in names if "_init" in name)
    return frozenset(each.number for each in found if each is not None and each.fork is Fork.INIT)


def _foreign_link(path: str) -> Fault:
    return Fault(
        "datadir-invalid",
        f"{path} is a symbolic link, expected links in pg_tblspc and for pg_wal alone",
        hint="move what it names into the data directory, or let a setting name it (log_directory, ssl_cert_file)",
    )


def _vanished(path: str) -> Fault:
    return Fault(
        "datadir-invalid",
        f"the directory {path} is not there, expected it to stay while the cluster runs",
        hint="check that no file system was unmounted, and start the backup again",
    )


def _unreadable(path: str, error: OSError) -> Fault:
    return Fault(
        "io",
        f"{path} could not be read: {error.strerror}, expected every path of the data directory to be readable",
        hint="run pgkeep under the account that owns the data directory",
    )
