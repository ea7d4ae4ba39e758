"""`python -m benchmarks.aged`: what restoring the thirtieth nightly backup costs, beside a fresh full one.

pgkeep lives through the month of benchmarks.month by itself, in a folder that is kept.  Then the same server, to which
nothing has happened since, is backed up in full into a second repository.  Both newest backups are restored in turn
into empty directories, from the page cache; at the end every file of both must be the same, but for those that say
which backup it was (_OF_THE_BACKUP).
"""

from __future__ import annotations

import filecmp
import os
import shutil
import statistics
import sys
from datetime import timedelta
from pathlib import Path

from benchmarks.archiving import archive_with
from benchmarks.contenders import PgKeep
from benchmarks.data import tree_size
from benchmarks.measure import Cost
from benchmarks.month import BEGIN, Month, month_of, parser, set_date
from benchmarks.race import await_archiver, rounds, settle
from benchmarks.server import RaceError, running

_OF_THE_BACKUP = frozenset({"backup_label", "global/pg_control", "postgresql.auto.conf", "pgkeep.restore.json"})


def main() -> int:
    options_of = parser("benchmarks.aged", __doc__)
    options_of.add_argument("--pairs", type=int, default=5, help="after a warm-up (default: %(default)s)")
    options = options_of.parse_args()
    month = month_of(options, "aged", None)
    month.live(options.days)
    fresh = _fresh(month, options.days)
    for name in ("LD_PRELOAD", "FAKETIME"):
        os.environ.pop(name, None)
    costs = _race(month, fresh, options.pairs)
    aged, full = costs[month.pgkeep.name], costs[fresh.name]
    ratios = {
        field: [getattr(one, field) / getattr(other, field) for one, other in zip(aged, full, strict=True)]
        for field in ("wall", "cpu")
    }
    for field, found in ratios.items():
        print(f"{field}: {statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f}) of a fresh full one's")
    return 0


def _fresh(month: Month, days: int) -> PgKeep:
    """A second repository, with a full backup of what the last night left."""
    fresh = PgKeep(month.site, month.pgkeep.program, "fresh")
    made = month.site.work / "fresh.made"
    if not made.exists():
        set_date(BEGIN + timedelta(days=days))
        with running(month.site, month.data) as server:
            month.connect(server)
            fresh.prepare(server)
            archive_with(server, f"{month.pgkeep.archive_command} && {fresh.archive_command}")
            month.site.run(*fresh.backup(server))
            await_archiver(server)
        made.touch()
    return fresh


def _race(month: Month, fresh: PgKeep, pairs: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {one.name: [] for one in (month.pgkeep, fresh)}
    home = month.site.folder("restored")
    for number, order in enumerate(rounds((month.pgkeep, fresh), pairs)):
        for one in order:
            target = home / one.name
            shutil.rmtree(target, ignore_errors=True)
            settle(one.repository)
            cost = month.site.race(one.command("restore", str(target), "--latest"))
            label = f"pair {number}" if number else "warm-up"
            spent = f"{cost.wall:.2f} s wall, {cost.cpu:.2f} s CPU, {cost.peak_pss / 1e6:.0f} MB"
            print(f"{label}: {one.name} {spent}, {tree_size(target) / 1e6:.0f} MB written", flush=True)
            if number:
                costs[one.name].append(cost)
    _same(home / month.pgkeep.name, home / fresh.name)
    shutil.rmtree(home)
    return costs


def _same(one: Path, other: Path) -> None:
    """RaceError unless both hold the same files."""
    ours, theirs = ({path.relative_to(root) for path in root.rglob("*")} for root in (one, other))
    if ours != theirs:
        raise RaceError(f"only one of the restored directories has {sorted(map(str, ours ^ theirs))[:5]}")
    files = [path for path in ours if (one / path).is_file() and str(path) not in _OF_THE_BACKUP]
    for path in files:
        if not filecmp.cmp(one / path, other / path, shallow=False):
            raise RaceError(f"{path} was restored otherwise from {other}")
    print(f"{len(files)} restored files are the same in both")


if __name__ == "__main__":
    sys.exit(main())
