"""What the machine allows: the same files compressed by zstd alone, the disk read and written in order.

Each is a command of its own (benchmarks/bare.py), so that its cost is taken like a contender's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Cost
from benchmarks.race import Course, settle
from benchmarks.server import Site


@dataclass(frozen=True, slots=True)
class Bound:
    """Bytes taken in and left over by one piece of bare work, and what it cost."""

    work: str
    cost: Cost
    read: int
    written: int

    @property
    def rate(self) -> float:
        """Bytes a second, of the larger side."""
        return max(self.read, self.written) / self.cost.wall


def bounds(course: Course) -> tuple[Bound, ...]:
    """Each piece of work once per pair, after a warm-up; the disk is written first, then read past the page cache."""
    site = course.site
    found = []
    data, disk = Path(course.source.data), site.folder("disk")
    for number in range(course.pairs + 1):
        for work, folder in (("zstd-2", data), ("zstd-3", data), ("write", disk), ("read", disk)):
            settle(folder)
            bound = _bound(site, work, folder)
            course.say(f"  bare {work}: {bound.cost.wall:.2f} s wall, {bound.rate / 1e6:.0f} MB/s")
            if number:
                found.append(bound)
    (disk / "bytes").unlink()
    return tuple(found)


def _bound(site: Site, work: str, folder: Path) -> Bound:
    # As the caller, not as the account: the interpreter may be out of the account's reach.
    bare = Site(Path(__file__).parents[1], site.programs, account=None)
    cost = bare.race((sys.executable, "-m", "benchmarks.bare", work, str(folder)))
    read, written = (int(word) for word in cost.lines[-1].text.split())
    return Bound(work, cost, read, written)
