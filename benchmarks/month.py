"""`python -m benchmarks.month`: what a repository holds after thirty nights, beside pgBackRest's.

One server lives through DAYS simulated days, each TRANSACTIONS of pgbench with the day as seed on the data set of the
races.  Every night pgkeep takes a backup and prunes by KEEP; pgBackRest takes a full backup on Sundays and an
incremental one else.  At the end pgBackRest gives up every backup that pgkeep's policy does not keep either, as far as
no kept one needs it: both can then restore the same days.

The days pass by libfaketime (Debian: faketime), for the server and both tools alike; files of the repositories are
made a day older each night, because a store's clock is not faked.  Bytes are compared, never times.
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
    pgbackrest: PgBackRest
    data: Path

    @property
    def field(self) -> tuple[Contender, ...]:
        return self.pgkeep, self.pgbackrest

    def night(self, day: int) -> str:
        """One day's work and both tools' backups; the rows at its end."""
        _date(BEGIN + timedelta(days=day))
        with running(self.site, self.data) as server:
            if day == 0:
                self._begin(server)
            self._connect(server)
            words = ("-n", "-c", "1", "-t", str(TRANSACTIONS), f"--random-seed={day}", server.conninfo)
            self.site.run(self.site.program("pgbench"), *words)
            server.sql("checkpoint")
            is_full = day == 0 or (BEGIN + timedelta(days=day)).isoweekday() == 7
            self.site.run(*(self.pgbackrest.backup(server) if is_full else self.pgbackrest.incremental(server)))
            self.site.run(*self.pgkeep.incremental(server))
            self.site.run(*self.pgkeep.command("prune", "--yes"))
            await_archiver(server)
            rows = digest(server)
        for contender in self.field:
            _make_older(contender.repository)
        return rows

    def _begin(self, server: Server) -> None:
        for contender in self.field:
            contender.prepare(server)
        with self.pgkeep.config.open("a") as config:
            config.write(f'keep = {KEEP}\ntimezone = "UTC"\n')
        archive_with(server, " && ".join(one.archive_command for one in self.field))

    def _connect(self, server: Server) -> None:
        """Every night the server has another socket folder."""
        for config in (self.pgkeep.config, self.pgbackrest.config):
            config.write_text(re.sub(r"(?<!/var)/tmp/pgk\w+(?![\w/-])", str(server.socket), config.read_text()))

    def same_days(self) -> tuple[list[str], list[str]]:
        """(the days that both keep, pgBackRest's backups that it gave up)."""
        listed = json.loads(self.site.run(*self.pgkeep.command("--json", "list")).splitlines()[-1])["result"]["backups"]
        days = sorted(row["info"]["started"][:10] for row in listed)
        backups = self._pgbackrest_backups()
        kept = {label for label, day in backups.items() if day in days}
        needed = {part for label in kept for part in self._chain(label)}
        gone = [label for label in sorted(backups, reverse=True) if label not in needed]
        for label in gone:
            if label in self._pgbackrest_backups():
                self.site.run(*self.pgbackrest.command("expire", f"--set={label}"))
        return days, gone

    def _pgbackrest_info(self) -> list[dict[str, object]]:
        found = json.loads(self.site.run(*self.pgbackrest.command("info", "--output=json")))
        backups: list[dict[str, object]] = found[0]["backup"]
        return backups

    def _pgbackrest_backups(self) -> dict[str, str]:
        """Labels and their days."""
        rows = self._pgbackrest_info()
        return {str(row["label"]): _day_of(row) for row in rows}

    def _chain(self, label: str) -> list[str]:
        """The backup and all that it refers to."""
        row = next(row for row in self._pgbackrest_info() if row["label"] == label)
        others = row["reference"] or []
        assert isinstance(others, list)
        return [label, *map(str, others)]


def _day_of(row: dict[str, object]) -> str:
    times = row["timestamp"]
    assert isinstance(times, dict)
    return datetime.fromtimestamp(times["start"], UTC).date().isoformat()


def _date(moment: datetime) -> None:
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.month", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pgkeep-bench"))
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--pgkeep", default=shutil.which("pgkeep"))
    parser.add_argument("--pgbackrest", default=shutil.which("pgbackrest"))
    parser.add_argument("--postgres", type=Path)
    parser.add_argument("--account", default="postgres")
    options = parser.parse_args()
    if not Path(_LIBRARY).exists():
        raise RaceError(f"{_LIBRARY} is not there; on Debian: apt-get install faketime")
    account = options.account if os.geteuid() == 0 else None
    programs = find_programs(options.postgres)
    options.work.mkdir(parents=True, exist_ok=True)
    source = data_set(Site(options.work.resolve(), programs, account), SCALES[options.scale])
    site = Site(options.work.resolve() / "month", programs, account)
    shutil.rmtree(site.work, ignore_errors=True)
    data = site.folder("source") / "pgdata"
    site.run("cp", "-a", "--reflink=auto", source.data, str(data))
    Server(site, data, data).configure(_SETTINGS)
    month = Month(site, PgKeep(site, options.pgkeep), PgBackRest(site, options.pgbackrest), data)
    rows = ""
    for day in range(options.days):
        rows = month.night(day)
        sizes = ", ".join(f"{one.name} {_sizes(one)[0] / 1e6:.0f} MB" for one in month.field)
        print(f"{(BEGIN + timedelta(days=day)).date()}: {sizes}", flush=True)
    _report(month, rows)
    return 0


def _report(month: Month, rows: str) -> None:
    days, gone = month.same_days()
    print(f"kept by both: {', '.join(days)}")
    print(f"given up by pgBackRest: {', '.join(gone) or 'none'}")
    (ours, ours_all), (theirs, theirs_all) = (_sizes(one) for one in month.field)
    print(f"backups: pgkeep {ours / 1e6:.0f} MB, pgBackRest {theirs / 1e6:.0f} MB: {ours / theirs:.2f}")
    print(
        f"with WAL: pgkeep {ours_all / 1e6:.0f} MB, pgBackRest {theirs_all / 1e6:.0f} MB: {ours_all / theirs_all:.2f}"
    )
    month.site.run(*month.pgkeep.command("verify"))
    target = month.site.folder("restored") / "pgdata"
    month.site.run(*month.pgkeep.command("restore", str(target), "--latest"))
    with running(month.site, target, "archive_mode=off") as server:
        if digest(server) != rows:
            raise RaceError("the newest backup restored other rows")
    print("pgkeep verified everything, and the newest backup restored every row")


if __name__ == "__main__":
    sys.exit(main())
