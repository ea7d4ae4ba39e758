"""A timeline's history file: what may be archived under that name, and that it is there before the timeline's WAL.

A server that was promoted while archive_mode was off (as a restored one is) never archives the history that its
promotion wrote (xlog.c, StartupXLOG: only XLogArchivingActive() marks it as ready).  Its WAL would be of no use: no
recovery finds a timeline without its history.  So whoever claims a timeline brings its history along.
"""

from __future__ import annotations

import os

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.wal import History, history_name, timeline_of

MAX_TEXT = 16 << 20
"""Bytes of a .history or .backup file at most; real ones have some hundred."""


def check_history(name: str, content: bytes) -> None:
    """Fault `wal-refused` unless `content` is a history that PostgreSQL could read under this name."""
    timeline = timeline_of(name)
    try:
        history = History.parse(timeline, content.decode("utf-8", "replace"))
    except ValueError as error:
        raise refused(name, f"it is no timeline history ({error})", "PostgreSQL could not read it") from None
    if not history.switches:
        raise refused(name, f"it says of no timeline that {timeline} comes from it", "PostgreSQL writes at least one")


def archive_own_history(archive: WalArchive, timeline: int, data_directory: str, clock: Clock) -> None:
    """Put the history that lies in the data directory, if it does, into the archive; the same one again is fine.

    `wal-refused` for one that PostgreSQL could not read, or when the archive holds another under its name.
    """
    name = history_name(timeline)
    path = os.path.join(data_directory, "pg_wal", name)
    if timeline == 1:
        return
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_TEXT + 1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Fault("io", f"{path} could not be read: {error.strerror}", path=path) from error
    check_history(name, content)
    archive.put(name, content, 0, clock)


def refused(name: str, found: str, expected: str) -> Fault:
    """The refusal of a file that is not what its name says."""
    return Fault(
        "wal-refused",
        f"{name!r} is not archived: {found}, but {expected}",
        hint="archive_command should be: pgkeep --config FILE wal push %p",
    )
