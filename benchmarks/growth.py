"""`python -m benchmarks.growth`: what an incremental backup costs as the database grows, and as more of it changes.

One cluster after the other, of pgbench's tables at SCALES (15 MB each).  On each, for every number of CHANGES: so many
rows of pgbench_accounts, spread evenly, are updated in place (the tables are filled to 90 %, so that nearly each
changes one page), a checkpoint, then an incremental backup from the page cache; by WAL summaries and by LSN in turn.
Wall seconds, CPU seconds and stored bytes are medians; changed pages are what the backup itself counted.  A full
backup of each size stands beside them.

Every run is in growth.json in the work folder; `--draw FILE` draws its pictures into docs/images and runs nothing.
They show CPU seconds, which say about the same on a machine that has other work to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.archiving import archive_with
from benchmarks.bare import copied_files
from benchmarks.contenders import PgKeep
from benchmarks.drawing import Line, Picture, draw
from benchmarks.race import await_archiver, settle
from benchmarks.server import RaceError, Server, Site, find_programs, running

SCALES = (20, 67, 200, 670)
CHANGES = (1000, 4000, 16000, 64000)
MODES = ("summaries", "lsn")
_ROWS = 100_000
"""Of pgbench_accounts, a unit of scale."""
_IMAGES = Path("docs/images")


@dataclass(frozen=True, slots=True)
class Cost:
    """One backup: bytes of the cluster's files, pages that had changed, seconds, and bytes that were stored for it."""

    mode: str
    scale: int
    rows: int
    size: int
    pages: int
    wall: float
    cpu: float
    stored: int


def main() -> int:
    options = _parser().parse_args()
    try:
        if options.draw is None:
            path = _measure(options)
            print(f"every run: {path}")
        else:
            for name, picture in pictures(json.loads(options.draw.read_text())).items():
                (_IMAGES / name).write_text(draw(picture))
                print(_IMAGES / name)
    except RaceError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scales", type=_numbers, default=SCALES, help="of pgbench, comma-separated (%(default)s)")
    parser.add_argument("--changes", type=_numbers, default=CHANGES, help="rows, comma-separated (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pgkeep-growth"), help="folder (%(default)s)")
    parser.add_argument("--draw", type=Path, help="an earlier growth.json: draw it, and run nothing")
    parser.add_argument("--pgkeep", default=shutil.which("pgkeep"), help="program (default: from PATH)")
    parser.add_argument("--postgres", type=Path, help="PostgreSQL's bin folder")
    parser.add_argument("--account", default="postgres", help="account when started as root (default: %(default)s)")
    return parser


def _numbers(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split(","))


def _measure(options: argparse.Namespace) -> Path:
    """Runs that are there already stay: one size after the other may be run by itself."""
    account = options.account if os.geteuid() == 0 else None
    site = Site(options.work.resolve(), find_programs(options.postgres), account)
    site.folder(".")
    path = site.work / "growth.json"
    known = json.loads(path.read_text()) if path.exists() else []
    for scale in options.scales:
        known = [row for row in known if row["scale"] != scale]
        for cost in _of_size(site, options, scale):
            known.append(asdict(cost))
            path.write_text(json.dumps(known, indent=1))
    return path


def _of_size(site: Site, options: argparse.Namespace, scale: int) -> Iterator[Cost]:
    keep = PgKeep(site, options.pgkeep)
    data = site.work / "pgdata"
    shutil.rmtree(data, ignore_errors=True)
    Server(site, data, data).initdb()
    settings = ("archive_mode=on", "summarize_wal=on", "fsync=off", "max_wal_size=16GB")
    with running(site, data, "fsync=off", "wal_level=minimal", "max_wal_senders=0", "max_wal_size=256MB") as server:
        pgbench = (site.program("pgbench"), "-i", "-q", "-F", "90", "-s", str(scale), server.conninfo)
        site.run(*pgbench)
        server.sql("vacuum (freeze, analyze)")
    with running(site, data, *settings) as server:
        keep.prepare(server)
        archive_with(server, keep.archive_command)
        for number in range(options.rounds):
            yield _backup(keep, server, scale, "full", 0)
            if number < options.rounds - 1:
                keep.prepare(server)
        for number in range(options.rounds):
            for rows in options.changes:
                for mode in MODES:
                    _change(server, scale, rows, number)
                    yield _backup(keep, server, scale, mode, rows)
    shutil.rmtree(data)
    shutil.rmtree(keep.repository.parent)


def _change(server: Server, scale: int, rows: int, number: int) -> None:
    """`rows` rows, as far from each other as they can be."""
    step = scale * _ROWS // rows
    at = number * 7 % step
    server.sql(f"update pgbench_accounts set abalance = abalance + 1 where aid % {step} = {at}")


def _backup(keep: PgKeep, server: Server, scale: int, mode: str, rows: int) -> Cost:
    server.sql("checkpoint")
    await_archiver(server)
    settle(server.data)
    cost = server.site.race(keep.command("--json", "backup", "--mode", mode, "--checkpoint", "fast"))
    info: dict[str, Any] = json.loads(cost.lines[-1].text)["result"]["info"]
    if info["method"] != mode:
        raise RaceError(f"asked for {mode}, found {info['method']}: {info['method_reason']}")
    size = sum(length for _, length in copied_files(server.data))
    found = Cost(mode, scale, rows, size, info["pages_changed"], cost.wall, cost.cpu, info["stored_bytes"])
    print(
        f"{size / 1e9:.2f} GB, {mode}, {found.pages} pages: {found.wall:.2f} s wall, {found.cpu:.2f} CPU s, "
        f"{found.stored / 1e6:.1f} MB", flush=True,
    )  # fmt: skip
    return found


def pictures(rows: list[dict[str, Any]]) -> dict[str, Picture]:
    """By the names of their files."""
    changes = sorted({row["rows"] for row in rows if row["rows"]})
    middle, large = changes[len(changes) // 2], max(row["scale"] for row in rows)
    # What else changes pages (a scan prunes them) is in what the backup counted: so runs are chosen by that.
    near = [row for row in rows if row["mode"] == "full" or middle / 1.5 < row["pages"] < middle * 1.5]
    whole = [row for row in rows if row["scale"] == large]

    def by_size(y: str) -> list[Line]:
        return [_line(mode, near, "scale", "size", y, 1) for mode in _NAMES]

    def by_pages(y: str, unit: float) -> list[Line]:
        return [_line(mode, whole, "pages", "pages", y, unit) for mode in ("lsn", "summaries")]

    size = f"{max(row['size'] for row in rows) / 1e9:.1f} GB"
    about = f"about {middle:,} pages changed"
    return {
        "cpu-by-size.svg": Picture(f"CPU time, {about}", "bytes of the database", "CPU seconds", by_size("cpu")),
        "cpu-by-pages.svg": Picture(f"CPU time on {size}", "changed pages", "CPU seconds", by_pages("cpu", 1)),
        "bytes-by-pages.svg": Picture(f"Stored on {size}", "changed pages", "MB", by_pages("stored", 1e6)),
    }


_COLOURS = {"full": "#6b7280", "lsn": "#c2410c", "summaries": "#1d4ed8"}
_NAMES = {"full": "full backup", "lsn": "incremental by LSN", "summaries": "incremental by WAL summaries"}


def _line(mode: str, rows: list[dict[str, Any]], group: str, x: str, y: str, unit: float) -> Line:
    """Medians of each group."""
    mine = [row for row in rows if row["mode"] == mode]
    points = []
    for key in sorted({row[group] for row in mine}):
        of_group = [row for row in mine if row[group] == key]
        place, value = (statistics.median(row[name] for row in of_group) for name in (x, y))
        points.append((place, value / unit))
    return Line(_NAMES[mode], points, _COLOURS[mode])


if __name__ == "__main__":
    sys.exit(main())
