"""The WAL that makes a backup consistent: in the archive, and equal to the server's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.pg.facts import ArchiverState
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.wal import Segment, history_name

FIRST_POLL: Final = 0.005
POLL: Final = 0.1
"""Seconds between two looks into the archive: at first, and at last."""


def wait_for_archive(
    archive: WalArchive,
    segments: Iterable[Segment],
    wal_directory: str,
    clock: Clock,
    timeout: float,
    archiver: Callable[[], ArchiverState],
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Return when every segment is archived and, as far as the server still has it, byte-equal to its own.

    `timeout` is seconds without any progress; `idle` is called now and then.  wal-not-archived, wal-differs.
    """
    for segment in segments:
        _wait_for(archive, segment, clock, timeout, archiver, idle)
        compare_with_server(archive, segment, wal_directory, clock)


def _wait_for(
    archive: WalArchive,
    segment: Segment,
    clock: Clock,
    timeout: float,
    archiver: Callable[[], ArchiverState],
    idle: Callable[[], None],
) -> None:
    deadline = clock.monotonic() + timeout
    name = segment.name(archive.segment_size)
    pause = FIRST_POLL
    while not is_archived(archive, segment):
        if clock.monotonic() >= deadline:
            raise not_archived(name, timeout, archiver())
        idle()
        clock.sleep(pause)
        pause = min(pause * 1.2, POLL)


def is_archived(archive: WalArchive, segment: Segment) -> bool:
    """True when the segment's object is there."""
    try:
        archive.stat(segment)
    except Fault as fault:
        if fault.code == "object-missing":
            return False
        raise
    return True


def not_archived(name: str, timeout: float, state: ArchiverState) -> Fault:
    """The fault for WAL that did not arrive, with what the server says of its archiver."""
    if state.last_failed_wal:
        said = f"; the server's archive_command failed {state.failed_count} times, last for {state.last_failed_wal}"
    else:
        said = "; the server reports no failure of its archive_command"
    return Fault(
        "wal-not-archived",
        f"the backup needs WAL segment {name}, which did not reach the archive within {timeout:.0f} s{said}",
        hint="look for archive_command in the server's log, and check that it names this repository:"
        " pgkeep --config FILE wal push %p",
    )


def compare_with_server(archive: WalArchive, segment: Segment, wal_directory: str, clock: Clock) -> None:
    """The archived segment must be the server's own, and durable; one that the server recycled meanwhile passes."""
    name = segment.name(archive.segment_size)
    content = _read_own(os.path.join(wal_directory, name), archive.segment_size)
    if content is None:
        return
    if not archive.holds(name, content, segment.start(archive.segment_size)):
        raise Fault(
            "wal-differs",
            f"the archived segment {name} is not the server's own: another server has archived under its name",
            hint="give every server its own repository or cluster; a copy that took this one's place needs a new"
            " timeline (promote it) or: pgkeep init --adopt",
        )
    if not os.path.exists(os.path.join(wal_directory, "archive_status", f"{name}.done")):
        # Its push has not returned: an object may be seen before it is durable, but not refuse a put (store/port.py).
        archive.put(name, content, segment.start(archive.segment_size), clock)


def _read_own(path: str, size: int) -> bytes | None:
    """The server's own segment; None when it was recycled, also while it was being read."""
    try:
        with open(path, "rb") as file:
            content = file.read(size + 1)
            same = os.fstat(file.fileno()).st_ino == os.stat(path).st_ino
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Fault("io", f"cannot read {path}: {error.strerror}") from error
    return content if same else None


def read_history(archive: WalArchive, timeline: int, wal_directory: str) -> bytes:
    """The history file of `timeline`, from the archive; empty for timeline 1.  wal-missing when it is not there."""
    if timeline == 1:
        return b""
    try:
        return archive.history(timeline)
    except Fault as fault:
        if fault.code != "object-missing":
            raise
    path = os.path.join(wal_directory, history_name(timeline))
    raise Fault(
        "wal-missing",
        f"the archive lacks {history_name(timeline)}, without which timeline {timeline} cannot be recovered",
        hint=f"archive it, in {os.path.dirname(wal_directory)}: pgkeep --config FILE wal push {path}",
    )
