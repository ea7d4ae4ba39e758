"""What the programs of a load read: archives and scripts as streams, and what a script is kept from.

1. A script reaches psql within `\\restrict` and a key of ours: no line of it can run a command of psql's, so neither a
   program nor another database.
2. An archive that comes through a pipe may get another table of contents on the way.
3. A script of pg_dump that lacks its last line is not committed: psql commits at the end of its input, and does not see
   that end.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

from pgkeep.errors import Fault
from pgkeep.logical.content import Chunks, Reader, unpacked
from pgkeep.logical.loadrequest import LoadRequest
from pgkeep.logical.source import Kind, Source
from pgkeep.logical.tolerance import IN_HEAD
from pgkeep.logical.wholeness import checked_tar
from pgkeep.pg.child import Child
from pgkeep.pg.toccopy import changed_tar_head, changed_toc

_HEAD_BYTES: Final = 1 << 16
_TRAILER: Final = b"-- PostgreSQL database dump complete"
_TAIL_BYTES: Final = 4096
_SQL_ASCII: Final = re.compile(rb"^SET client_encoding = 'SQL_ASCII';$", re.MULTILINE)
TELL_TRANSACTION: Final = b"SELECT pg_catalog.pg_current_xact_id() AS x \\gset\n\\warn pgkeep-transaction :x\n"
"""psql's own commands, before it is kept from them: which transaction it is in, on stderr."""
LINES_BEFORE: Final = 3
"""Those of ours before the script's first."""
TRANSACTION: Final = re.compile(r"^pgkeep-transaction (\d+)$", re.MULTILINE)
_RESTRICT: Final = re.compile(rb"^\\restrict ([A-Za-z0-9]+)\r?\n", re.MULTILINE)


def archive(source: Source, request: LoadRequest) -> Chunks:
    """A custom or tar archive as pg_restore reads it from a pipe, its table of contents as the request changes it."""
    with closing(unpacked(source.content, source.part, source.compression)) as raw:  # type: ignore[type-var]
        chunks = raw
        if source.kind is Kind.TAR:
            chunks = checked_tar(raw, source.content.shown)
        if not request.changes_archive:
            yield from chunks
            return
        reader = Reader(chunks)
        head = changed_tar_head if source.kind is Kind.TAR else changed_toc
        yield head(reader.read, source.content.shown, request.changed)
        yield from reader.rest()


def pour(chunks: Chunks, child: Child) -> None:
    """Write everything to the program's stdin; when it does not read to the end, its own words will say why.

    An error of the source ends the program before it sees the end of its input: that would be a commit.
    """
    try:
        for chunk in chunks:
            child.stdin.write(chunk)
        child.stdin.close()
    except BrokenPipeError:
        with suppress(OSError):
            child.stdin.close()
    except BaseException:
        child.end()
        raise


@contextmanager
def fed_beside(feed: Callable[[Child], None], child: Child) -> Iterator[None]:
    """Feed the program while something else reads from it; why the feeding failed counts more than what came of it."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            feed(child)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="feed", daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        child.end()
        thread.join()
        if failures:
            raise failures[0] from None
        raise
    thread.join()
    if failures:
        raise failures[0]


def output(writer: Child) -> Chunks:
    """What it writes, and at the end its failure."""
    while chunk := writer.stdout.read(1 << 16):
        yield chunk
    writer.finish()


def guarded(chunks: Chunks, major: int, key: str, *, must_end: bool, encoding: str = "") -> Chunks:
    """The script without its own \\restrict, within ours, and without settings in its head that the server lacks;
    text in SQL_ASCII is said to be in `encoding`."""
    head, rest = _head(chunks)
    head, own = _without_restrict(_without_settings(head, major))
    if encoding:
        head = _SQL_ASCII.sub(f"SET client_encoding = '{encoding}';".encode(), head, count=1)
    yield TELL_TRANSACTION + f"\\restrict {key}\n".encode()
    tail = b""
    closing_line = b"\\unrestrict " + own if own else b""
    for chunk in _two(head, rest):
        data = tail + bytes(chunk)
        cut = max(0, len(data) - _TAIL_BYTES)
        yield data[:cut]
        tail = data[cut:]
    if must_end and _TRAILER not in tail:
        raise Fault(
            "dump-damaged",
            "the script ends before its last line (-- PostgreSQL database dump complete): it is not whole",
            hint="take the file anew from where it was made; nothing of it was committed",
        )
    if closing_line:
        tail = tail.replace(closing_line, b"", 1)
    yield tail + f"\n\\unrestrict {key}\n".encode()


def _two(head: bytes, rest: Chunks) -> Chunks:
    yield head
    yield from rest


def _head(chunks: Chunks) -> tuple[bytes, Chunks]:
    head = b""
    for chunk in chunks:
        head += bytes(chunk)
        if len(head) >= _HEAD_BYTES:
            break
    return head, chunks


def _without_settings(head: bytes, major: int) -> bytes:
    """Only before the first object: further on, such a line could be somebody's data."""
    begin = re.search(rb"^(CREATE|ALTER|COPY|INSERT|-- Name:|-- Data for Name:)", head, re.MULTILINE)
    end = begin.start() if begin else len(head)
    first = head[:end]
    for name, since in IN_HEAD:
        if major < since:
            first = re.sub(rb"^SET " + name.encode() + rb" = [^;\n]*;$", b"", first, flags=re.MULTILINE)
    return first + head[end:]


def _without_restrict(head: bytes) -> tuple[bytes, bytes]:
    """Without the script's own \\restrict, and its key: it stands before everything else, or it is not pg_dump's."""
    match = _RESTRICT.search(head[:_TAIL_BYTES])
    if match is None or any(line and not line.startswith(b"--") for line in head[: match.start()].split(b"\n")):
        return head, b""
    return head[: match.start()] + b"\n" + head[match.end() :], match[1]
