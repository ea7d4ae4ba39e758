"""What a dump is, told by its bytes: an archive of pg_dump with its table of contents, or a script of plain SQL.

1. Names of files prove nothing: the kind and what compresses it outside are read from the first bytes.
2. Of a script the head is read, up to the first rows: what it makes before it fills anything.
3. A script that would choose a database by itself is refused: it is loaded into the one that was named, or not at all.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, Final, cast

from pgkeep.errors import Fault
from pgkeep.logical.content import Content, Reader, compression_of, unpacked
from pgkeep.logical.wholeness import check_directory, check_tar
from pgkeep.pg.dumptoc import MAGIC, Toc, major_of, read_toc

TOC: Final = "toc.dat"
_HEAD: Final = 512
_TAR_AT: Final = 257
_SCRIPT_HEAD: Final = 32 << 20
"""Bytes of a script that are looked at; everything is made before the first rows, or this far."""
_CLUSTER: Final = b"-- PostgreSQL database cluster dump"
_DUMP: Final = b"-- PostgreSQL database dump"
_ROWS: Final = re.compile(rb"^(COPY |INSERT INTO )", re.MULTILINE)
_META: Final = re.compile(rb"^\\(?!restrict |unrestrict |\.)(\S+).*$", re.MULTILINE)
_NAME: Final = r'((?:"(?:[^"]|"")*")|[^\s;,()"]+)'
_OWNER: Final = re.compile(rf"^ALTER [A-Z ]+ .*OWNER TO {_NAME};$", re.MULTILINE)
_EXTENSION: Final = re.compile(rf"^CREATE EXTENSION IF NOT EXISTS {_NAME}", re.MULTILINE)
_TABLE: Final = re.compile(rf"^CREATE (?:UNLOGGED |FOREIGN )?TABLE (?:ONLY )?{_NAME}\.{_NAME}", re.MULTILINE)
_FROM: Final = re.compile(rb"^-- Dumped (from database|by pg_dump) version (.*)$", re.MULTILINE)
_CREATES: Final = re.compile(rb"^CREATE DATABASE ", re.MULTILINE)
_ENCODING: Final = re.compile(rb"^SET client_encoding = '([^']*)';", re.MULTILINE)


class Kind(Enum):
    """What holds the dump."""

    CUSTOM = "custom"
    DIRECTORY = "directory"
    TAR = "tar"
    SCRIPT = "plain"


@dataclass(frozen=True, slots=True)
class Script:
    """The head of a script; '' and empty where it does not say.  Names are as in the SQL, without quotes."""

    by_pg_dump: bool
    server_version: str
    program_version: str
    encoding: str
    owners: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    tables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A dump that can be loaded: `toc` of an archive, `script` of plain SQL; sizes in bytes at rest."""

    content: Content
    kind: Kind
    compression: str
    """Outside: of the file as a whole."""
    toc: Toc | None
    script: Script | None
    part: str = ""
    """The one part of everything but a directory."""
    sizes: Mapping[int, int] = field(default_factory=dict)
    """Of a directory: bytes of each item's data, by dump id."""

    @property
    def size(self) -> int:
        return sum(self.content.parts.values())

    @property
    def server_version(self) -> str:
        return self.toc.server_version if self.toc is not None else self._script.server_version

    @property
    def server_major(self) -> int:
        return major_of(self.server_version)

    @property
    def program_version(self) -> str:
        return self.toc.program_version if self.toc is not None else self._script.program_version

    @property
    def _script(self) -> Script:
        assert self.script is not None
        return self.script

    @property
    def direct_path(self) -> str | None:
        """What pg_restore can open by itself: it is needed for --jobs."""
        if self.compression or self.content.path is None:
            return None
        return os.path.join(self.content.path, self.part) if self.part else self.content.path


def look_into(content: Content) -> Source:
    """What the content is.  Faults 'dump-damaged', 'dump-unsupported', 'io', and those of the repository."""
    if TOC in content.parts or len(content.parts) != 1:
        return _directory(content)
    (part,) = content.parts
    with closing(content.read(part)) as raw:  # type: ignore[type-var]  # all of them are generators
        first = Reader(raw).peek(_HEAD)
    compression = compression_of(first)
    with closing(unpacked(content, part, compression)) as chunks:  # type: ignore[type-var]
        return _file(content, part, compression, Reader(chunks))


def _directory(content: Content) -> Source:
    if TOC not in content.parts:
        compressed = sorted(name for name in content.parts if name.startswith(TOC))
        found = f"only {compressed[0]}" if compressed else f"{len(content.parts)} files, and none of that name"
        raise Fault(
            "dump-unsupported",
            f"{content.shown} is a directory without {TOC}, expected one that pg_dump made ({found})",
            hint="name the directory that pg_dump was given with --file, one database's of several, or one file",
        )
    with closing(content.read(TOC)) as raw:  # type: ignore[type-var]
        toc = read_toc(Reader(raw).read, f"{content.shown}/{TOC}")
    sizes = {}
    for entry in toc.entries:
        for suffix in ("", ".gz", ".lz4", ".zst"):
            if entry.filename and entry.filename + suffix in content.parts:
                sizes[entry.dump_id] = content.parts[entry.filename + suffix]
    _check_complete(content, toc)
    if content.path is not None:  # what the repository holds is proven by its hashes
        check_directory(content.path, content.parts, toc)
    return Source(content, Kind.DIRECTORY, "", toc, None, sizes=sizes)


def _check_complete(content: Content, toc: Toc) -> None:
    """A directory that lost a file should not be half loaded before pg_restore notices."""
    wanted = {entry.filename for entry in toc.entries if entry.filename}
    there = {name.removesuffix(suffix) for name in content.parts for suffix in (".gz", ".lz4", ".zst")}
    if missing := sorted(wanted - there - content.parts.keys()):
        raise Fault(
            "dump-damaged",
            f"{content.shown} is not complete: {len(missing)} of {len(wanted)} files of data are missing"
            f" ({missing[0]} ...)",
            hint="take the directory anew from where it was made",
        )


def _file(content: Content, part: str, compression: str, reader: Reader) -> Source:
    head = reader.peek(_HEAD)
    if head.startswith(MAGIC):
        return Source(content, Kind.CUSTOM, compression, read_toc(reader.read, content.shown), None, part)
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar" or head.startswith(TOC.encode() + b"\0"):
        toc = _tar_toc(content, reader)
        if content.path is not None and not compression:
            check_tar(os.path.join(content.path, part) if part else content.path)
        return Source(content, Kind.TAR, compression, toc, None, part)
    return Source(content, Kind.SCRIPT, compression, None, _script(content, reader), part)


def _tar_toc(content: Content, reader: Reader) -> Toc:
    try:
        with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r|") as archive:
            first = archive.next()
            if first is not None and first.name == TOC and (file := archive.extractfile(first)) is not None:
                return read_toc(file.read, content.shown)
    except tarfile.TarError as error:
        raise Fault("dump-damaged", f"{content.shown} is no whole tar file: {error}", hint="take it anew") from error
    raise Fault(
        "dump-unsupported",
        f"{content.shown} is a tar file, but not one that pg_dump made",
        hint="unpack it with tar, and load what is in it",
    )


def _script(content: Content, reader: Reader) -> Script:
    head = reader.peek(_HEAD)
    if not head.strip():
        raise _unsupported(content, "is empty", "take the file anew from where it was made")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unsupported(
            content, "is UTF-16 text, as PowerShell's redirection makes it",
            "make the dump with pg_dump --file, or convert it: iconv -f UTF-16 -t UTF-8",
        )  # fmt: skip
    if b"\0" in head:
        raise _unsupported(content, "is neither an archive of pg_dump nor SQL", "name a dump")
    text = reader.peek(_SCRIPT_HEAD)
    if _CLUSTER in text[:4096]:
        raise _unsupported(
            content, "holds a whole cluster (pg_dumpall): it would make and fill databases of its own choice",
            "load its roles with --globals FILE, and each database from a dump of its own",
        )  # fmt: skip
    rows = _ROWS.search(text)
    begin = text[: rows.start()] if rows else text
    _check_commands(content, begin)
    versions = dict(_FROM.findall(begin))
    encoding = _ENCODING.search(begin)
    shown = begin.decode("utf-8", "surrogateescape")
    return Script(
        by_pg_dump=_DUMP in text[:4096],
        server_version=versions.get(b"from database", b"").decode("utf-8", "replace").strip(),
        program_version=versions.get(b"by pg_dump", b"").decode("utf-8", "replace").strip(),
        encoding=encoding[1].decode("ascii", "replace") if encoding else "",
        owners=frozenset(map(_bare, _OWNER.findall(shown))),
        extensions=frozenset(map(_bare, _EXTENSION.findall(shown))),
        tables=tuple((_bare(schema), _bare(name)) for schema, name in _TABLE.findall(shown)),
    )


def _check_commands(content: Content, begin: bytes) -> None:
    if _CREATES.search(begin) or any(found in (b"connect", b"c") for found in _META.findall(begin)):
        raise _unsupported(
            content, "makes and chooses a database by itself (pg_dump --create)",
            "dump it without --create; or delete the lines CREATE DATABASE and \\connect, and name the database here",
        )  # fmt: skip


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _unsupported(content: Content, what: str, hint: str) -> Fault:
    return Fault("dump-unsupported", f"{content.shown} {what}", hint=hint)
