"""`wal push`: one file of pg_wal into the repository, durably, or a Fault (archive_command, manual 26.3.1).

1. Nothing that PostgreSQL does not archive is taken, and nothing whose content does not agree with its name: a
   segment's header must show this cluster, its size, and the address that its name says.  Not its timeline: the first
   segment of a new timeline begins with pages of its parent.
2. Another instance's timeline is refused, unless the very same bytes are archived already.
3. A partial segment belongs to the timeline that a promotion left, which another instance may well have claimed.  So
   it needs no claim: it is stored under the position where its WAL ends, beside other servers' partials.
4. Bytes behind the last valid page of a partial are leftovers of the file's former life, and are not stored.
5. A marker of this instance's token saves the upload when the file still has the content that it names, and the object
   is there with that content.  Whether a call may end before it comes here, `marker` decides.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format.header import ObjectType, WalIdentity
from pgkeep.pg.controlfile import ControlFile
from pgkeep.pg.walfile import LONG_HEADER_SIZE, check_segment, parse_header, valid_until
from pgkeep.repo.repository import Entropy, Repository
from pgkeep.repo.walarchive import WalArchive, archive_of
from pgkeep.store import files
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import MAX_SEGMENT_SIZE, WalFileKind, timeline_of, wal_file_kind
from pgkeep.wal import marker
from pgkeep.wal.claims import Instance, claimed_by_other, foreign_claim, read_instance
from pgkeep.wal.history import MAX_TEXT, check_history, refused


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """A file that the repository holds durably: `new` is False when it did before."""

    name: str
    kind: WalFileKind
    key: str
    length: int
    """Bytes of WAL or text under the key."""
    new: bool
    stamp: str
    """The file's own (`marker.stamp_of`), from the descriptor that it was read through."""
    content_hash: bytes
    """Keyed, as in the object's header."""
    token: bytes
    """The instance's."""
    cluster: str
    """Its name in the repository."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is to be stored: `flush` is the end of the WAL in a partial segment, None for all else."""

    content: bytes
    page_address: int = 0
    flush: Lsn | None = None


def push(
    repository: Repository,
    path: str,
    clock: Clock,
    *,
    data_directory: str | os.PathLike[str] = ".",
    level: int = 1,
    entropy: Entropy = os.urandom,
) -> PushOutcome:
    """Archive the file at `path` (archive_command's %p) of the cluster in `data_directory` (its working directory).

    Returns only when the file is durable in the repository.  Faults: wal-refused (not WAL, not what its name says,
    other content archived before), wal-claimed, cluster-mismatch, cluster-unknown, io, and the store's.
    """
    name = os.path.basename(path)
    kind = wal_file_kind(name)
    if kind is None:
        raise refused(name, "it is not WAL", "archive_command's %p names segments, .partial, .history and .backup")
    instance = read_instance(data_directory, entropy)
    archive = _archive(repository, instance.control)
    if kind is WalFileKind.SEGMENT and archive.head(archive.key(name), ObjectType.WAL_SEGMENT) is None:
        outcome = _push_new(archive, path, instance, clock, level)
        if outcome is not None:
            return outcome
    content, stamp = _read_unchanged(path)
    judged = _judge(kind, name, content, instance.control)
    if kind is not WalFileKind.PARTIAL:
        _check_claim(archive, name, judged, instance, clock)
    identity = archive.identity(name, judged.content, judged.page_address)
    durable = _was_durable(path, repository, instance, identity.content_hash)
    new = archive.put(
        name, judged.content, judged.page_address, clock,
        flush=judged.flush, level=level, identity=identity, known_durable=durable,
    )  # fmt: skip
    return _outcome(archive, name, judged.flush, identity, new, stamp, instance)


def _outcome(
    archive: WalArchive, name: str, flush: Lsn | None, identity: WalIdentity, new: bool, stamp: str, instance: Instance
) -> PushOutcome:
    kind = wal_file_kind(name)
    assert kind is not None
    return PushOutcome(
        name=name,
        kind=kind,
        key=archive.key(name, flush),
        length=identity.length,
        new=new,
        stamp=stamp,
        content_hash=identity.content_hash,
        token=instance.token,
        cluster=archive.cluster.name,
    )


def _push_new(archive: WalArchive, path: str, instance: Instance, clock: Clock, level: int) -> PushOutcome | None:
    """Archive a segment that the archive had not a moment ago, reading it once; None when its timeline is another's."""
    name = os.path.basename(path)
    with _opened(path) as (descriptor, before):
        first = os.pread(descriptor, LONG_HEADER_SIZE, 0)
        start = _start_of(name, first, before.st_size, instance.control)
        if foreign_claim(archive, timeline_of(name), instance, clock) is not None:
            return None

        def fill(at: int, memory: memoryview) -> None:
            read = files.read_into(descriptor, at, memory)
            if read != len(memory) or (at == 0 and memory[: len(first)] != first):
                raise _changed(name)

        frames = archive.segment_frames(name, fill, level)
        if _stamp(before) != _stamp(os.fstat(descriptor)):
            raise _changed(name)
    new, identity = archive.put_segment(name, frames, start, clock)
    return _outcome(archive, name, None, identity, new, marker.stamp_of(before), instance)


def _was_durable(path: str, repository: Repository, instance: Instance, content_hash: bytes) -> bool:
    """True if a marker of this very instance says that this repository held this content durably."""
    found = marker.read(path)
    return found is not None and (found.token, found.repository, found.content_hash) == (
        instance.token.hex(),
        repository.id.hex(),
        content_hash.hex(),
    )


def _archive(repository: Repository, control: ControlFile) -> WalArchive:
    archive = archive_of(repository, control.system_identifier)
    if archive.segment_size != control.wal_segment_size:
        raise Fault(
            "wal-refused",
            f"this server has {control.wal_segment_size}-byte WAL segments, the archive of system identifier"
            f" {control.system_identifier} has {archive.segment_size}-byte ones",
            hint="after pg_resetwal --wal-segsize, archive into a new repository",
        )
    return archive


def _judge(kind: WalFileKind, name: str, content: bytes, control: ControlFile) -> _Judged:
    if kind in (WalFileKind.SEGMENT, WalFileKind.PARTIAL):
        return _judge_segment(kind, name, content, control)
    if not content or len(content) > MAX_TEXT:
        raise refused(name, f"it has {len(content)} bytes", f"a {kind.value} file is a short text")
    if kind is WalFileKind.HISTORY:
        check_history(name, content)
    elif not content.startswith(b"START WAL LOCATION: "):
        raise refused(name, "it does not begin with START WAL LOCATION", "PostgreSQL's backup history files do")
    return _Judged(content)


def _judge_segment(kind: WalFileKind, name: str, content: bytes, control: ControlFile) -> _Judged:
    start = _start_of(name, content[:LONG_HEADER_SIZE], len(content), control)
    if kind is WalFileKind.SEGMENT:
        return _Judged(content, start)
    flush = valid_until(lambda offset, length: content[offset : offset + length])
    return _Judged(content[: flush - start], start, flush)


def _start_of(name: str, header: bytes, size: int, control: ControlFile) -> int:
    """The address of a segment's first byte, if its header and its size in bytes are what its name says."""
    if size != control.wal_segment_size:
        raise refused(name, f"it has {size} bytes", f"this server's segments have {control.wal_segment_size}")
    return check_segment(parse_header(header), name, size, control.system_identifier).start(size)


def _check_claim(archive: WalArchive, name: str, judged: _Judged, instance: Instance, clock: Clock) -> None:
    """Pass when the timeline is ours, or when there is nothing left to write; wal-claimed otherwise."""
    claim = foreign_claim(archive, timeline_of(name), instance, clock)
    if claim is not None and not archive.holds(name, judged.content, judged.page_address):
        raise claimed_by_other(name, claim)


def _read_unchanged(path: str) -> tuple[bytes, str]:
    """The whole file and its stamp, if it is a regular one that nobody wrote to while it was read."""
    with _opened(path) as (descriptor, before):
        content = files.read_range(descriptor, 0, before.st_size)
        after = os.fstat(descriptor)
    if len(content) != before.st_size or _stamp(before) != _stamp(after):
        raise _changed(os.path.basename(path))
    return content, marker.stamp_of(after)


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file's descriptor, and what it was when it was opened.  What cannot be read is a Fault 'io'."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            if not modes.S_ISREG(before.st_mode) or before.st_size > MAX_SEGMENT_SIZE:
                found = f"it is no regular file of at most {MAX_SEGMENT_SIZE} bytes"
                raise refused(os.path.basename(path), found, "every file of pg_wal is one")
            yield descriptor, before
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Fault(
            "io",
            f"{path} could not be read: {error.strerror}",
            hint="archive_command runs in the data directory, and %p is relative to it",
            path=path,
        ) from error


def _changed(name: str) -> Fault:
    return refused(name, "it changed while it was read", "a finished WAL file stays as it is")


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino
