"""What the machine allows: the same files compressed by zstd alone, the disk read and written in order.

Each is a command of its own (benchmarks/bare.py), so that its cost is taken like a contender's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Cost
from benchmarks.race import Course, settle_disk
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
    """Each piece of work once per pair; the disk's file is written first, then read past the page cache."""
    site = course.site
    found = []
    disk = site.folder("disk")
    for _ in range(course.pairs):
        for work, folder in (("compress", Path(course.source.data)), ("write", disk), ("read", disk)):
            settle_disk()
            found.append(_bound(site, work, folder))
            course.say(f"  bare {work}: {found[-1].cost.wall:.2f} s wall, {found[-1].rate / 1e6:.0f} MB/s")
    (disk / "bytes").unlink()
    return tuple(found)


def _bound(site: Site, work: str, folder: Path) -> Bound:
    # As the caller, not as the account: the interpreter may be out of the account's reach.
    bare = Site(Path(__file__).parents[1], site.programs, account=None)
    cost = bare.race((sys.executable, "-m", "benchmarks.bare", work, str(folder)))
    read, written = (int(word) for word in cost.lines[-1].text.split())
    return Bound(work, cost, read, written)
