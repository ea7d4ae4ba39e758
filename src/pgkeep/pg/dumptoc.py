"""The table of contents of a pg_dump archive: custom files, and the toc.dat of directories and tar files.

1. The source of the layout is pg_backup_archiver.c (ReadHead, ReadToc, ReadInt, ReadStr, ReadOffset), archive versions
   1.12 (PostgreSQL 9.3) to 1.16 (17 and 18).
2. Names, owners and statements come out as they are, read in the encoding that the archive says it is in; `pg_restore
   --list` replaces line ends and separates fields that may hold blanks by blanks: nobody can tell hostile names apart
   there.
3. Foreign bytes: every length is checked before it is believed; what is not an archive is Fault 'dump-damaged', and a
   newer archive version is 'dump-unsupported'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pgkeep.errors import Fault
from pgkeep.pg.encodings import codec_of
from pgkeep.pg.sqltext import printable

MAGIC: Final = b"PGDMP"
_OLDEST: Final = (1, 12)
_NEWEST: Final = (1, 16)
_FIRST_MAJOR: Final = {(1, 12): 9, (1, 13): 10, (1, 14): 12, (1, 15): 16, (1, 16): 17}
"""The first major version whose pg_restore reads an archive version (pg_backup_archiver.h)."""
_FORMATS: Final = {1: "custom", 3: "tar", 5: "directory"}
_LONGEST: Final = 1 << 28
"""Bytes of one text: a statement of 256 MiB is no table of contents any more."""
_MOST_ENTRIES: Final = 10_000_000
_ENCODING: Final = re.compile(r"'([^']*)'")
_VERSION: Final = re.compile(r"(\d+)")

Read = Callable[[int], bytes]
"""Exactly that many bytes, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class TocEntry:
    """One item of an archive; texts that the archive leaves out are ''.

    `desc` is pg_dump's word for the kind (TABLE, TABLE DATA, FK CONSTRAINT ...), `section` 2 to 4 pre-data, data and
    post-data (1: none), `filename` where a directory keeps its data.
    """

    dump_id: int
    tableoid: int
    oid: int
    has_data: bool
    tag: str
    desc: str
    section: int
    definition: str
    drop: str
    copy: str
    namespace: str
    tablespace: str
    owner: str
    dependencies: tuple[int, ...]
    filename: str

    @property
    def name(self) -> str:
        """'schema.name' for people."""
        return printable(f"{self.namespace}.{self.tag}" if self.namespace else self.tag)


@dataclass(frozen=True, slots=True)
class Toc:
    """An archive's head and all its items in the order of the archive.  `created` has no zone: the dump's own."""

    version: tuple[int, int]
    format: str
    created: datetime | None
    dbname: str
    server_version: str
    program_version: str
    entries: tuple[TocEntry, ...]

    @property
    def needs_major(self) -> int:
        """The first major version whose pg_restore reads this archive."""
        return _FIRST_MAJOR[self.version]

    @property
    def server_major(self) -> int:
        """Of the server that was dumped; 0 when the archive does not say."""
        return major_of(self.server_version)


def major_of(version: str) -> int:
    """18 for '18.6 (Debian 18.6-1)', 0 for nothing."""
    match = _VERSION.match(version)
    return int(match[1]) if match else 0


def read_toc(read: Read, name: str) -> Toc:
    """Read the head of a custom archive, or a whole toc.dat; `name` is for messages."""
    return TocReader(read, name).toc()


class TocReader:
    """Reads one table of contents; `toccopy` hooks in where bytes, texts and items are read."""

    def __init__(self, read: Read, name: str) -> None:
        self._read, self._name = read, name
        self._int_size = self._offset_size = 4
        self._version = (0, 0)
        self._codec = "utf-8"

    def toc(self) -> Toc:
        if self._bytes(5) != MAGIC:
            raise self._damaged("it does not begin like an archive of pg_dump")
        self._version = (self._byte(), self._byte())
        self._byte()  # the revision
        if not _OLDEST <= self._version <= _NEWEST:
            shown = ".".join(map(str, self._version))
            raise Fault(
                "dump-unsupported",
                f"{self._name} is an archive of version {shown}, expected 1.12 (PostgreSQL 9.3) to 1.16 (18)",
                hint="restore it with the pg_restore that belongs to it, or use a newer pgkeep",
            )
        self._int_size, self._offset_size = self._byte(), self._byte()
        format_number = self._byte()
        if self._int_size not in (4, 8) or self._offset_size not in (4, 8) or format_number not in _FORMATS:
            raise self._damaged("its head is not one that pg_dump writes")
        self._byte() if self._version >= (1, 15) else self._int()  # compression
        created = self._created()
        dbname, server, program = self._text(), self._text(), self._text()
        count = self._int()
        if not 0 <= count <= _MOST_ENTRIES:
            raise self._damaged(f"it announces {count} entries")
        is_custom = _FORMATS[format_number] == "custom"
        entries = tuple(self._entry(is_custom=is_custom) for _ in range(count))
        return Toc(self._version, _FORMATS[format_number], created, dbname, server, program, entries)

    def _created(self) -> datetime | None:
        second, minute, hour, day, month, year, _ = (self._int() for _ in range(7))
        try:
            return datetime(1900 + year, month + 1, day, hour, minute, min(second, 59))  # noqa: DTZ001 - it has none
        except (ValueError, OverflowError):
            return None

    def _entry(self, *, is_custom: bool) -> TocEntry:
        dump_id, had_dumper = self._int(), self._int()
        tableoid, oid = self._number(), self._number()
        tag, desc, section = self._text(), self._text(), self._int()
        definition, drop, copy, namespace, tablespace = (self._text() for _ in range(5))
        if self._version >= (1, 14):
            self._text()  # the table access method
        if self._version >= (1, 16):
            self._int()  # relkind
        owner = self._text()
        self._text()  # whether it has OIDs
        dependencies = []
        while (needed := self._text_or_none()) is not None:
            dependencies.append(self._parsed(needed))
        if desc == "ENCODING" and (named := _ENCODING.search(definition)):  # the first item: what follows is in it
            self._codec = codec_of(named[1])
        filename = ""
        if is_custom:
            self._bytes(1 + self._offset_size)
        else:
            filename = self._text()
        return TocEntry(
            dump_id, tableoid, oid, had_dumper != 0, tag, desc, section, definition, drop, copy, namespace,
            tablespace, owner, tuple(dependencies), filename,
        )  # fmt: skip

    def _number(self) -> int:
        return self._parsed(self._text() or "0")

    def _parsed(self, text: str) -> int:
        if not text.isdecimal() or len(text) > 10:
            raise self._damaged(f"{text[:40]!r} stands where a number should")
        return int(text)

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _int(self) -> int:
        raw = self._bytes(1 + self._int_size)
        value = int.from_bytes(raw[1:], "little")
        return -value if raw[0] else value

    def _text(self) -> str:
        return self._text_or_none() or ""

    def _text_or_none(self) -> str | None:
        length = self._int()
        if length < 0:
            return None
        if length > _LONGEST:
            raise self._damaged(f"it announces a text of {length} bytes")
        return self._bytes(length).decode(self._codec, "surrogateescape")

    def _bytes(self, count: int) -> bytes:
        found = self._read(count)
        if len(found) != count:
            raise self._damaged("its table of contents ends too early")
        return found

    def _damaged(self, what: str) -> Fault:
        return Fault(
            "dump-damaged",
            f"{self._name} is no whole archive: {what}",
            hint="take the file anew from where it was made; compare its size and checksum there",
        )
