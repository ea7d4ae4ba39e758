"""What must happen to the names that are there so that they become a backup's (pure).

1. Wanted paths and found ones are two ascending streams, merged: a million of them cost no memory.
2. Of the right kind stays and is dressed, or cut; anything else goes, and so does what nobody wants.  A link is of
   the right kind only where the backup has a tablespace's link that leads to the same place.
3. A file with a second hard link goes too: writing to it would write to the other name's file.
4. Contents are not judged here; a file that stays is compared afterwards (`deltaworker`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pgkeep.format.manifest import EntryType
from pgkeep.restore.mark import UNFINISHED
from pgkeep.restore.tree import Found, Owner, Tree

KEPT: Final = frozenset({UNFINISHED, b"lost+found"})
"""At the top of a root: our own mark, and what belongs to the file system."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A path that must be there; `root` is the number of its tree, `size` in bytes, `target` where a link leads."""

    root: int
    path: bytes
    type: EntryType
    mode: int
    size: int = 0
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Remove:
    """This path goes, with all that is in it."""

    root: int
    found: Found


@dataclass(frozen=True, slots=True)
class Make:
    """A directory or link that is missing, or a file that is: files are made when they are written."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Keep:
    """A path of the right kind: `dress` when its mode or owner is wrong, `cut` when it is too long."""

    wanted: Wanted
    found: Found
    dress: bool
    cut: bool


Step = Remove | Make | Keep


def reconcile(
    wanted: Iterable[Wanted], present: Sequence[Iterator[Found]], owner: Owner | None = None
) -> Iterator[Step]:
    """The steps, in ascending order of a root's paths; `present` are the roots' paths (`walk`), by number.

    Whoever removes a directory before asking for the next step does not see its contents.
    """
    sides = [_Side(number, found) for number, found in enumerate(present)]
    for each in wanted:
        side = sides[each.root]
        yield from side.before(each.path)
        found = side.take(each.path)
        if found is None:
            yield Make(each)
        elif _fits(each, found):
            too_long = each.type is EntryType.FILE and found.status.st_size > each.size
            undressed = each.type is not EntryType.LINKED_TABLESPACE and not found.is_dressed(each.mode, owner)
            yield Keep(each, found, undressed, too_long)
        else:
            yield Remove(each.root, found)
            yield Make(each)
    for side in sides:
        yield from side.before(None)


class _Side:
    """What is left of one root's paths."""

    def __init__(self, root: int, found: Iterator[Found]) -> None:
        self._root = root
        self._found = found
        self._next: Found | None = None
        self._started = False

    def before(self, path: bytes | None) -> Iterator[Remove]:
        """Removals of all that comes before `path` (None: of all)."""
        while (found := self._peek()) is not None and (path is None or found.path < path):
            # Taken before it is handed out: the caller removes it, and only then may the next one be looked for.
            self._started = False
            if found.path not in KEPT:
                yield Remove(self._root, found)

    def take(self, path: bytes) -> Found | None:
        found = self._peek()
        if found is None or found.path != path:
            return None
        self._started = False
        return found

    def _peek(self) -> Found | None:
        if not self._started:
            self._next, self._started = next(self._found, None), True
        return self._next


def _fits(wanted: Wanted, found: Found) -> bool:
    match wanted.type:
        case EntryType.FILE:
            return found.is_file and found.status.st_nlink == 1
        case EntryType.LINKED_TABLESPACE:
            return found.is_link and found.target == wanted.target
        case _:
            return found.is_directory


def walk(tree: Tree, only: bytes | None = None, at: bytes = b"") -> Iterator[Found]:
    """Everything in a tree, ascending by path, links not followed; at the top only the name `only`, if one is given.

    A directory is listed when its turn comes, after it was handed out: it may be dressed or removed before.
    """
    order: list[tuple[bytes, Found]] = []
    for found in tree.list(at):
        if only is None or found.path == only:
            order.append((found.path, found))
            if found.is_directory and found.path not in KEPT:
                # Its contents sort as "name/...": "a.b" comes between "a" and "a/".
                order.append((found.path + b"/", found))
    for key, found in sorted(order, key=lambda pair: pair[0]):
        if key == found.path:
            yield found
        else:
            yield from walk(tree, None, found.path)
