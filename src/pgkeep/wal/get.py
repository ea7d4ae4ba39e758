"""`wal get`: one WAL file out of the repository for restore_command (manual 26.3.4), or a clear reason why not.

PostgreSQL takes an exit status of 1 to 125 for "there is no such file" and then ends recovery and opens the server, or
replays what it finds elsewhere; above 125 it stops (RestoreArchivedFile in xlogarchive.c).  So:

1. MISSING is answered only when the repository was asked and truly lacks the file, and nothing lies behind it.
2. Everything else is a Fault: an outage, damage, a foreign repository, a gap, a segment of another branch.  Whatever
   goes wrong in the command, be it an unreadable configuration, it must exit with EXIT_FAILED.
3. Under a restore's lineage each segment has one right timeline.  Without one (a standby, a recovery by hand) a gap is
   looked for on the timeline that was asked for.
4. A partial segment is served, with zeros behind its WAL, only where it is the newest WAL that there is.
5. The file appears at its destination whole, verified and durable.
6. What the plan did not know is not served: no later segment, and nothing longer in the place of a partial one.
7. Histories are always asked of the repository: a cached absence would let two servers take one timeline number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from pgkeep.catalog.continuity import forks, proven_until, servable
from pgkeep.catalog.timelines import read_history
from pgkeep.errors import Damaged, Fault
from pgkeep.format.header import ObjectType
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.repo.repository import Repository, clusters
from pgkeep.repo.walarchive import Partial, WalArchive, archive_of
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.values.wal import History, Segment, WalFileKind, wal_file_kind
from pgkeep.wal.landing import write_durably

EXIT_FOUND: Final = 0
EXIT_MISSING: Final = 1
EXIT_FAILED: Final = 200
"""Above 125, and none that a shell uses for a signal (128 + n): PostgreSQL stops recovery and says so."""


class GetStatus(Enum):
    """The two answers that are none of trouble; the value is the exit status."""

    FOUND = EXIT_FOUND
    MISSING = EXIT_MISSING


@dataclass(frozen=True, slots=True)
class GetOutcome:
    """What was answered.  `flush` is the end of the WAL in a partial segment that was served, None otherwise.

    `segment` is set when a full segment of the archive was served.
    """

    status: GetStatus
    name: str
    key: str = ""
    flush: Lsn | None = None
    notes: tuple[str, ...] = ()
    """What a person should know although the request was served (a longer partial was damaged)."""
    segment: Segment | None = None


def find_archive(
    repository: Repository, lineage: RecoveryLineage | None, data_directory: str | os.PathLike[str] = "."
) -> WalArchive:
    """The lineage's archive, or without one that of the cluster whose pg_control lies in `data_directory`.

    Faults: cluster-mismatch, cluster-unknown, io, and the store's.
    """
    if lineage is not None:
        return _archive_of_lineage(repository, lineage)
    return _archive_of_directory(repository, data_directory)


def get(archive: WalArchive, name: str, destination: str, lineage: RecoveryLineage | None) -> GetOutcome:
    """Write the WAL file `name` (restore_command's %f) to `destination` (%p).

    Faults: wal-gap, wal-refused (a name that recovery does not ask for, a segment of another branch), Damaged, io, and
    the store's.
    """
    kind = wal_file_kind(name)
    if kind is None or kind is WalFileKind.PARTIAL:
        raise Fault(
            "wal-refused",
            f"{name!r} is not served, expected a segment, a .history or a .backup file",
            hint="restore_command should be: pgkeep --config FILE wal get %f %p",
        )
    if kind is WalFileKind.SEGMENT:
        return _get_segment(archive, name, destination, lineage)
    type_ = ObjectType.WAL_HISTORY if kind is WalFileKind.HISTORY else ObjectType.WAL_BACKUP_LABEL
    key = archive.key(name)
    try:
        content = archive.read(key, type_)
    except Fault as fault:
        return _missing_or_raise(fault, name)
    write_durably(destination, content)
    return GetOutcome(GetStatus.FOUND, name, key)


def _archive_of_directory(repository: Repository, data_directory: str | os.PathLike[str]) -> WalArchive:
    control = read_control(os.path.join(os.fspath(data_directory), CONTROL_FILE))
    return archive_of(repository, control.system_identifier)


def _archive_of_lineage(repository: Repository, lineage: RecoveryLineage) -> WalArchive:
    if repository.id != lineage.repository:
        raise _foreign(f"repository {lineage.repository}", f"{repository.store.url} is {repository.id}")
    for cluster in clusters(repository):
        if cluster.uuid == lineage.cluster:
            incarnation = cluster.incarnation(lineage.system_id)
            if incarnation is None or incarnation.wal_segment_size != lineage.segment_size:
                raise _foreign(
                    f"system identifier {lineage.system_id} with {lineage.segment_size}-byte segments",
                    f"cluster {cluster.name} has no such one",
                )
            return WalArchive(cluster, lineage.system_id, lineage.segment_size)
    raise _foreign(f"cluster {lineage.cluster}", f"{repository.store.url} does not hold it")


def _foreign(expected: str, found: str) -> Fault:
    return Fault(
        "cluster-mismatch",
        f"this data directory was restored from {expected}, but {found}",
        hint="let restore_command name the configuration that the restore was made with",
    )


def _get_segment(archive: WalArchive, name: str, destination: str, lineage: RecoveryLineage | None) -> GetOutcome:
    history = lineage.history if lineage else None
    try:
        segment = Segment.parse(name, archive.segment_size)
    except ValueError as error:
        raise Fault("wal-refused", f"{name} is not served: {error}") from None
    if history is not None:
        _check_branch(segment, name, history, archive.segment_size)
    if lineage is not None and lineage.flush is not None and segment.number == lineage.last_segment:
        return _get_planned_partial(archive, segment, destination, lineage.flush)
    try:
        content = archive.segment(segment)
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        if _precedes_its_timeline(archive, segment, history):
            return GetOutcome(GetStatus.MISSING, name)
        _check_gap(archive, segment, history)
        if _is_beyond(lineage, segment):
            return GetOutcome(GetStatus.MISSING, name)
        partials = archive.partials_of(segment)
        allowed = _allowed(archive, partials, segment, history) if partials else ()
        return _get_partial(archive, segment, destination, allowed) or GetOutcome(GetStatus.MISSING, name)
    if _is_beyond(lineage, segment):
        return GetOutcome(GetStatus.MISSING, name, notes=(f"{name} was archived after this restore was planned",))
    write_durably(destination, content)
    return GetOutcome(GetStatus.FOUND, name, archive.key(name), segment=segment)


def _is_beyond(lineage: RecoveryLineage | None, segment: Segment) -> bool:
    """True for WAL that the plan did not know: nobody has looked at which tablespaces it would create, and where."""
    return lineage is not None and lineage.last_segment is not None and segment.number > lineage.last_segment


def _get_planned_partial(archive: WalArchive, segment: Segment, destination: str, flush: Lsn) -> GetOutcome:
    """The partial that the plan has read, or a shorter one.

    A longer one or the whole segment, cut off at `flush`, would not be the same: that position is rounded up to a
    page, and later WAL may have filled the rest of it.
    """
    known = [partial for partial in archive.partials_of(segment) if partial.flush <= flush]
    outcome = _get_partial(archive, segment, destination, known)
    if outcome is None:
        name = segment.name(archive.segment_size)
        raise Fault(
            "wal-gap",
            f"the partial segment {name} up to {flush}, with which this restore was planned, is not in the archive",
            hint="restore again: the new plan takes what is archived now",
            segment=name,
        )
    return outcome


def _check_branch(segment: Segment, name: str, history: History, size: int) -> None:
    """Refuse what is not the lineage's own file of this segment."""
    right = history.segment_timeline(segment.number, size)
    if segment.timeline in history.timelines() and segment.timeline >= right:
        return  # its own file, or one of a timeline that had not begun yet, which cannot be there
    raise Fault(
        "wal-refused",
        f"{name} is of timeline {segment.timeline}, but this restore follows timeline {history.timeline}, for which"
        f" the segment comes from timeline {right}",
        hint=f"{Segment(right, segment.number).name(size)} is what recovery needs; if it is not archived, restore"
        f" again to an earlier target or along another timeline",
    )


def _precedes_its_timeline(archive: WalArchive, segment: Segment, history: History | None) -> bool:
    """True when the timeline began in a later segment: an ancestor's file is the right one, and this one never was."""
    own = history or next(_archived_histories(archive, [segment.timeline]), None)
    return own is not None and segment.number < own.began_at(segment.timeline) // archive.segment_size


def _check_gap(archive: WalArchive, segment: Segment, history: History | None) -> None:
    """wal-gap when WAL lies behind the missing segment, or once did: its absence is not the end of WAL."""
    size = archive.segment_size
    later = _later(archive, segment, history)
    if later is not None:
        raise _gap(segment.name(size), f"later WAL is there ({later.name(size)})")
    if history is not None and segment.number <= proven_until(history, size):
        switch = history.switches[-1]
        raise _gap(segment.name(size), f"timeline {history.timeline} begins behind it (at {switch.lsn})")


def _later(archive: WalArchive, segment: Segment, history: History | None) -> Segment | None:
    """The first full segment behind `segment`: of the lineage, or of its own timeline."""
    timelines = (segment.timeline,) if history is None else history.timelines()
    for timeline in (one for one in timelines if one >= segment.timeline):
        for number in archive.numbers_from(timeline, segment.number + 1):
            if history is None or history.segment_timeline(number, archive.segment_size) == timeline:
                return Segment(timeline, number)
    return None


def _gap(name: str, found: str) -> Fault:
    return Fault(
        "wal-gap",
        f"{name} is missing from the archive, but {found}: recovery cannot pass this gap",
        hint="see the gaps with: pgkeep list; restore to a target before it, or from a backup behind it",
        segment=name,
    )


def _get_partial(
    archive: WalArchive, segment: Segment, destination: str, partials: Iterable[Partial]
) -> GetOutcome | None:
    """The first of the partials that verifies; None when there is none, Damaged when none is sound."""
    name = segment.name(archive.segment_size)
    damages: list[Damaged] = []
    for partial in partials:
        try:
            content = archive.partial(partial)
        except Damaged as damage:
            damages.append(damage)
            continue
        write_durably(destination, content, archive.segment_size - len(content))
        notes = tuple(f"{damage.message}; a shorter partial was served" for damage in damages)
        return GetOutcome(GetStatus.FOUND, name, partial.key, partial.flush, notes)
    if damages:
        raise damages[0]  # the newest WAL is there but unreadable: that is no end of WAL
    return None


def _allowed(
    archive: WalArchive, partials: tuple[Partial, ...], segment: Segment, history: History | None
) -> tuple[Partial, ...]:
    if history is not None:
        return servable(partials, ())
    younger = (timeline for timeline in archive.timelines() if timeline > segment.timeline)
    return servable(partials, forks(_archived_histories(archive, younger), segment.timeline))


def _archived_histories(archive: WalArchive, timelines: Iterable[int]) -> Iterator[History]:
    for timeline in timelines:
        try:
            yield read_history(archive, timeline)
        except Fault as fault:
            if fault.code != "object-missing":
                raise


def _missing_or_raise(fault: Fault, name: str) -> GetOutcome:
    if fault.code != "object-missing":
        raise fault
    return GetOutcome(GetStatus.MISSING, name)
