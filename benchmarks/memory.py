"""`python -m benchmarks.memory`: what a backup's memory does as the files of a cluster become many.

Each cluster gets empty relation files (one page of zeros, sparse) that no catalog names, and rows in pg_class that no
file has: a backup reads, packs and lists both as it would real ones, and making a million real tables would take hours.
The figure that matters is the slope: bytes of peak memory (PSS of the whole process tree) for one more file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from itertools import pairwise
from pathlib import Path

from benchmarks.contenders import PgKeep
from benchmarks.measure import Cost
from benchmarks.server import RaceError, Server, Site, find_programs, running

PAGE = 8192
_FIRST = 1_000_000
"""OIDs from here on belong to nobody in a new cluster."""
_RELATIONS = """
insert into pg_class
select (jsonb_populate_record(c, jsonb_build_object('oid', {first} + n, 'relname', 'orders_of_customer_' || n))).*
  from generate_series(1, {count}) as n, pg_class as c
 where c.oid = 'pg_catalog.pg_stat_activity'::regclass
"""
"""Copies of a view's row: relations without storage, which nobody opens."""


def main() -> int:
    options = _parser().parse_args()
    account = options.account if os.geteuid() == 0 else None
    site = Site(options.work.resolve(), find_programs(options.postgres), account)
    try:
        costs = {count: _measure(site, options.pgkeep, count, options.relations) for count in sorted(options.files)}
    except RaceError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    for count, cost in costs.items():
        print(f"{count:>9} files: peak {cost.peak_pss / 1e6:6.1f} MB, {cost.wall:5.1f} s, {cost.cpu:5.1f} CPU s")
    for (fewer, before), (more, after) in pairwise(costs.items()):
        slope = (after.peak_pss - before.peak_pss) / (more - fewer)
        print(f"from {fewer} to {more}: {slope:.0f} bytes a file")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0])
    relations = "relations for each file, 0 to 1 (default: %(default)s)"
    parser.add_argument("files", nargs="*", type=int, default=[10_000, 200_000, 400_000], help="numbers of files")
    parser.add_argument("--relations", type=float, default=0.5, help=relations)
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/pgkeep-memory"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--pgkeep", default=shutil.which("pgkeep"), help="program (default: from PATH)")
    parser.add_argument("--postgres", type=Path, help="PostgreSQL's bin folder")
    parser.add_argument("--account", default="postgres", help="account when started as root (default: %(default)s)")
    return parser


def _measure(site: Site, program: str, files: int, relations: float) -> Cost:
    """A backup of a new cluster with that many files."""
    home = site.folder(f"files-{files}")
    data = home / "pgdata"
    shutil.rmtree(data, ignore_errors=True)
    Server(site, data, data).initdb()
    pgkeep = PgKeep(site, program)
    archive = (f"archive_command='{pgkeep.archive_command}'", "archive_mode=on")
    Server(site, data, data).configure("\n".join(archive) + "\n")
    try:
        with running(site, data, "fsync=off", "allow_system_table_mods=on") as server:
            _fill(server, files, int(files * relations))
            pgkeep.prepare(server)
            return site.race(pgkeep.backup(server))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _fill(server: Server, files: int, relations: int) -> None:
    database = server.sql("select oid from pg_database where datname = 'postgres'")
    for number in range(files):
        path = server.data / "base" / database / str(_FIRST + number)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, PAGE)
        finally:
            os.close(descriptor)
        server.site.own(path)
    server.sql(_RELATIONS.format(first=_FIRST, count=relations))
    server.sql("checkpoint")


if __name__ == "__main__":
    sys.exit(main())
