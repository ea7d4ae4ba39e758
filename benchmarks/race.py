"""The races themselves: alternating runs, each after a checkpoint and `sync`, medians and paired ratios."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.contenders import Contender, Phases
from benchmarks.data import DataSet, digest, tree_size
from benchmarks.measure import Cost, tree_ticks
from benchmarks.server import RaceError, Server, Site, running

Say = Callable[[str], None]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)
"""Who takes part in a race: contenders, or something about them."""
_ARCHIVE_PATIENCE = 120.0  # seconds until an archive_command that does not succeed is a failure


@dataclass(frozen=True, slots=True)
class Course:
    """What all races of one invocation share; `field` is the contenders, the reference first."""

    site: Site
    source: DataSet
    field: tuple[Contender, ...]
    pairs: int
    say: Say


@dataclass(frozen=True, slots=True)
class Run:
    """One timed run.  `server_cpu` is the CPU time in seconds of its PostgreSQL server and archive commands
    meanwhile (an archiver that detaches itself is not in it); `stored` is bytes on disk afterwards."""

    contender: str
    cost: Cost
    phases: Phases
    server_cpu: float
    stored: int

    @property
    def other_cpu(self) -> float:
        """CPU seconds of the rest of the machine: the kernel's writing back, and whoever disturbed the race."""
        return max(0.0, self.cost.machine - self.cost.cpu - self.server_cpu)


@dataclass(frozen=True, slots=True)
class Result:
    """All runs of a race after the warm-up, in the order in which they were made."""

    race: str
    runs: tuple[Run, ...]

    def of(self, contender: str) -> list[Run]:
        return [run for run in self.runs if run.contender == contender]

    def names(self) -> list[str]:
        return list(dict.fromkeys(run.contender for run in self.runs))


Measure = Callable[[Run], float | None]


def median(runs: Sequence[Run], measure: Measure) -> float | None:
    """Over the runs that have the measure; None if none has."""
    values = [value for run in runs if (value := measure(run)) is not None]
    return statistics.median(values) if values else None


def paired_ratios(result: Result, name: str, reference: str, measure: Measure) -> list[float]:
    """`name` over `reference`, run by run of the same round: below 1 is less than the reference."""
    pairs = zip(result.of(name), result.of(reference), strict=True)
    values = [(measure(one), measure(other)) for one, other in pairs]
    return [one / other for one, other in values if one is not None and other]


def rounds(contenders: Sequence[N], pairs: int) -> list[list[N]]:
    """The order of the runs: a warm-up round, then `pairs` rounds; every other one is turned round."""
    forward, backward = list(contenders), list(reversed(contenders))
    return [backward if number % 2 == 0 else forward for number in range(pairs + 1)]


@contextlib.contextmanager
def clusters(course: Course, settings: str = "") -> Iterator[dict[str, Server]]:
    """A running copy of the data set for each contender, with its archive_command and `settings` (lines of
    postgresql.conf); by contender's name."""
    site = course.site
    home = site.folder("clusters")
    with contextlib.ExitStack() as stack:
        servers = {}
        for contender in course.field:
            copy = home / contender.name
            shutil.rmtree(copy, ignore_errors=True)
            site.run("cp", "-a", "--reflink=auto", course.source.data, str(copy))
            archive = f"archive_mode=on\narchive_command='{contender.archive_command or '/bin/true'}'\n"
            Server(site, copy, copy).configure(archive + settings)
            servers[contender.name] = stack.enter_context(running(site, copy))
        yield servers


def settle(read: Path) -> None:
    """The same state before every run: what it will read is in the page cache, nothing waits to be written."""
    for path in read.rglob("*"):
        # A running server and its archiver remove files meanwhile.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError), path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    os.sync()


def await_archiver(server: Server) -> None:
    """The last backup's WAL must be out of the way before its repository is replaced."""
    deadline = time.monotonic() + _ARCHIVE_PATIENCE
    while any((server.data / "pg_wal" / "archive_status").glob("*.ready")):
        if time.monotonic() > deadline:
            raise RaceError(f"WAL is not being archived: see {server.data}.log")
        time.sleep(0.05)


def backup_race(course: Course, servers: dict[str, Server]) -> Result:
    """Full backups, each into a fresh repository.  The last of each contender is there for the restore race."""

    def once(contender: Contender) -> Run:
        server = servers[contender.name]
        await_archiver(server)
        contender.prepare(server)
        server.sql("checkpoint")
        settle(server.data)
        before = tree_ticks(server.pid)
        cost = server.site.race(contender.backup(server))
        spent = tree_ticks(server.pid) - before
        return Run(contender.name, cost, contender.phases(cost.lines), spent, tree_size(contender.repository))

    return race(course, "backup", course.field, once)


def restore_race(course: Course) -> Result:
    """The newest backup into an empty directory; then each tool's last restore is started and compared."""
    site = course.site
    able = [contender for contender in course.field if contender.restore(Path("/"))]
    home = site.folder("restored")

    def once(contender: Contender) -> Run:
        target = home / contender.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        site.own(target)
        settle(contender.repository)
        cost = site.race(contender.restore(target))
        return Run(contender.name, cost, Phases(), 0.0, 0)

    result = race(course, "restore", able, once)
    for contender in able:
        prove(site, home / contender.name, course.source)
        course.say(f"  {contender.name}: the restored server holds the same rows")
    shutil.rmtree(home)
    return result


def race(course: Course, name: str, field: Sequence[N], once: Callable[[N], Run]) -> Result:
    runs = []
    for number, order in enumerate(rounds(field, course.pairs)):
        for contender in order:
            run = once(contender)
            label = f"pair {number}" if number else "warm-up"
            course.say(f"  {name}, {label}: {contender.name} {run.cost.wall:.2f} s wall, {run.cost.cpu:.2f} s CPU")
            if number:
                runs.append(run)
    return Result(name, tuple(runs))


def prove(site: Site, restored: Path, source: DataSet) -> None:
    """Recover the restored cluster, without letting it archive, and compare its rows with the data set's."""
    with running(site, restored, "archive_mode=off") as server:
        found = digest(server)
        if found != source.digest:
            raise RaceError(f"{restored} holds other rows: found {found}, expected {source.digest}")
