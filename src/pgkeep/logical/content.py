"""A dump where it lies: a file, a directory, or members of a dump in the repository; and what compresses it outside.

1. Everything is read as a stream, in order, in bounded memory; nothing is unpacked to a disk.
2. A compressed stream that ends too early is Fault 'dump-damaged', never the end of the dump.
3. lz4 is unpacked by its own program, because Python has none for it.
"""

from __future__ import annotations

import bz2
import lzma
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final, Protocol

from pgkeep.errors import Fault
from pgkeep.logical.commands import DATABASE, GLOBALS

CHUNK: Final = 1 << 20
Chunks = Iterator[bytes | memoryview]

_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)


class Content(Protocol):
    """The parts of one database's dump: one with the name '' for a single file, else the files of a directory."""

    @property
    def shown(self) -> str:
        """Where it lies, for people."""
        ...

    @property
    def path(self) -> str | None:
        """Where pg_restore finds it by itself; None when it must be handed to it."""
        ...

    @property
    def parts(self) -> Mapping[str, int]:
        """Name -> bytes."""
        ...

    def read(self, part: str) -> Chunks:
        """The part from its beginning; closing the iterator ends the reading."""
        ...

    def globals_text(self) -> str | None:
        """The script of roles and tablespaces that was saved beside it."""
        ...

    def database_text(self) -> str | None:
        """CREATE DATABASE and its settings, that were saved beside plain SQL."""
        ...


class LocalContent:
    """A file or a directory of this machine.  Raises Fault 'io'."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        try:
            self.is_directory = os.path.isdir(self._path)
            self._parts = _files(self._path) if self.is_directory else {"": os.stat(self._path).st_size}
        except OSError as error:
            raise _unreadable(self._path, error) from error

    @property
    def shown(self) -> str:
        return self._path

    @property
    def path(self) -> str | None:
        return self._path

    @property
    def parts(self) -> Mapping[str, int]:
        return self._parts

    def read(self, part: str) -> Chunks:
        path = os.path.join(self._path, part) if part else self._path
        try:
            with open(path, "rb", buffering=0) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except OSError as error:
            raise _unreadable(path, error) from error

    def globals_text(self) -> str | None:
        """Where `pgkeep dump --to` has put it: in the directory, beside the file, or above one of several databases."""
        above = os.path.dirname(self._path)
        return self._beside(os.path.join(self._path, GLOBALS), f"{self._path}.{GLOBALS}", os.path.join(above, GLOBALS))

    def database_text(self) -> str | None:
        return self._beside(os.path.join(self._path, DATABASE), f"{self._path}.{DATABASE}")

    def _beside(self, *paths: str) -> str | None:
        return next((read_text(path) for path in paths if os.path.isfile(path)), None)


def read_text(path: str) -> str:
    """A script as a whole; Fault 'io'."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def _files(directory: str) -> dict[str, int]:
    with os.scandir(directory) as entries:
        files = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    return {name: size for name, size in files.items() if name not in {GLOBALS, DATABASE}}


def _unreadable(path: str, error: OSError) -> Fault:
    hint = "name a dump's file or directory, or the id of a dump in the repository (pgkeep list)"
    return Fault("io", f"cannot read {path}: {error.strerror}", hint=hint)


def compression_of(head: bytes) -> str:
    """What a stream that begins so is compressed with; '' for nothing known."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def unpacked(content: Content, part: str, compression: str) -> Chunks:
    """The part without what compresses it outside; 'dump-damaged', 'io'."""
    if compression == "lz4":
        return _by_program(content, part)
    raw = content.read(part)
    return _checked(_decompressed(raw, compression), content.shown) if compression else raw


class _Decoder(Protocol):
    """What zlib, bz2, lzma and zstandard have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _decoder(compression: str) -> _Decoder:
    match compression:
        case "gzip":
            return zlib.decompressobj(31)
        case "bzip2":
            return bz2.BZ2Decompressor()
        case "xz":
            return lzma.LZMADecompressor()
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _decompressed(raw: Chunks, compression: str) -> Chunks:
    """Several frames or members in a row are one stream, as gzip and zstd themselves have it."""
    decoder, has_begun = _decoder(compression), False
    for chunk in raw:
        data = bytes(chunk)
        while data:
            has_begun = True
            if out := decoder.decompress(data):
                yield out
            data = b""
            if decoder.eof:
                data = decoder.unused_data
                decoder, has_begun = _decoder(compression), False
                if compression == "gzip" and not data.strip(b"\0"):
                    data = b""  # padding to a block, which gzip ignores
    if has_begun:
        raise EOFError


def _checked(chunks: Chunks, shown: str) -> Chunks:
    import zstandard

    try:
        yield from chunks
    except EOFError:
        raise _cut(shown) from None
    except (zlib.error, OSError, lzma.LZMAError, ValueError, zstandard.ZstdError) as error:
        raise _damaged(shown, str(error)) from error


def _cut(shown: str) -> Fault:
    return _damaged(shown, "it ends too early")


def _damaged(shown: str, what: str) -> Fault:
    return Fault(
        "dump-damaged",
        f"{shown} cannot be decompressed: {what}",
        hint="take the file anew from where it was made; compare its size and checksum there",
    )


def _by_program(content: Content, part: str) -> Chunks:
    program = shutil.which("lz4")
    if program is None or content.path is None:
        raise Fault(
            "dump-unsupported",
            f"{content.shown} is compressed with lz4, and the program lz4 is not here",
            hint="install it (Debian: apt-get install lz4), or unpack the file where it is",
        )
    path = os.path.join(content.path, part) if part else content.path
    with open(path, "rb") as file, subprocess.Popen(
        [program, "-dc"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        try:
            while chunk := process.stdout.read(CHUNK):
                yield chunk
        except BaseException:
            process.kill()
            raise
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise _damaged(content.shown, said or f"lz4 exited {process.returncode}")


class Reader:
    """Chunks read by numbers of bytes: what is looked at first is still there to be read as a whole."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._held = b""
        self._at = 0

    def read(self, count: int) -> bytes:
        """That many bytes, fewer only at the end."""
        found = self.peek(count)
        self._at += len(found)
        return found

    def peek(self, count: int) -> bytes:
        self._fill(count)
        return self._held[self._at : self._at + count]

    def rest(self) -> Chunks:
        """Everything that was not read."""
        held, self._held = self._held[self._at :], b""
        yield held
        yield from self._chunks

    def _fill(self, count: int) -> None:
        have = len(self._held) - self._at
        if have >= count:
            return
        parts = [self._held[self._at :]]
        for chunk in self._chunks:
            parts.append(bytes(chunk))
            have += len(chunk)
            if have >= count:
                break
        self._held, self._at = b"".join(parts), 0


def head_of(content: Content, part: str, count: int, compression: str = "") -> bytes:
    """The first bytes of a part, unpacked; no more is read than that needs."""
    chunks = unpacked(content, part, compression)
    with closing(chunks):  # type: ignore[type-var]  # all of them are generators
        return Reader(chunks).peek(count)
