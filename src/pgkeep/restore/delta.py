"""Delta: bring what is there to a backup's state, in place, writing only what differs.

In this order, seen from a crash (the present's WAL was saved before: app.restore):

1. the `unfinished` mark; pg_control goes, durably: from here on no server starts, and the next delta goes on from
   whatever is there;
2. pg_wal and pg_replslot are emptied: neither WAL of another branch nor a slot of the past may meet the new state;
3. everything that the backup does not hold goes, in tablespaces too: a stale `12345.1` would lengthen a relation;
   files that are too long are cut;
4. pages that differ are written (`deltaworker`); everything is made durable, also what was right already: an earlier
   attempt may have written it and died before its fsync;
5. backup_label, pg_control, and the mark goes (`materialise`).

In a tablespace only the server's own directory PG_<major>_<catalog version> is looked at: others may share the place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pgkeep.events import Phase, Progress
from pgkeep.format.manifest import Entry, EntryType
from pgkeep.pg.controlfile import CONTROL_FILE
from pgkeep.repo.backups import Manifest
from pgkeep.restore.deltaworker import Compared, CompareRows, DeltaWorker
from pgkeep.restore.layout import Rows, TargetFile, part_of, units_of
from pgkeep.restore.mark import UNFINISHED, Mark
from pgkeep.restore.materialise import Destination, Job, Overlay, is_written_apart, tablespace_target
from pgkeep.restore.reconcile import KEPT, Keep, Make, Remove, Step, Wanted, reconcile, walk
from pgkeep.restore.tablespaces import root_of
from pgkeep.restore.tree import Found, Tree
from pgkeep.restore.worker import RestoreWorker

TASK_BYTES: Final = 32 << 20
"""Bytes of files that one task compares, about."""
_EMPTIED: Final = (b"pg_wal", b"pg_replslot")
_CONTROL: Final = CONTROL_FILE.encode()


@dataclass(frozen=True, slots=True)
class Differences:
    """What names and lengths alone tell beforehand: files and bytes of them, the first few paths of each kind.

    `removed` the backup does not hold (pg_wal aside), `missing` are not there, `compared` are, and are read.
    """

    removed: int
    removed_bytes: int
    removed_paths: tuple[str, ...]
    missing: int
    missing_bytes: int
    compared: int
    compared_bytes: int


def wanted_of(
    manifest: Manifest, destination: Destination, overlays: Mapping[bytes, Overlay]
) -> Iterator[tuple[Entry, Wanted]]:
    """The backup's paths, as they must be below the destination's roots; without what is written at the end."""
    roots = {oid: number for number, oid in enumerate(destination.tablespaces, start=1)}
    for entry in manifest.entries():
        if entry.type is EntryType.FILE and is_written_apart(entry, overlays):
            continue
        link = entry.type is EntryType.LINKED_TABLESPACE
        target = os.fsencode(tablespace_target(manifest, destination, entry)) if link else b""
        root, path = root_of(entry.path, roots)
        yield entry, Wanted(root, path, entry.type, entry.mode & 0o777, entry.size, target)


def present_in(trees: Sequence[Tree | None], manifest: Manifest) -> list[Iterator[Found]]:
    """What is below each root (None: nothing): all of the data directory, and of a tablespace the one directory
    TABLESPACE_VERSION_DIRECTORY (common/relpath.h)."""
    versioned = b"PG_%d_%d" % (manifest.info.server_version // 10000, manifest.inner.server.catalog_version)
    return [
        iter(()) if tree is None else walk(tree, versioned if number else None) for number, tree in enumerate(trees)
    ]


def look(manifest: Manifest, destination: Destination, overlays: Iterable[Overlay], shown: int = 3) -> Differences:
    """Compare names and lengths; writes nothing.  Roots that are not there are empty."""
    trees = [Tree(root) if os.path.isdir(root) else None for root in destination.roots()]
    try:
        named = {overlay.path: overlay for overlay in overlays}
        wanted = (each for _, each in wanted_of(manifest, destination, named))
        return count(reconcile(wanted, present_in(trees, manifest)), shown)
    finally:
        for tree in trees:
            if tree is not None:
                tree.close()


def count(steps: Iterable[Step], shown: int) -> Differences:
    """What the steps of a walk that removes nothing add up to (pure)."""
    removed = removed_bytes = missing = missing_bytes = compared = compared_bytes = 0
    paths: list[str] = []
    for step in steps:
        match step:
            case Remove() if not step.found.path.startswith((b"pg_wal/", _CONTROL)) and not step.found.is_directory:
                removed, removed_bytes = removed + 1, removed_bytes + step.found.status.st_size
                if len(paths) < shown:
                    paths.append(os.fsdecode(step.found.path))
            case Make() if step.wanted.type is EntryType.FILE:
                missing, missing_bytes = missing + 1, missing_bytes + step.wanted.size
            case Keep() if step.wanted.type is EntryType.FILE:
                compared, compared_bytes = compared + 1, compared_bytes + step.wanted.size
    return Differences(removed, removed_bytes, tuple(paths), missing, missing_bytes, compared, compared_bytes)


class DeltaJob(Job):
    """See the module's docstring.  `materialise(..., kind=DeltaJob)`."""

    WORKER: ClassVar[type[RestoreWorker]] = DeltaWorker

    def begin(self, mark: Mark) -> None:
        """Steps 1 and 2: after them there is no way back to the old state."""
        tree = self._trees[0]
        found = tree.find(UNFINISHED)
        if found is not None and not (found.is_file and found.status.st_nlink == 1):
            tree.clear(found)
        super().begin(mark)
        remove_control(tree)
        for directory in _EMPTIED:
            if is_open_directory(tree, directory):
                for each in tree.list(directory):
                    tree.clear(each)

    def _prepare(self) -> None:
        """Step 3, and where the pages lie of all files that remain."""
        present = present_in(self._trees, self._manifest)
        for step in reconcile(self._entries(), present, self._destination.owner):
            match step:
                case Remove():
                    self._trees[step.root].clear(step.found)
                case Make():
                    self._make(step.wanted)
                case Keep():
                    self._keep(step)

    def _entries(self) -> Iterator[Wanted]:
        for entry, wanted in wanted_of(self._manifest, self._destination, self._overlays):
            if entry.type is EntryType.FILE:
                self._file(entry, TargetFile(wanted.root, wanted.path, wanted.size, wanted.mode))
            elif entry.type is not EntryType.LINKED_TABLESPACE:
                self.found.directories.append((wanted.root, wanted.path))
            yield wanted

    def _make(self, wanted: Wanted) -> None:
        tree = self._trees[wanted.root]
        if wanted.type is EntryType.LINKED_TABLESPACE:
            tree.make_link(wanted.path, os.fsdecode(wanted.target))
        elif wanted.type is not EntryType.FILE:
            tree.make_directory(wanted.path, wanted.mode)

    def _keep(self, step: Keep) -> None:
        tree = self._trees[step.wanted.root]
        if step.dress:
            tree.redress(step.wanted.path, step.wanted.mode)
        if step.cut:
            tree.cut(step.wanted.path, step.wanted.size)

    def _placed(self, rows: Rows) -> None:
        """A file with holes is made anew: a hole is zeros, and there may be something else."""
        number = int(rows["file"][0])
        file = self.found.files[number]
        units = units_of(file.size, rows["unit"][0], self._manifest.inner.server.block_size, self._manifest.key)
        if int(rows["count"].sum()) < units and (found := self._trees[file.root].find(file.path)) is not None:
            self._trees[file.root].clear(found)
        self._layout.add(rows)

    def _copy(self) -> None:
        self._announce(Phase("compare", "comparing what is there, and writing what differs"))
        examined = 0
        for done in self._crew.run(self._write_tasks()):
            self.written += done.written
            examined += done.examined if isinstance(done, Compared) else 0
            self._announce(Progress(examined, self.found.bytes, self.written))

    def _pack_tasks(self, pack: int, rows: Rows) -> Iterator[object]:
        for part in parts_of(rows, self._manifest.inner.server.block_size):
            files = {number: self.found.files[number] for number in set(part["file"].tolist())}
            yield CompareRows(pack, part.tobytes(), files)


class ReplaceJob(DeltaJob):
    """As a delta, but nothing of what is there is used: all of it goes first."""

    def begin(self, mark: Mark) -> None:
        super().begin(mark)
        for each in self._trees[0].list(b""):
            if each.path not in KEPT:
                self._trees[0].clear(each)
        for tree, found in list(zip(self._trees, present_in(self._trees, self._manifest), strict=True))[1:]:
            if (versioned := next(found, None)) is not None:
                tree.clear(versioned)


def remove_control(tree: Tree) -> None:
    """pg_control goes, durably; a link or file that stands where its directory should be goes too."""
    directory = tree.find(os.path.dirname(_CONTROL))
    if directory is None:
        return
    if is_open_directory(tree, directory.path):
        found = tree.find(_CONTROL)
        if found is not None and found.is_directory:
            tree.clear(found)
        tree.remove(_CONTROL)
    else:
        tree.clear(directory)
        tree.sync()


def is_open_directory(tree: Tree, path: bytes) -> bool:
    """True for a real directory at the top, which is made accessible if its mode forbids even its owner."""
    found = tree.find(path)
    if found is None or not found.is_directory:
        return False
    if not found.is_dressed(found.status.st_mode | 0o700, None):
        tree.redress(path, found.status.st_mode | 0o700)
    return True


def parts_of(rows: Rows, page_size: int, size: int = TASK_BYTES) -> Iterator[Rows]:
    """Rows cut into parts of about `size` bytes of files, in their order; long rows are cut (pure)."""
    unit_size = np.where(rows["unit"] == 0, 1, page_size)
    part: list[Rows] = []
    room = size
    for row, unit in zip(rows, unit_size.tolist(), strict=True):
        done, units = 0, int(row["count"])
        while done < units:
            taken = min(units - done, max(1, room // unit))
            part.append(part_of(row, done, taken))
            done, room = done + taken, room - taken * unit
            if room < unit:
                yield np.concatenate(part)
                part, room = [], size
    if part:
        yield np.concatenate(part)
