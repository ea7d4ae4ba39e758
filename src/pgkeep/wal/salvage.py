"""What a dead server had not archived: found, pushed as its own archiver would have, and otherwise kept.

1. It is the last minute before the accident.  At any moment each of these files lies in pg_wal, in the archive or in
   the directory beside; nothing is removed from pg_wal here.
2. A file that has no .done waits, or was never handed to an archiver.  A segment counts only when its header bears its
   name: a recycled one, or one filled with zeros, holds no WAL yet.
3. The segment that was being written is no finished one: it is pushed as a partial, up to its last valid page.
4. Pushed is only what this very instance would archive: its own timeline by its claim, or one that nobody has claimed
   and that it was archiving.  The branch of a restored copy that archived nothing never enters the archive.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Progress
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.walfile import LONG_HEADER_SIZE, check_segment, parse_header
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.files import sync_folder
from pgkeep.values.wal import Segment, WalFileKind, timeline_of, wal_file_kind
from pgkeep.wal.push import push
from pgkeep.wal.token import known_token

_PARTIAL: Final = ".partial"
_TRIED: Final = "the archive could not be written: "
_OUTAGES: Final = frozenset({"store-unreachable", "store-full", "store-denied", "store-read-only"})


@dataclass(frozen=True, slots=True)
class Left:
    """A file of pg_wal that is not known to be archived: its path, and the name it is archived under."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Names that the archive holds now, and those that were kept in `where`, because of `why` (the first reason)."""

    pushed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    where: str = ""
    why: str = ""


def left_behind(data_directory: str) -> tuple[Left, ...]:
    """What pg_wal holds and is not known to be archived: histories first, then segments in order.  Fault io."""
    folder = os.path.join(data_directory, "pg_wal")
    try:
        names = {name for name in os.listdir(folder) if wal_file_kind(name) is not None}
        status = _status(folder)
        waiting = {name for name in names if f"{name}.done" not in status and _is_what_it_says(folder, name)}
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise Fault(
            "io",
            f"{folder} could not be read: {error.strerror}",
            hint="run pgkeep as root or as its owner",
            path=folder,
        ) from error
    segments = {name for name in names if wal_file_kind(name) is WalFileKind.SEGMENT}
    finished = {name for name in waiting if name not in segments or f"{name}.ready" in status}
    finished |= set(_followed(folder, waiting & segments, segments))
    order = sorted(waiting, key=lambda name: (wal_file_kind(name) is not WalFileKind.HISTORY, name))
    return tuple(Left(os.path.join(folder, name), name if name in finished else name + _PARTIAL) for name in order)


def _status(folder: str) -> frozenset[str]:
    with suppress(FileNotFoundError):
        return frozenset(os.listdir(os.path.join(folder, "archive_status")))
    return frozenset()


def _is_what_it_says(folder: str, name: str) -> bool:
    """False for a segment that holds no WAL of its own yet (recycled, or zeros), and for what is no regular file."""
    path = os.path.join(folder, name)
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    return wal_file_kind(name) is not WalFileKind.SEGMENT or _segment(path, name) is not None


def _segment(path: str, name: str) -> tuple[Segment, int] | None:
    """The segment that a file is, and its size in bytes; None when its header says otherwise."""
    with open(path, "rb") as file, suppress(Fault):
        header = parse_header(file.read(LONG_HEADER_SIZE))
        return check_segment(header, name, os.fstat(file.fileno()).st_size), header.segment_size
    return None


def _followed(folder: str, names: Iterable[str], segments: set[str]) -> Iterator[str]:
    """Segments behind which the next one of their timeline was begun: nothing more is written to them."""
    for name in names:
        found = _segment(os.path.join(folder, name), name)
        if found is not None:
            segment, size = found
            behind = Segment(segment.timeline, segment.number + 1).name(size)
            if behind in segments and _is_what_it_says(folder, behind):
                yield name


def salvage(
    cluster: Cluster, data_directory: str, beside: str, clock: Clock, announce: Announce, *, keep: bool
) -> Salvaged:
    """Push what the dead server on `data_directory` left; with `keep`, what the archive does not take stays `beside`.

    `beside` is a directory that is not there yet: the files are linked or copied into it, durably, before the first is
    pushed.  Fault io when that fails.
    """
    left = left_behind(data_directory)
    if not left:
        return Salvaged()
    announce(Phase("salvage", "saving the WAL that the server here had not archived"))
    _copy_all(left, beside)
    pushed: list[str] = []
    why = ""
    for number, each in enumerate(left):
        announce(Progress(number, len(left), unit="objects"))
        if (refusal := _push(cluster, data_directory, os.path.join(beside, each.name), clock, why)) == "":
            pushed.append(each.name)
            os.unlink(os.path.join(beside, each.name))
        why = why or refusal
    kept = tuple(each.name for each in left if each.name not in pushed)
    if not keep or not kept:
        shutil.rmtree(beside)
    return Salvaged(tuple(pushed), kept, beside if keep and kept else "", why)


def _copy_all(left: Iterable[Left], beside: str) -> None:
    try:
        os.mkdir(beside, 0o700)
        for each in left:
            target = os.path.join(beside, each.name)
            try:
                os.link(each.path, target)
            except OSError:
                shutil.copy2(each.path, target)
                with open(target, "rb") as file:
                    os.fsync(file.fileno())
        sync_folder(beside)
        sync_folder(os.path.dirname(beside))
    except OSError as error:
        raise Fault(
            "io",
            f"the WAL that was not archived cannot be kept in {beside}: {error.strerror}",
            hint="free space, or make that place writable: nothing was changed so far",
            path=beside,
        ) from error


def _push(cluster: Cluster, data_directory: str, path: str, clock: Clock, outage: str) -> str:
    """'' when the archive holds it; else why not.  After an outage nothing more is tried."""
    if outage.startswith(_TRIED):
        return outage
    try:
        if not _is_archiver(cluster, data_directory, timeline_of(os.path.basename(path))):
            return "this server did not archive it: its branch of the WAL belongs to it alone"
        push(cluster.repository, path, clock, data_directory=data_directory)
    except Fault as fault:
        return f"{_TRIED if fault.code in _OUTAGES else ''}{fault.message}"
    return ""


def _is_archiver(cluster: Cluster, data_directory: str, timeline: int) -> bool:
    """Rule 4."""
    control = read_control(os.path.join(data_directory, CONTROL_FILE))
    incarnation = cluster.incarnation(control.system_identifier)
    if incarnation is None:
        return False
    archive = WalArchive(cluster, control.system_identifier, incarnation.wal_segment_size)
    _, claim = archive.claim(timeline)
    if claim is not None:
        return claim.token == known_token(data_directory)
    status = _status(os.path.join(data_directory, "pg_wal"))
    return any(wal_file_kind(name.rpartition(".")[0]) is not None and timeline_of(name) == timeline for name in status)
