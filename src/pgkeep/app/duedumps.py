"""`dump --due`: the configuration's sets of dumps whose schedule says so are dumped, one after another.

1. A set is due when its last dump began before its schedule's last moment, or when there is none.  Only what is in the
   repository counts: a dump that failed is due again at the next call.
2. A dump that began shortly before that moment counts for it: the server's clock, by which dumps say when they began,
   may be behind this host's.
3. One set that fails does not keep the others from being dumped; the first fault decides the exit status.
4. One call at a time for a configuration file: a call that comes while another one dumps is refused (`locked`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final

from pgkeep.app.dump import DumpResult, DumpTarget, dump, prepare_dump
from pgkeep.app.dumpwords import request_of
from pgkeep.app.place import Place
from pgkeep.clock import Clock
from pgkeep.config.settings import DumpSettings
from pgkeep.errors import Fault
from pgkeep.events import Announce, Noted
from pgkeep.repo.repository import Cluster
from pgkeep.retention.gather import known_dumps
from pgkeep.retention.zone import zone_of_days

_GRACE: Final = timedelta(minutes=10)
_PART: Final = 4
"""The grace is at most this part of the time between two moments of a schedule."""


@dataclass(frozen=True, slots=True)
class DueSet:
    """A set with a schedule: when it was dumped last, when it was due last, and when it will be next; all aware."""

    settings: DumpSettings
    last: datetime | None
    since: datetime | None
    """The moment for which there is no dump yet; None when it is not due."""
    next: datetime | None

    @property
    def is_due(self) -> bool:
        return self.since is not None


@dataclass(frozen=True, slots=True)
class DueDump:
    """What became of a set that was due: a dump, or the fault for which there is none."""

    due: DueSet
    result: DumpResult | None
    fault: Fault | None = None


def plan_due(
    sets: Iterable[DumpSettings], last: Mapping[str, datetime], now: datetime, zone: tzinfo
) -> tuple[DueSet, ...]:
    """Of all sets with a schedule; `last` is when each set's newest dump began.  Pure."""
    return tuple(_due(one, last.get(one.name), now, zone) for one in sets if one.schedule is not None)


def _due(settings: DumpSettings, last: datetime | None, now: datetime, zone: tzinfo) -> DueSet:
    assert settings.schedule is not None, "only sets with a schedule are asked"
    moment = settings.schedule.due_before(now, zone)
    following = settings.schedule.due_after(now, zone)
    if last is None:
        return DueSet(settings, None, moment or now, following)
    if moment is None:
        return DueSet(settings, last, None, following)
    before = settings.schedule.due_before(moment - timedelta(seconds=1), zone)
    grace = min(_GRACE, (moment - before) / _PART) if before is not None else _GRACE
    return DueSet(settings, last, moment if last < moment - grace else None, following)


def last_dumps(cluster: Cluster) -> dict[str, datetime]:
    """When the newest dump of each set began; what cannot be read is none.  The store's faults."""
    found: dict[str, datetime] = {}
    for one in known_dumps(cluster):
        with suppress(ValueError):
            if one.info is not None:
                began = datetime.fromisoformat(one.info.started)
                if began.tzinfo is not None:
                    found[one.info.name] = max(began, found.get(one.info.name, began))
    return found


def due_sets(place: Place, local_zone: str, clock: Clock) -> tuple[DueSet, ...]:
    """Every set with a schedule; `local_zone` is the name of this machine's zone, '' when it is not known.

    The store's faults.
    """
    zone = zone_of_days(place.settings.timezone, local_zone)
    return plan_due(place.settings.dumps, last_dumps(place.cluster), clock.now(), zone)


def dump_due(place: Place, due: Iterable[DueSet], clock: Clock, announce: Announce) -> Iterator[DueDump]:
    """Dump every set that is due, and say of each what became of it.  Fault `interrupted` ends it."""
    for one in due:
        if not one.is_due:
            continue
        announce(Noted(f"the set {one.settings.name} is due since {one.since:%Y-%m-%d %H:%M%z}"))
        try:
            prepared = prepare_dump(place.settings, request_of(one.settings), DumpTarget(), clock, place.cluster)
            result = dump(prepared, place, clock, announce)
        except Fault as fault:
            if fault.code == "interrupted":
                raise
            yield DueDump(one, None, fault)
        else:
            yield DueDump(one, result)


@contextmanager
def one_at_a_time(path: str) -> Iterator[None]:
    """Hold the configuration file for the block; `locked` when another call does.  Ends with the process at the latest.

    A lock on the file itself: every account that runs pgkeep with it can open it, and it lies on the host that dumps.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Fault("config-missing", f"{path}: {error.strerror}", hint="it was there a moment ago") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fault(
                "locked",
                f"another pgkeep dump --due is running with {path}",
                hint="let it end: the next call makes what is due then",
            ) from None
        yield
    finally:
        os.close(descriptor)
