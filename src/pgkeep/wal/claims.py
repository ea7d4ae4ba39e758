"""Who archives a timeline: the claim's holder, and how another instance takes it over.

1. The first instance to push its own WAL on a timeline creates the claim, conditionally.
2. An instance in recovery (archive_mode=always) archives its primary's WAL, not its own: it neither makes a claim nor
   needs one.  What it pushes equals what its primary pushes, and the archive compares.
3. `adopt` adds the next generation; the newest generation is in force.  It is refused where the former holder has
   archived what the new one is yet to write: one of the two would be stuck for ever.
4. The history of a claimed timeline is archived before the claim is made (see `history`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format.objects import ClaimInfo
from pgkeep.pg.controlfile import CONTROL_FILE, ControlFile, read_control
from pgkeep.repo.repository import Entropy, Repository
from pgkeep.repo.walarchive import WalArchive, archive_of
from pgkeep.store import files
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment, WalFileKind, wal_file_kind
from pgkeep.wal.history import archive_own_history
from pgkeep.wal.token import instance_token

_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class Instance:
    """A server's data directory, as archive_command sees it: its control file and its token."""

    data_directory: str
    control: ControlFile
    token: bytes


@dataclass(frozen=True, slots=True)
class Adoption:
    """The claim that is in force after `adopt`; `taken_from` is None when nobody else held it."""

    timeline: int
    generation: int
    taken_from: ClaimInfo | None


def read_instance(data_directory: str | os.PathLike[str], entropy: Entropy = os.urandom) -> Instance:
    """The instance on `data_directory`; its token is minted when it has none.  Faults of token and controlfile."""
    directory = os.fspath(data_directory)
    control = read_control(os.path.join(directory, CONTROL_FILE))
    return Instance(directory, control, instance_token(directory, entropy))


def foreign_claim(archive: WalArchive, timeline: int, instance: Instance, clock: Clock) -> ClaimInfo | None:
    """The claim of another instance that forbids this one to archive on `timeline`; None when it may.

    Makes the claim when there is none.
    """
    if instance.control.in_recovery:
        return None
    for _ in range(_ATTEMPTS):
        _, claim = archive.claim(timeline)
        if claim is not None:
            return None if claim.token == instance.token else claim
        archive_own_history(archive, timeline, instance.data_directory, clock)
        if archive.put_claim(timeline, 0, _claim_of(instance, clock), clock):
            return None
    raise _contended(timeline)


def adopt(
    repository: Repository,
    data_directory: str | os.PathLike[str],
    clock: Clock,
    *,
    timeline: int | None = None,
    position: Lsn | None = None,
    entropy: Entropy = os.urandom,
) -> Adoption:
    """Let the instance on `data_directory` archive its timeline from now on; repeating it is harmless.

    `timeline` is needed for a server that was promoted since its last checkpoint: pg_control still shows the old one.
    `position` is where the server writes WAL now.  cluster-unknown, wal-claimed (the archive holds this segment or a
    later one already), wal-refused (another history of the timeline), locked (another adoption at the same moment).
    """
    instance = read_instance(data_directory, entropy)
    archive = archive_of(repository, instance.control.system_identifier)
    chosen = timeline or instance.control.timeline
    for _ in range(_ATTEMPTS):
        generation, claim = archive.claim(chosen)
        if claim is not None and claim.token == instance.token:
            return Adoption(chosen, generation, None)
        if claim is not None and position is not None:
            _check_apart(archive, chosen, position, instance, claim)
        archive_own_history(archive, chosen, instance.data_directory, clock)
        if archive.put_claim(chosen, generation + 1, _claim_of(instance, clock), clock):
            return Adoption(chosen, generation + 1, claim)
    raise _contended(chosen)


def claimed_by_other(name: str, claim: ClaimInfo) -> Fault:
    """The refusal for a file whose timeline another instance archives."""
    return Fault(
        "wal-claimed",
        f"{name} belongs to a timeline that the server in {claim.data_directory} on {claim.host} archives since"
        f" {claim.claimed}, and this data directory is another one",
        hint="if that server is gone for good and this one continues it: pgkeep init --adopt; if this is a copy of"
        " it, give the copy a repository of its own",
        host=claim.host,
        data_directory=claim.data_directory,
    )


def _check_apart(archive: WalArchive, timeline: int, position: Lsn, instance: Instance, claim: ClaimInfo) -> None:
    """wal-claimed when the archive holds a segment that this server has written otherwise, or is yet to write."""
    size = archive.segment_size
    number = _written_otherwise(archive, timeline, instance.data_directory)
    if number is None:
        number = next(archive.numbers_from(timeline, position // size), None)
    if number is None:
        return
    raise Fault(
        "wal-claimed",
        f"the server in {claim.data_directory} on {claim.host} has archived {Segment(timeline, number).name(size)}"
        f" already, and this one, now at {position} of the same timeline, writes another under that name",
        hint="restore again and let that server promote, which gives it a timeline of its own; or give this one a"
        " repository of its own",
        host=claim.host,
        data_directory=claim.data_directory,
    )


def _written_otherwise(archive: WalArchive, timeline: int, data_directory: str) -> int | None:
    """The first segment that waits to be archived although another one is archived under its name."""
    folder, size = os.path.join(data_directory, "pg_wal"), archive.segment_size
    try:
        waiting = [name.removesuffix(".ready") for name in os.listdir(os.path.join(folder, "archive_status"))]
        names = [name for name in waiting if wal_file_kind(name) is WalFileKind.SEGMENT]
        found = [segment for name in sorted(names) if (segment := Segment.parse(name, size)).timeline == timeline]
        archived = set(archive.numbers_from(timeline, found[0].number)) if found else set()
        for segment in found:
            if segment.number not in archived:
                continue
            with open(os.path.join(folder, segment.name(size)), "rb") as file:
                content = file.read(size + 1)
            if not archive.holds(segment.name(size), content, segment.start(size)):
                return segment.number
    except OSError as error:
        raise Fault("io", f"{folder} could not be read: {error.strerror}", path=folder) from error
    return None


def _claim_of(instance: Instance, clock: Clock) -> ClaimInfo:
    # Another process may have minted the token a moment ago: it must outlive a crash if the claim does.
    try:
        files.sync_folder(instance.data_directory)
    except OSError as error:
        raise Fault("io", f"{instance.data_directory} could not be made durable: {error.strerror}") from error
    return ClaimInfo(
        token=instance.token,
        host=os.uname().nodename,
        data_directory=os.path.realpath(instance.data_directory),
        claimed=clock.now().isoformat(timespec="seconds"),
    )


def _contended(timeline: int) -> Fault:
    return Fault("locked", f"the claim of timeline {timeline} changes all the time, expected one writer at a time")
