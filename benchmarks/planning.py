"""`python -m benchmarks.planning`: how long `restore --time --dry-run` takes with a thousand archived segments.

Three archives, made once and kept: *quiet* (a small transaction, then pg_switch_wal), *bulk* (full segments of rows,
a commit each MB) and *busy* (full segments of pgbench's transactions).  Each is planned cold (no index in the
repository) and with the index that the cold run left, from process start to exit.  Other tools name no commit before
they restore, so there is nobody to race.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.race import settle
from benchmarks.server import RaceError, Server, Site, find_programs, running

KINDS = ("quiet", "bulk", "busy")
_BULK = """
insert into t select n, (select string_agg(md5(random()::text), '') from generate_series(1, 20) where n > 0)
from generate_series(1, 1200) as n
"""
_PATIENCE = 3600.0
_BACKLOG = 64
"""Segments that may wait for the archiver: what is written on pg_wal's disk meanwhile."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A repository with one backup and then `segments` segments of WAL; `middle` and `late` are moments in them."""

    home: Path
    segments: int
    middle: str
    late: str

    @property
    def config(self) -> Path:
        return self.home / "pgkeep.toml"


def main() -> int:
    options = _parser().parse_args()
    account = options.account if os.geteuid() == 0 else None
    site = Site(options.work.resolve(), find_programs(options.postgres), account)
    try:
        for kind in options.kinds:
            archive = _archive(site, options.pgkeep, kind, options.segments)
            if options.runs:
                _race(site, options.pgkeep, archive, kind, options.runs)
    except RaceError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", default=["quiet", "bulk"], help=", ".join(KINDS))
    parser.add_argument("--segments", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pgkeep-planning"), help="folder (%(default)s)")
    parser.add_argument("--pgkeep", default=shutil.which("pgkeep"), help="program (default: from PATH)")
    parser.add_argument("--postgres", type=Path, help="PostgreSQL's bin folder")
    parser.add_argument("--account", default="postgres", help="account when started as root (default: %(default)s)")
    return parser


def _archive(site: Site, pgkeep: str, kind: str, segments: int) -> Archive:
    home = site.folder(f"{kind}-{segments}")
    record = home / "archive.json"
    if not record.exists():
        shutil.rmtree(home)
        site.folder(home.name)
        record.write_text(json.dumps(_build(site, pgkeep, home, kind, segments)))
    return Archive(home, segments, **json.loads(record.read_text()))


def _build(site: Site, pgkeep: str, home: Path, kind: str, segments: int) -> dict[str, str]:
    data, config = home / "pgdata", home / "pgkeep.toml"
    Server(site, data, data).initdb()
    command = f"{pgkeep} --config {config} wal push %p"
    with running(site, data, "archive_mode=on", "fsync=off", f"archive_command='{command}'") as server:
        config.write_text(
            f'[repository]\nurl = "{home}/repository"\n\n[cluster.main]\nconnection = "{server.conninfo}"\n'
        )
        site.run(pgkeep, "--config", str(config), "init")
        server.sql("create table t (n int, filler text)")
        site.run(site.program("pgbench"), "-i", "-q", "-s", "10", server.conninfo)
        site.run(pgkeep, "--config", str(config), "backup")
        first = _segment(server)
        moments = {}
        while (written := _segment(server) - first) < segments:
            moments[written] = server.sql("select clock_timestamp()")
            _write(site, server, kind)
            _await(server, _BACKLOG)
        server.sql("select pg_switch_wal()")
        _await(server, 0)
    shutil.rmtree(data)
    near = {name: min(moments, key=lambda at: abs(at - segments * share // 100)) for name, share in _SHARES.items()}
    return {name: moments[at] for name, at in near.items()}


_SHARES = {"middle": 50, "late": 99}


def _write(site: Site, server: Server, kind: str) -> None:
    if kind == "quiet":
        server.sql("insert into t values (1, 'one'); select pg_switch_wal()")
    elif kind == "bulk":
        server.sql(_BULK)
    else:
        pgbench = (site.program("pgbench"), "-n", "-N", "-c", "4", "-t", "5000")
        site.run(*pgbench, server.conninfo)


def _segment(server: Server) -> int:
    return int(server.sql("select (pg_current_wal_insert_lsn() - '0/0') / 16777216").split(".")[0])


def _await(server: Server, waiting: int) -> None:
    """Until at most `waiting` segments wait for the archiver."""
    deadline = time.monotonic() + _PATIENCE
    while sum(1 for _ in (server.data / "pg_wal" / "archive_status").glob("*.ready")) > waiting:
        if time.monotonic() > deadline:
            raise RaceError(f"WAL is not being archived: see {server.data}.log")
        time.sleep(0.05)


def _race(site: Site, pgkeep: str, archive: Archive, kind: str, runs: int) -> None:
    for when, moment in (("middle", archive.middle), ("late", archive.late)):
        command = (
            pgkeep, "--config", str(archive.config), "restore", str(archive.home / "restored"), "--time", moment,
            "--dry-run", "--json", "--quiet",
        )  # fmt: skip
        cold, warm = [], []
        for _ in range(runs):
            for index in (archive.home / "repository").glob("*/windex"):
                shutil.rmtree(index)
            settle(archive.home / "repository")
            cold.append(site.race(command))
            warm.append(site.race(command))
        for name, costs in (("cold", cold), ("with index", warm)):
            wall, cpu = (statistics.median(getattr(cost, field) for cost in costs) for field in ("wall", "cpu"))
            peak = max(cost.peak_pss for cost in costs) / 1e6
            cost = f"{wall:.2f} s, {cpu:.2f} CPU s, peak {peak:.0f} MB"
            print(f"{kind}, {archive.segments} segments, {when}, {name}: {cost}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
