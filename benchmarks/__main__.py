"""`python -m benchmarks`: make the data set, race, print a table, write JSON.

Exit status: 0 when every tool did its work, 1 when one failed or restored something else, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import bounds, report
from benchmarks.archiving import drain_race, push_again_race
from benchmarks.contenders import NAMES, contenders
from benchmarks.data import SCALES, data_set
from benchmarks.delta import delta_race
from benchmarks.dumping import FORMATS, dump_race
from benchmarks.incremental import incremental_races
from benchmarks.loading import load_race
from benchmarks.race import Course, Result, backup_race, clusters, restore_race
from benchmarks.recovery import recovery_race
from benchmarks.server import RaceError, Site, find_programs

RACES = ("backup", "restore", "delta", "incremental", "drain", "push-again", "recovery", *FORMATS, "load", "bounds")


def main() -> int:
    options = _parser().parse_args()
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 150)
    try:
        _run(options, console)
    except RaceError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Races pgkeep against its peers on a real cluster; read docs/performance.md first.",
    )
    races = f"{', '.join(RACES)}, or data to make only the data set (default: all)"
    work = "folder for data, repositories and results, about 25 GB (default: %(default)s)"
    scale = "full: about 2.7 GB; large: about 10 GB; small: a smoke run that proves nothing (default: full)"
    who = f"comma-separated, the reference first, of {', '.join(NAMES)} (default: those that are found)"
    postgres = "PostgreSQL's bin folder (default: version 17 from where the tests get it)"
    account = "account for servers and tools when started as root (default: %(default)s)"
    parser.add_argument("races", nargs="*", metavar="RACE", type=_race, help=races)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pgkeep-bench"), help=work)
    parser.add_argument("--scale", choices=sorted(SCALES), default="full", help=scale)
    parser.add_argument("--pairs", type=_positive, default=5, help="timed rounds after the warm-up (default: 5)")
    parser.add_argument("--contenders", type=_contenders, help=who)
    parser.add_argument("--pgkeep", default=shutil.which("pgkeep"), help="program (default: from PATH)")
    parser.add_argument("--pgbackrest", default=shutil.which("pgbackrest"), help="program (default: from PATH)")
    parser.add_argument("--postgres", type=Path, help=postgres)
    parser.add_argument("--account", default="postgres", help=account)
    parser.add_argument("--json", type=Path, help="results file (default: results.json in the work folder)")
    return parser


def _race(word: str) -> str:
    if word not in (*RACES, "data"):
        raise argparse.ArgumentTypeError(f"no such race: {word}; there are {', '.join(RACES)} and data")
    return word


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"not a number of pairs: {word}")
    return int(word)


def _contenders(words: str) -> list[str]:
    names = words.split(",")
    if unknown := sorted(set(names) - set(NAMES)):
        raise argparse.ArgumentTypeError(f"no contender: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


def _run(options: argparse.Namespace, console: Console) -> None:
    races = options.races or list(RACES)
    options.work.mkdir(parents=True, exist_ok=True)
    account = options.account if os.geteuid() == 0 else None
    _compile_pgkeep()
    site = Site(options.work.resolve(), find_programs(options.postgres), account)
    field = contenders(site, _names(options, console), options.pgkeep, options.pgbackrest)
    source = data_set(site, SCALES[options.scale])
    console.print(f"data set: {source.size / 1e6:.0f} MB, PostgreSQL {source.postgres}", highlight=False)
    for one in field:
        console.print(f"{one.name} {one.version}: {one.tuning}", highlight=False)
    course = Course(site, source, field, options.pairs, console.out)
    results = []
    for result in _races(course, races):  # shown as they come: a later race may fail
        report.show(result, console)
        results.append(result)
    found = bounds.bounds(course) if "bounds" in races else ()
    if found:
        report.show_bounds(found, console)
    if results or found:
        path = options.json or site.work / "results.json"
        report.write_json(path, course, results, found)
        console.print(f"every run: {path}", highlight=False)


def _compile_pgkeep() -> None:
    """pip compiles what it installs; an editable checkout, which the account may not write to, is compiled here."""
    if (found := importlib.util.find_spec("pgkeep")) is not None and found.origin is not None:
        compileall.compile_dir(Path(found.origin).parent, quiet=2)


def _names(options: argparse.Namespace, console: Console) -> list[str]:
    if options.contenders:
        return list(options.contenders)
    there = {"pgbackrest": options.pgbackrest, "pgkeep": options.pgkeep, "pg_basebackup": True}
    for name in (name for name, program in there.items() if not program):
        console.print(f"{name}: program not found, so it does not race")
    return [name for name, program in there.items() if program]


def _races(course: Course, races: list[str]) -> Iterator[Result]:
    """A race of restores without one of backups still needs one backup of each: the warm-up's."""
    if "drain" in races:
        yield drain_race(course)
    if "push-again" in races:
        yield push_again_race(course)
    if "recovery" in races:
        yield recovery_race(course)
    if "incremental" in races:
        yield from incremental_races(course)
    for name, form in FORMATS.items():
        if name in races:
            yield dump_race(course, form)
    if "load" in races:
        yield load_race(course)
    if not {"backup", "restore", "delta"} & set(races):
        return
    with clusters(course) as servers:
        if "backup" in races:
            yield backup_race(course, servers)
        else:
            backup_race(replace(course, pairs=0), servers)
        if "restore" in races:
            yield restore_race(course)
        if "delta" in races:
            yield delta_race(course)


if __name__ == "__main__":
    sys.exit(main())
