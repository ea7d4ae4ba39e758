"""Start a restored server and follow its recovery to the end that was asked for.

1. What the log says decides: it is there whatever pg_hba.conf allows.  SQL is asked, as the server's own account, only
   for the exact position, and an answer that does not come is no failure.
2. A recovery has no time limit; it ends by reaching its target, or by the server's end.
3. The server is left running when the recovery succeeded, and stopped when it did not or when the user interrupts.
4. After a promotion the recovery's settings leave postgresql.auto.conf; what keeps the server apart stays.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pgkeep.errors import Fault
from pgkeep.events import Announce, Noted, Phase, Progress
from pgkeep.pg.account import Account
from pgkeep.pg.instance import Instance, LogFollower
from pgkeep.restore.plan import RestorePlan, show_in
from pgkeep.restore.recoverylog import RecoveryLog
from pgkeep.restore.settings import Action, cleanup_after_promotion
from pgkeep.restore.tree import Owner, Tree
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import FILE_NAME

LOG_NAME: Final = "pgkeep.restore.log"
"""In the restored data directory; never part of a backup."""
_POLL_SECONDS: Final = 0.05
_STREAMING_SECONDS: Final = 15.0
"""After it is open for reading, a replica is waited for no longer than this: its primary may be down."""
_AUTO: Final = b"postgresql.auto.conf"
_TEMPORARY: Final = b"postgresql.auto.conf.tmp"
_SAID_BY_LOG: Final = {
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
}
_POSITION: Final = "SELECT pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp()"


@dataclass(frozen=True, slots=True)
class Recovered:
    """How the recovery ended.

    `state` is 'ready' (promoted), 'paused' or 'shut-down', of a replica 'streaming' or 'standby' (not streaming yet);
    `lsn` is the end of the last WAL that was replayed, as far as it is known; `last_time` when the last replayed
    transaction had ended.
    """

    state: str
    lsn: Lsn | None
    last_time: datetime | None
    timeline: int
    """The server's timeline now: a new one after a promotion."""
    said: str
    """The server's own sentence on where it stopped; '' for the end of WAL."""
    port: int
    socket_directory: str
    log: str
    seconds: float


def start_restored(plan: RestorePlan, announce: Announce) -> Recovered:
    """Start the server on a restored directory, wait for the end of its recovery, and say exactly where it stopped.

    `target-unreachable`, `wal-gap`, `recovery-failed`, `postgres-program`.
    """
    instance = _instance(plan)
    announce(Phase("recover", f"starting PostgreSQL {plan.programs.version} and replaying WAL"))
    began = time.monotonic()
    instance.log.touch(mode=0o600)
    follower = LogFollower(instance.log)
    instance.start()
    try:
        log = _follow(plan, instance, follower, announce)
    except BaseException:
        instance.stop("fast")
        raise
    recovered = _recovered(plan, log, instance, time.monotonic() - began)
    if recovered.state == "ready":
        clean_up(plan.directory, plan.account)
    announce(Noted(describe(recovered, plan)))
    return recovered


def _instance(plan: RestorePlan) -> Instance:
    directory = Path(plan.directory)
    return Instance(
        plan.programs,
        directory,
        plan.account,
        Path(plan.place.socket_directory),
        directory / LOG_NAME,
        port=plan.place.port,
        listen=plan.place.listen,
        settings=_SAID_BY_LOG,
    )


def _follow(plan: RestorePlan, instance: Instance, follower: LogFollower, announce: Announce) -> RecoveryLog:
    log = RecoveryLog()
    size = plan.wal.bytes // plan.wal.segments
    shown = -1
    streaming_by = 0.0
    while True:
        is_running = instance.is_running()
        for line in follower.lines():
            log.see(line)
        if log.segments != shown:
            shown = log.segments
            announce(Progress(min(shown * size, plan.wal.bytes), plan.wal.bytes))
        if log.lacks_settings:
            raise Fault(
                "recovery-failed",
                "recovery has paused because a setting is lower than the WAL needs",
                hint=f"{instance.log} names the setting; raise it in {plan.directory}/postgresql.auto.conf",
                log=str(instance.log),
            )
        if log.is_ready or log.is_paused:
            return log
        if plan.standby is not None and log.is_hot_standby:
            streaming_by = streaming_by or time.monotonic() + _STREAMING_SECONDS
            if log.is_streaming or time.monotonic() > streaming_by:
                return log
        if not is_running:
            if log.is_shut_down and plan.action is Action.SHUTDOWN:
                return log
            raise log.fault(str(instance.log))
        time.sleep(_POLL_SECONDS)


def _recovered(plan: RestorePlan, log: RecoveryLog, instance: Instance, seconds: float) -> Recovered:
    state = _state(plan, log)
    asked = _ask(plan) if state != "shut-down" else None
    lsn, last_time = asked or (log.redo_done or plan.stop.position, log.last_time)
    last = plan.stop.last
    if last is not None and last.lsn == plan.stop.position:
        # The server does not count the time of the very record at which an LSN stops it (recoveryStopsAfter).
        last_time = last.time
    return Recovered(
        state=state,
        lsn=lsn,
        last_time=last_time,
        timeline=log.new_timeline or plan.timeline,
        said=log.stopping,
        port=plan.place.port,
        socket_directory=plan.place.socket_directory,
        log=str(instance.log),
        seconds=seconds,
    )


def _state(plan: RestorePlan, log: RecoveryLog) -> str:
    if log.is_ready:
        return "ready"
    if plan.standby is not None:
        return "streaming" if log.is_streaming else "standby"
    return "paused" if log.is_paused else "shut-down"


def _ask(plan: RestorePlan) -> tuple[Lsn, datetime | None] | None:
    """(replayed up to, last commit) by psql under the server's own account; None when it is not let in."""
    arguments = [
        "-X", "-A", "-t", "-w", "-F", " ", "-h", plan.place.socket_directory, "-p", str(plan.place.port),
        "-U", "postgres", "-d", "postgres", "-c", f"SET timezone = 'UTC'; {_POSITION}",
    ]  # fmt: skip
    try:
        output = plan.programs.run("psql", *arguments, account=plan.account, timeout=30)
        position, _, moment = output.text().strip().splitlines()[-1].partition(" ")
        return Lsn.parse(position), datetime.fromisoformat(moment) if moment else None
    except (Fault, ValueError, IndexError):
        return None


def clean_up(directory: str, account: Account) -> None:
    """Take the settings of the finished recovery out of postgresql.auto.conf, and remove the lineage for `wal get`."""
    tree = Tree(os.path.realpath(directory), None if account.is_self else Owner(account.uid, account.gid))
    try:
        text = tree.read(_AUTO).decode("utf-8", "surrogateescape")
        tree.write(_TEMPORARY, cleanup_after_promotion(text).encode("utf-8", "surrogateescape"), 0o600)
        tree.rename(_TEMPORARY, _AUTO)
        tree.remove(FILE_NAME.encode())
    finally:
        tree.close()


def describe(recovered: Recovered, plan: RestorePlan) -> str:
    """'recovered to 0/5000060, the last transaction ended at ...; the server is open on timeline 2'."""
    where = f"recovered to {recovered.lsn}" if recovered.lsn is not None else "recovered"
    when = ""
    if recovered.last_time is not None:
        when = f", the last transaction ended at {show_in(plan.zone, recovered.last_time)}"
    state = {
        "ready": f"the server is open on timeline {recovered.timeline}",
        "paused": "the server is paused there, read-only; SELECT pg_wal_replay_resume() opens it",
        "shut-down": "the server has shut down there",
        "streaming": "the replica streams from its primary, and answers read-only queries",
        "standby": "the replica answers read-only queries; it does not stream yet: its log says why",
    }[recovered.state]
    return f"{where}{when}; {state}"
