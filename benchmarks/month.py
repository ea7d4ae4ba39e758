"""`python -m benchmarks.month`: what a repository holds after thirty nights, beside pgBackRest's.

One server lives through DAYS simulated days, each TRANSACTIONS of pgbench with the day as seed on the data set of the
races.  Every night pgkeep takes a backup and prunes by KEEP; pgBackRest takes a full backup on Sundays and an
incremental one else.  At the end pgBackRest gives up every backup that pgkeep's policy does not keep either, as far as
no kept one needs it: both can then restore the same days.

The days pass by libfaketime (Debian: faketime), for the server and both tools alike; files of the repositories are
made a day older each night, because a store's clock is not faked.  Bytes are compared, never times.

The month is kept in the work folder; a run that was stopped between two nights goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.archiving import archive_with
from benchmarks.contenders import Contender, PgBackRest, PgKeep
from benchmarks.data import SCALES, data_set, digest, tree_size
from benchmarks.race import await_archiver
from benchmarks.server import RaceError, Server, Site, find_programs, running

DAYS = 30
TRANSACTIONS = 20_000
KEEP = '{ daily = 7, weekly = 4, monthly = 12, wal = "7d" }'
BEGIN = datetime(2027, 3, 1, 2, tzinfo=UTC)  # a Monday
_LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
_SETTINGS = "archive_mode=on\narchive_command='/bin/true'\nsummarize_wal=on\nmax_wal_size='8GB'\n"
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Month:
    """One run."""

    site: Site
    pgkeep: PgKeep
    pgbackrest: PgBackRest | None
    data: Path

    @property
    def field(self) -> tuple[PgKeep | PgBackRest, ...]:
        return (self.pgkeep,) if self.pgbackrest is None else (self.pgkeep, self.pgbackrest)

    @property
    def _record(self) -> Path:
        return self.site.work / "nights.json"

    def nights(self) -> int:
        """How many there were so far."""
        if not self._record.exists():
            return 0
        found = json.loads(self._record.read_text())
        if found["field"] != [one.name for one in self.field]:
            raise RaceError(f"{self.site.work} holds nights of {', '.join(found['field'])}; remove it to begin anew")
        return int(found["nights"])

    def begin(self, source: Path) -> None:
        """A copy of the data set, and nothing else."""
        shutil.rmtree(self.site.work, ignore_errors=True)
        self.site.folder("source")
        self.site.run("cp", "-a", "--reflink=auto", str(source), str(self.data))
        Server(self.site, self.data, self.data).configure(_SETTINGS)

    def live(self, days: int) -> None:
        """The nights that are not yet over, up to `days`."""
        for day in range(self.nights(), days):
            self.night(day)
            record = {"nights": day + 1, "field": [one.name for one in self.field]}
            self._record.write_text(json.dumps(record))
            sizes = ", ".join(f"{one.name} {_sizes(one)[0] / 1e6:.0f} MB" for one in self.field)
            print(f"{(BEGIN + timedelta(days=day)).date()}: {sizes}", flush=True)

    def night(self, day: int) -> None:
        """One day's work and both tools' backups."""
        set_date(BEGIN + timedelta(days=day))
        with running(self.site, self.data, "fsync=off") as server:
            if day == 0:
                self._begin(server)
            self.connect(server)
            words = ("-n", "-c", "1", "-t", str(TRANSACTIONS), f"--random-seed={day}", server.conninfo)
            self.site.run(self.site.program("pgbench"), *words)
            server.sql("checkpoint")
            if self.pgbackrest is not None:
                is_full = day == 0 or (BEGIN + timedelta(days=day)).isoweekday() == 7
                self.site.run(*(self.pgbackrest.backup(server) if is_full else self.pgbackrest.incremental(server)))
            self.site.run(*self.pgkeep.incremental(server))
            self.site.run(*self.pgkeep.command("prune", "--yes"))
            await_archiver(server)
        for contender in self.field:
            _make_older(contender.repository)

    def rows(self) -> str:
        """What the last night left."""
        set_date(BEGIN + timedelta(days=self.nights()))
        with running(self.site, self.data) as server:
            return digest(server)

    def _begin(self, server: Server) -> None:
        for contender in self.field:
            contender.prepare(server)
        with self.pgkeep.config.open("a") as config:
            config.write(f'keep = {KEEP}\ntimezone = "UTC"\n')
        archive_with(server, " && ".join(one.archive_command for one in self.field))

    def connect(self, server: Server) -> None:
        """Every night the server has another socket folder."""
        for one in self.field:
            config = one.config
            config.write_text(re.sub(r"(?<!/var)/tmp/pgk\w+(?![\w/-])", str(server.socket), config.read_text()))

    def same_days(self, pgbackrest: PgBackRest) -> tuple[list[str], list[str]]:
        """(the days that both keep, pgBackRest's backups that it gave up)."""
        listed = json.loads(self.site.run(*self.pgkeep.command("--json", "list")).splitlines()[-1])["result"]["backups"]
        days = sorted(row["info"]["started"][:10] for row in listed)
        backups = _labels(pgbackrest)
        kept = {label for label, day in backups.items() if day in days}
        needed = {part for label in kept for part in _chain(pgbackrest, label)}
        gone = [label for label in sorted(backups, reverse=True) if label not in needed]
        for label in gone:
            if label in _labels(pgbackrest):
                self.site.run(*pgbackrest.command("expire", f"--set={label}"))
        return days, gone


def _info(pgbackrest: PgBackRest) -> list[dict[str, object]]:
    found = json.loads(pgbackrest.site.run(*pgbackrest.command("info", "--output=json")))
    backups: list[dict[str, object]] = found[0]["backup"]
    return backups


def _labels(pgbackrest: PgBackRest) -> dict[str, str]:
    """Of its backups, with their days."""
    return {str(row["label"]): _day_of(row) for row in _info(pgbackrest)}


def _chain(pgbackrest: PgBackRest, label: str) -> list[str]:
    """The backup and all that it refers to."""
    row = next(row for row in _info(pgbackrest) if row["label"] == label)
    others = row["reference"] or []
    assert isinstance(others, list)
    return [label, *map(str, others)]


def _day_of(row: dict[str, object]) -> str:
    times = row["timestamp"]
    assert isinstance(times, dict)
    return datetime.fromtimestamp(times["start"], UTC).date().isoformat()


def set_date(moment: datetime) -> None:
    """What time it is for every program that is started from now on."""
    ahead = int(moment.timestamp() - datetime.now(UTC).timestamp())
    # The monotonic clock is faked along: with it left alone, libfaketime breaks Python's sleep.
    os.environ |= {"LD_PRELOAD": _LIBRARY, "FAKETIME": f"{ahead:+d}", "NO_FAKE_STAT": "1"}


def _make_older(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            stat = path.stat()
            os.utime(path, (stat.st_atime - _DAY, stat.st_mtime - _DAY))


def _sizes(contender: Contender) -> tuple[int, int]:
    """Bytes of the backups, and of everything."""
    return sum(tree_size(folder) for folder in contender.backups), tree_size(contender.repository)


def parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """What a month needs to know; `module` is its name, its first line of text the description."""
    found = argparse.ArgumentParser(prog=f"python -m {module}", description=(doc or "").splitlines()[0])
    found.add_argument("--work", type=Path, default=Path("/var/tmp/pgkeep-bench"), help="folder (%(default)s)")
    found.add_argument("--scale", choices=sorted(SCALES), default="full", help="(default: %(default)s)")
    found.add_argument("--days", type=int, default=DAYS, help="nights in all (default: %(default)s)")
    found.add_argument("--pgkeep", default=shutil.which("pgkeep"), help="program (default: from PATH)")
    found.add_argument("--postgres", type=Path, help="PostgreSQL's bin folder")
    found.add_argument("--account", default="postgres", help="account when started as root (default: %(default)s)")
    return found


def month_of(options: argparse.Namespace, folder: str, pgbackrest: str | None) -> Month:
    """The month in this folder of the work folder: begun, or the one that is there."""
    if not Path(_LIBRARY).exists():
        raise RaceError(f"{_LIBRARY} is not there; on Debian: apt-get install faketime")
    account = options.account if os.geteuid() == 0 else None
    programs = find_programs(options.postgres)
    options.work.mkdir(parents=True, exist_ok=True)
    source = data_set(Site(options.work.resolve(), programs, account), SCALES[options.scale])
    site = Site(options.work.resolve() / folder, programs, account)
    theirs = PgBackRest(site, pgbackrest) if pgbackrest else None
    month = Month(site, PgKeep(site, options.pgkeep), theirs, site.work / "source" / "pgdata")
    if not month.nights():
        month.begin(Path(source.data))
    return month


def main() -> int:
    options_of = parser("benchmarks.month", __doc__)
    options_of.add_argument("--pgbackrest", default=shutil.which("pgbackrest"), help="program (default: from PATH)")
    options = options_of.parse_args()
    month = month_of(options, "month", options.pgbackrest)
    month.live(options.days)
    if month.pgbackrest is not None:
        _compare(month, month.pgbackrest)
    _prove(month)
    return 0


def _compare(month: Month, pgbackrest: PgBackRest) -> None:
    days, gone = month.same_days(pgbackrest)
    print(f"kept by both: {', '.join(days)}")
    print(f"given up by pgBackRest: {', '.join(gone) or 'none'}")
    (ours, ours_all), (theirs, theirs_all) = (_sizes(one) for one in month.field)
    print(f"backups: pgkeep {ours / 1e6:.0f} MB, pgBackRest {theirs / 1e6:.0f} MB: {ours / theirs:.2f}")
    print(
        f"with WAL: pgkeep {ours_all / 1e6:.0f} MB, pgBackRest {theirs_all / 1e6:.0f} MB: {ours_all / theirs_all:.2f}"
    )


def _prove(month: Month) -> None:
    month.site.run(*month.pgkeep.command("verify"))
    target = month.site.folder("restored") / "pgdata"
    shutil.rmtree(target, ignore_errors=True)
    month.site.run(*month.pgkeep.command("restore", str(target), "--latest"))
    with running(month.site, target, "archive_mode=off") as server:
        restored = digest(server)
    if restored != month.rows():
        raise RaceError("the newest backup restored other rows")
    shutil.rmtree(target.parent)
    print("pgkeep verified everything, and the newest backup restored every row")


if __name__ == "__main__":
    sys.exit(main())
