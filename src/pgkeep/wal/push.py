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
from dataclasses import dataclass

from pgkeep.clock import Clock
from pgkeep.errors import Fault
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
    return PushOutcome(
        name=name,
        kind=kind,
        key=archive.key(name, judged.flush),
        length=len(judged.content),
        new=new,
        stamp=stamp,
        content_hash=identity.content_hash,
        token=instance.token,
        cluster=archive.cluster.name,
    )


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
    if len(content) != control.wal_segment_size:
        raise refused(name, f"it has {len(content)} bytes", f"this server's segments have {control.wal_segment_size}")
    segment = check_segment(parse_header(content[:LONG_HEADER_SIZE]), name, len(content), control.system_identifier)
    start = segment.start(control.wal_segment_size)
    if kind is WalFileKind.SEGMENT:
        return _Judged(content, start)
    flush = valid_until(lambda offset, length: content[offset : offset + length])
    return _Judged(content[: flush - start], start, flush)


def _check_claim(archive: WalArchive, name: str, judged: _Judged, instance: Instance, clock: Clock) -> None:
    """Pass when the timeline is ours, or when there is nothing left to write; wal-claimed otherwise."""
    claim = foreign_claim(archive, timeline_of(name), instance, clock)
    if claim is not None and not archive.holds(name, judged.content, judged.page_address):
        raise claimed_by_other(name, claim)


def _read_unchanged(path: str) -> tuple[bytes, str]:
    """The whole file and its stamp, if it is a regular one that nobody wrote to while it was read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            if not modes.S_ISREG(before.st_mode) or before.st_size > MAX_SEGMENT_SIZE:
                found = f"it is no regular file of at most {MAX_SEGMENT_SIZE} bytes"
                raise refused(os.path.basename(path), found, "every file of pg_wal is one")
            content = files.read_range(descriptor, 0, before.st_size)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Fault(
            "io",
            f"{path} could not be read: {error.strerror}",
            hint="archive_command runs in the data directory, and %p is relative to it",
            path=path,
        ) from error
    if len(content) != before.st_size or _stamp(before) != _stamp(after):
        raise refused(os.path.basename(path), "it changed while it was read", "a finished WAL file stays as it is")
    return content, marker.stamp_of(after)


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino
