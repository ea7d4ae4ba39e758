"""Whether the files of an archive are whole, where pg_restore itself does not notice.

1. pg_restore loads what there is of a cut tar file, of a cut file of rows that is not compressed, or compressed with
   zstd or lz4, and reports success.  (A cut custom archive and a cut gzip file it notices.)
2. Headers are read and data is skipped: a tar file up to its end mark, zstd and lz4 from block to block, rows by their
   last line.  What has no end of its own cannot be checked: a large object that is not compressed.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Collection
from typing import Final

from pgkeep.errors import Fault
from pgkeep.logical.content import Chunks
from pgkeep.pg.dumptoc import Toc

_BLOCK: Final = 512
_END_OF_ROWS: Final = b"\\.\n\n\n"  # dumpTableData_copy, pg_dump.c
_ZSTD: Final = 0xFD2FB528
_LZ4: Final = 0x184D2204


def damaged(shown: str, what: str) -> Fault:
    """'dump-damaged'."""
    return Fault(
        "dump-damaged",
        f"{shown} is not whole: {what}",
        hint="take it anew from where it was made; compare its size and checksum there",
    )


# --- tar


class TarWalk:
    """Follows the members of a tar file that is handed over piece by piece."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._header = b""
        self._skip = 0
        self._ended = False

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes of the file."""
        view = memoryview(data)
        while view and not self._ended:
            if self._skip:
                step = min(self._skip, len(view))
                self._skip -= step
                view = view[step:]
                continue
            step = min(_BLOCK - len(self._header), len(view))
            self._header += bytes(view[:step])
            view = view[step:]
            if len(self._header) == _BLOCK:
                self._take(self._header)
                self._header = b""

    def _take(self, header: bytes) -> None:
        if not any(header):
            self._ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise damaged(self._shown, str(error)) from error
        self._skip = info.size + -info.size % _BLOCK

    def skip(self) -> int:
        """Bytes that need not be handed over."""
        found, self._skip = self._skip, 0
        return found

    @property
    def has_ended(self) -> bool:
        return self._ended

    def check(self) -> None:
        """At the end of the file: Fault unless its end mark was seen (a member that is missing pg_restore notices)."""
        if not self._ended:
            raise damaged(self._shown, "the tar file ends before its end mark")


def checked_tar(chunks: Chunks, shown: str) -> Chunks:
    """The same bytes; the Fault comes before the end."""
    walk = TarWalk(shown)
    for chunk in chunks:
        walk.feed(chunk)
        yield chunk
    walk.check()


def check_tar(path: str) -> None:
    """Of a file that can be read at any place."""
    walk, at = TarWalk(path), 0
    with open(path, "rb", buffering=0) as file:
        while not walk.has_ended and (header := os.pread(file.fileno(), _BLOCK, at)):
            walk.feed(header)
            at += len(header) + walk.skip()
    walk.check()


# --- directory


def check_directory(directory: str, parts: Collection[str], toc: Toc) -> None:
    """Every file of rows, and every compressed one, is there to its end."""
    rows = {entry.filename for entry in toc.entries if entry.filename and entry.copy}
    for name in sorted(parts):
        if name not in rows and not name.endswith((".zst", ".lz4")):
            continue
        with open(os.path.join(directory, name), "rb", buffering=0) as file:
            descriptor, size = file.fileno(), os.fstat(file.fileno()).st_size
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            if name in rows:
                is_whole = os.pread(descriptor, len(_END_OF_ROWS), max(0, size - len(_END_OF_ROWS))) == _END_OF_ROWS
            else:
                is_whole = _ends_at(descriptor, size, _zstd_blocks if name.endswith(".zst") else _lz4_blocks)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
        if not is_whole:
            raise damaged(f"{directory}/{name}", "it ends too early")


def _number(descriptor: int, at: int, count: int) -> int:
    raw = os.pread(descriptor, count, at)
    if len(raw) < count:
        raise EOFError
    return int.from_bytes(raw, "little")


def _ends_at(descriptor: int, size: int, frame: Callable[[int, int], int]) -> bool:
    """Whether frames follow each other to the very end."""
    at = 0
    try:
        while at < size:
            at = frame(descriptor, at)
    except EOFError:
        return False
    return at == size and size > 0


def _zstd_blocks(descriptor: int, at: int) -> int:
    """The end of the frame at `at` (RFC 8878, 3.1.1)."""
    if _number(descriptor, at, 4) != _ZSTD:
        raise EOFError
    flags = _number(descriptor, at + 4, 1)
    is_single = flags >> 5 & 1
    at += 5 + (1 - is_single) + (0, 1, 2, 4)[flags & 3] + (is_single, 2, 4, 8)[flags >> 6]
    is_last = 0
    while not is_last:
        head = _number(descriptor, at, 3)
        is_last = head & 1
        at += 3 + (1 if head >> 1 & 3 == 1 else head >> 3)
    return at + (4 if flags >> 2 & 1 else 0)


def _lz4_blocks(descriptor: int, at: int) -> int:
    """The end of the frame at `at` (lz4_Frame_format.md)."""
    if _number(descriptor, at, 4) != _LZ4:
        raise EOFError
    flags = _number(descriptor, at + 4, 1)
    at += 7 + (8 if flags >> 3 & 1 else 0) + (4 if flags & 1 else 0)
    while head := _number(descriptor, at, 4):
        at += 4 + (head & 0x7FFFFFFF) + (4 if flags >> 4 & 1 else 0)
    return at + 4 + (4 if flags >> 2 & 1 else 0)
