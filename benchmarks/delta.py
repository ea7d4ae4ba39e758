"""The race over a data directory that is there: one page in a hundred is wrong, and the rest need not be written.

Every contender restores once, outside the clock.  Before each run that directory is damaged anew (seeded), and read, so
that every tool reads it from memory.  A run that restores into an empty directory follows each, for the ratio to it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import Contender, Phases
from benchmarks.data import SEED
from benchmarks.race import Course, Result, Run, prove, race, settle

SHARE = 0.01
"""Of the pages of relations, those that are overwritten."""
_PAGE = 8192


@dataclass(frozen=True, slots=True)
class _Entry:
    """A contender, over what is there or into an empty directory."""

    contender: Contender
    is_whole: bool

    @property
    def name(self) -> str:
        return f"{self.contender.name} whole" if self.is_whole else self.contender.name


def delta_race(course: Course) -> Result:
    """The newest backup over its own damaged restore; then each result is started and compared."""
    site = course.site
    able = [contender for contender in course.field if contender.delta(Path("/"))]
    homes = {is_whole: site.folder("delta", "whole" if is_whole else "damaged") for is_whole in (False, True)}
    for contender in able:
        _empty(course, homes[False] / contender.name)
        site.run(*contender.restore(homes[False] / contender.name))
    rounds = iter(range(len(able) * (course.pairs + 1)))

    def once(entry: _Entry) -> Run:
        target = homes[entry.is_whole] / entry.contender.name
        if entry.is_whole:
            _empty(course, target)
        else:
            damage(target, next(rounds))
            settle(target)
        settle(entry.contender.repository)
        command = entry.contender.restore(target) if entry.is_whole else entry.contender.delta(target)
        return Run(entry.name, site.race(command), Phases(), 0.0, 0)

    entries = [_Entry(contender, is_whole) for contender in able for is_whole in (False, True)]
    result = race(course, "delta", entries, once)
    for contender in able:
        prove(site, homes[False] / contender.name, course.source)
        course.say(f"  {contender.name}: the mended server holds the same rows")
    shutil.rmtree(site.folder("delta"))
    return result


def _empty(course: Course, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    course.site.own(target)


def damage(target: Path, seed: int) -> int:
    """Overwrite SHARE of the pages of relations below base with noise; how many."""
    draw = random.Random(SEED + seed)
    done = 0
    for path, pages in _relations(target):
        with path.open("r+b", buffering=0) as file:
            for page in draw.sample(range(pages), round(pages * SHARE + draw.random() / 2)):
                file.seek(page * _PAGE)
                file.write(draw.randbytes(_PAGE))
                done += 1
    return done


def _relations(target: Path) -> Iterator[tuple[Path, int]]:
    """Files of relations with two pages and more, and their pages."""
    for path in sorted(target.glob("base/*/*")):
        pages, rest = divmod(path.stat().st_size, _PAGE)
        if path.name[0].isdigit() and not rest and pages > 1:
            yield path, pages
