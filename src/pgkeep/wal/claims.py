"""Who archives a timeline: the claim's holder, and how another instance takes it over.

1. The first instance to push its own WAL on a timeline creates the claim, conditionally.
2. An instance in recovery (archive_mode=always) archives its primary's WAL, not its own: it neither makes a claim nor
   needs one.  What it pushes equals what its primary pushes, and the archive compares.
3. `adopt` adds the next generation; the newest generation is in force.
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
        if archive.put_claim(timeline, 0, _claim_of(instance, clock), clock):
            return None
    raise _contended(timeline)


def adopt(
    repository: Repository,
    data_directory: str | os.PathLike[str],
    clock: Clock,
    *,
    timeline: int | None = None,
    entropy: Entropy = os.urandom,
) -> Adoption:
    """Let the instance on `data_directory` archive its timeline from now on; repeating it is harmless.

    `timeline` is needed for a server that was promoted since its last checkpoint: pg_control still shows the old one.
    cluster-unknown, locked (another adoption at the same moment).
    """
    instance = read_instance(data_directory, entropy)
    archive = archive_of(repository, instance.control.system_identifier)
    chosen = timeline or instance.control.timeline
    for _ in range(_ATTEMPTS):
        generation, claim = archive.claim(chosen)
        if claim is not None and claim.token == instance.token:
            return Adoption(chosen, generation, None)
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
