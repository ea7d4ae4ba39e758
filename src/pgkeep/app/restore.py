"""`restore`: from what people write to a plan, and from the plan to a data directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pgkeep.app.place import Place
from pgkeep.clock import Clock
from pgkeep.crew import prepare
from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned
from pgkeep.pg.account import Account, can_run
from pgkeep.pg.primary import PrimaryState, ask_primary, primary_of
from pgkeep.pg.runtime import answers_version
from pgkeep.repo.keeping import kept
from pgkeep.restore import job, preflight
from pgkeep.restore.job import PreparedRestore, RestoreRequest, plan_restore, server_zone
from pgkeep.restore.moment import Zone, parse_moment
from pgkeep.restore.plan import RestorePlan
from pgkeep.restore.present import How, Present, PresentWal, look_at, proof_of
from pgkeep.restore.settings import Action
from pgkeep.restore.standby import Standby, check_slot, plan_standby
from pgkeep.restore.start import Recovered, start_restored
from pgkeep.restore.target import Target, TargetKind, parse_target_lsn, parse_target_xid
from pgkeep.restore.worker import RestoreWorker
from pgkeep.values.ids import BackupId
from pgkeep.wal.salvage import left_behind, salvage


@dataclass(frozen=True, slots=True)
class TargetWords:
    """A target as it was typed; `text` is '' for the kinds that need none."""

    kind: TargetKind = TargetKind.LATEST
    text: str = ""
    exclusive: bool = False
    timeline: int | None = None


@dataclass(frozen=True, slots=True)
class StandbyWords:
    """A replica's primary as it was typed; `primary` '' means the configuration's connection."""

    primary: str = field(default="", repr=False)
    slot: str = ""


@dataclass(frozen=True, slots=True)
class RestoreChoices:
    """What the command line says; `program` and `options` are how the restored server will start this pgkeep."""

    directory: str
    target: TargetWords
    program: Sequence[str]
    options: Sequence[str]
    """Absolute --config, --cluster and --repo."""
    local_zone: str
    """Name of this machine's time zone, for the hint on a time without a zone; '' when it is not known."""
    backup: str | None = None
    action: Action = Action.PROMOTE
    tablespaces: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    bindir: Path | None = None
    processes: int = 1
    how: How = How.KEEP
    """What becomes of a data directory that is there."""
    standby: StandbyWords | None = None


def get_ready() -> None:
    """Let the workers' imports run beside the planning."""
    prepare(RestoreWorker.__module__)


def plan(
    place: Place, choices: RestoreChoices, clock: Clock, announce: Announce, *, dry_run: bool = False
) -> PreparedRestore:
    """Everything that will be done; faults of `plan_restore`, `usage`, `time-*`.

    Unless `dry_run`, WAL that a dead server left in the directory goes into the archive first: only then does the plan
    know how far recovery can come.
    """
    over = _over(place, choices, clock, announce, dry_run=dry_run)
    request = RestoreRequest(
        directory=choices.directory,
        target=read_target(place, choices.target, choices.local_zone),
        fetch=lambda account: _fetch(account, choices),
        backup=_backup_id(choices.backup) if choices.backup is not None else None,
        action=choices.action,
        tablespaces=choices.tablespaces,
        port=choices.port,
        bindir=choices.bindir or (Path(place.settings.bindir) if place.settings.bindir else None),
        processes=choices.processes,
        present=over.present,
        present_wal=over.wal,
        stamp=over.stamp,
        standby=_standby(place, choices.standby) if choices.standby is not None else None,
    )
    return plan_restore(place.cluster, request, announce)


class _Over(NamedTuple):
    """What is there, and what became of its WAL."""

    present: Present | None
    wal: PresentWal | None
    stamp: str


def _over(place: Place, choices: RestoreChoices, clock: Clock, announce: Announce, *, dry_run: bool) -> _Over:
    directory = preflight.resolve_directory(choices.directory)
    stamp = clock.now().strftime("%Y%m%dT%H%M%SZ")
    present = look_at(directory, choices.how)
    if present is None or present.unfinished:
        return _Over(present, None, stamp)
    if choices.how is not How.KEEP:
        _check_same_cluster(place, present)
    if dry_run:
        return _Over(present, PresentWal(waiting=tuple(left.name for left in left_behind(directory))), stamp)
    keep = choices.how is not How.KEEP  # else it lies in the directory that is kept
    saved = salvage(place.cluster, directory, f"{directory}.wal-{stamp}", clock, announce, keep=keep)
    if saved.where:
        text = f"{len(saved.kept)} WAL files that were not archived are kept in {saved.where}: {saved.why}"
        announce(Warned("wal-kept", text, "look at them before you remove that directory"))
    return _Over(present, PresentWal((), saved.pushed, saved.kept, saved.where, saved.why), stamp)


def _check_same_cluster(place: Place, present: Present) -> None:
    """Before anything is pushed or planned; the plan compares with the backup's own system identifier."""
    if any(place.cluster.incarnation(each.system_id) is None for each in present.evidence):
        proof_of(present, place.cluster.incarnations[-1].system_id, f"the cluster {place.cluster.name}")


def _standby(place: Place, words: StandbyWords) -> Standby:
    slot = check_slot(words.slot) if words.slot else ""
    primary = primary_of(words.primary or place.settings.connection, keep_password=bool(words.primary))
    asked = words.primary or place.settings.connection
    try:
        state: PrimaryState | Fault = ask_primary(asked, slot)
    except Fault as fault:
        state = fault
    return plan_standby(primary, slot, frozenset(each.system_id for each in place.cluster.incarnations), state)


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was written: bytes, and how long that took in seconds; how the recovery ended, when it was started."""

    plan: RestorePlan
    bytes: int
    seconds: float
    recovered: Recovered | None


def carry_out(prepared: PreparedRestore, clock: Clock, announce: Announce, *, start: bool) -> RestoreResult:
    """Write the plan's files, and `start` the server; faults of `materialise` and `start_restored`."""
    backup = BackupId(prepared.plan.backup.backup)
    with kept(prepared.cluster, clock, announce, purpose="restore", bases=[backup]):
        began = clock.monotonic()
        written = job.carry_out(prepared, announce)
        seconds = clock.monotonic() - began
        recovered = start_restored(prepared.plan, announce) if start else None
    return RestoreResult(prepared.plan, written, seconds, recovered)


def read_target(place: Place, words: TargetWords, local_zone: str) -> Target:
    """`usage`, `time-without-zone` (with the readings that the server and this machine would give it)."""
    inclusive, timeline = not words.exclusive, words.timeline
    match words.kind:
        case TargetKind.TIME:
            zones = [Zone("the server's zone", server_zone(place.cluster))]
            if local_zone and local_zone != zones[0].name:
                zones.append(Zone("this machine's zone", local_zone))
            return Target.at_time(parse_moment(words.text, zones), inclusive=inclusive, timeline=timeline)
        case TargetKind.LSN:
            return Target.at_lsn(parse_target_lsn(words.text), inclusive=inclusive, timeline=timeline)
        case TargetKind.XID:
            return Target.at_xid(parse_target_xid(words.text), inclusive=inclusive, timeline=timeline)
    if words.exclusive:
        raise Fault(
            "usage", "--exclusive needs --time, --lsn or --xid", hint="leave out --exclusive, or add one of them"
        )
    if words.kind is TargetKind.NAME:
        return Target.at_name(words.text, timeline=timeline)
    if words.kind is TargetKind.IMMEDIATE:
        return Target.immediate(timeline=timeline)
    return Target.latest(timeline=timeline)


def _backup_id(text: str) -> BackupId:
    try:
        return BackupId(text)
    except ValueError as error:
        raise Fault("usage", str(error), hint="see the backups with: pgkeep list") from None


def _fetch(account: Account, choices: RestoreChoices) -> tuple[str, ...]:
    """The words of `wal get`, tried as the account that will run them: mid-recovery is too late to find out."""
    command = (*choices.program, *choices.options)
    if not answers_version(account, choices.program):
        raise Fault(
            "postgres-program",
            f"the restored server will run as {account.name}, who cannot run this pgkeep ({choices.program[0]})",
            hint=f"run it as that account (sudo -u {account.name} pgkeep restore ...), or install pgkeep where every"
            " account can run it",
        )
    if not account.is_self and not can_run(account, [*command, "--json", "--quiet", "list"]):
        raise Fault(
            "postgres-program",
            f"the restored server will run as {account.name}, who cannot read the configuration or the repository",
            hint=f"run it as that account: sudo -u {account.name} pgkeep restore ...; or let it read both",
        )
    return (*command, "wal", "get")
