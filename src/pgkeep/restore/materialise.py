"""Write a backup's files into an empty directory, in parallel, durably, pg_control last.

In this order, seen from a crash: an `unfinished` mark; directories and tablespace links; the content of every file but
global/pg_control, pack by pack; fsync of all files, then of all directories; backup_label and tablespace_map;
pg_control; the mark goes.  Whatever dies in between leaves a directory that no server starts on, because pg_control is
missing.

A backup's file may be replaced or left out by an `Overlay` (the configuration of the restored server).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pgkeep.crew import Crew
from pgkeep.errors import Damaged
from pgkeep.events import Announce, Phase, Progress
from pgkeep.format.manifest import Entry, EntryType, Place
from pgkeep.pg.backuplabel import TablespaceLink, format_tablespace_map
from pgkeep.pg.controlfile import CONTROL_FILE
from pgkeep.repo.backups import Manifest
from pgkeep.repo.check import RepositoryAddress
from pgkeep.repo.repository import Cluster
from pgkeep.restore.contents import Contents
from pgkeep.restore.filewriter import stretch_size
from pgkeep.restore.gather import Share
from pgkeep.restore.layout import FileTable, Layout, Rows, TargetFile, inline_row
from pgkeep.restore.mark import UNFINISHED, Mark
from pgkeep.restore.tablespaces import root_of
from pgkeep.restore.tiles import tiles_of
from pgkeep.restore.tree import Owner, Tree
from pgkeep.restore.worker import (
    Done,
    Drain,
    ReadMaps,
    RestoreWorker,
    SyncPaths,
    Task,
    WantedMap,
    WorkerSettings,
    WriteEmpty,
    WriteShare,
    WriteTile,
)

SHARE_SIZE: Final = 12 << 20
"""Stored bytes of one task, about: short enough for both workers to end together and for steady progress."""
_BATCH: Final = 1024
_MAPS_BATCH: Final = 256
MAPS_SIZE: Final = 4 << 20
"""Bytes of extent maps that one task decodes, about: 16 an extent, of which come 29 of rows."""
PORTION: Final = 16 << 20
"""Bytes of extent maps that are read before the tiles among them are written: their rows are not kept."""
_TABLESPACE: Final = re.compile(rb"pg_tblspc/([1-9][0-9]{0,9})")
_BACKUP_LABEL: Final = b"backup_label"
_TABLESPACE_MAP: Final = b"tablespace_map"


@dataclass(frozen=True, slots=True)
class Overlay:
    """A file that is written instead of the backup's, or (`content` None) left out."""

    path: bytes
    content: bytes | None
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a restore writes: the data directory, and the linked tablespaces' directories by OID (absolute paths).

    All are absent or empty, but for a delta; parents of the directories exist or are made.
    """

    directory: str
    tablespaces: Mapping[int, str]
    owner: Owner | None = None
    mode: int = 0o700

    def roots(self) -> tuple[str, ...]:
        """The data directory first, then the tablespaces in the order of the mapping."""
        return (self.directory, *self.tablespaces.values())


@dataclass(slots=True)
class Prepared:
    """What one pass over the entries yields."""

    files: FileTable = field(default_factory=FileTable)
    empty: list[int] = field(default_factory=list)
    directories: list[tuple[int, bytes]] = field(default_factory=list)
    maps: dict[int, list[WantedMap]] = field(default_factory=dict)
    bytes: int = 0


def materialise(
    cluster: Cluster,
    manifest: Manifest,
    destination: Destination,
    overlays: Sequence[Overlay] = (),
    *,
    processes: int = 2,
    announce: Announce,
    kind: type[Job] | None = None,
) -> int:
    """Write everything; bytes written.  Damaged, target-space, io, worker-died, store-unreachable ...

    `kind` is the Job that does it; another one than Job may find files there (`delta`).
    """
    make = kind or Job
    for root in destination.roots():
        _make_root(root, destination)
    settings = _worker_settings(cluster, manifest, destination, processes)
    trees = [Tree(root, destination.owner) for root in destination.roots()]
    layout = Layout(destination.directory)
    try:
        with Crew[Any, Done, None](processes, make.WORKER, settings) as crew:
            named = {overlay.path: overlay for overlay in overlays}
            job = make(
                manifest, destination, named, trees=trees, layout=layout, crew=crew, announce=announce,
                stretch=settings.stretch,
            )  # fmt: skip
            job.begin(Mark(cluster.repository.id, cluster.uuid, manifest.info.system_id))
            job.run()
        _seal(cluster, manifest, destination, trees[0])
        return job.written
    finally:
        layout.close()
        for tree in trees:
            tree.close()


def _make_root(path: str, destination: Destination) -> None:
    """The directory itself and missing ones above it, their names durable."""
    missing: list[str] = []
    above = path
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for directory in reversed(missing):
        parent = Tree(os.path.realpath(os.path.dirname(directory)), destination.owner)
        try:
            parent.make_directory(os.fsencode(os.path.basename(directory)), 0o755 if directory != path else 0o700)
            parent.sync()
        finally:
            parent.close()
    tree = Tree(path, destination.owner)
    try:
        tree.dress(destination.mode)
    finally:
        tree.close()


def _worker_settings(cluster: Cluster, manifest: Manifest, destination: Destination, processes: int) -> WorkerSettings:
    return WorkerSettings(
        address=RepositoryAddress.of(cluster.repository),
        cluster=cluster.uuid,
        packs=tuple((pack.id, pack.footer) for pack in manifest.outer.packs),
        page_size=manifest.inner.server.block_size,
        roots=destination.roots(),
        owner=destination.owner,
        stretch=stretch_size(processes),
    )


class Job:
    """The steps that the workers share, for roots that hold nothing yet."""

    WORKER: ClassVar[type[RestoreWorker]] = RestoreWorker

    def __init__(
        self,
        manifest: Manifest,
        destination: Destination,
        overlays: Mapping[bytes, Overlay],
        *,
        trees: Sequence[Tree],
        layout: Layout,
        crew: Crew[Any, Done, None],
        announce: Announce,
        stretch: int,
    ) -> None:
        self.found = Prepared()
        self.written = 0
        """Bytes written to files so far."""
        self._manifest = manifest
        self._destination = destination
        self._overlays = overlays
        self._trees = trees
        self._layout = layout
        self._tiles: list[Rows] = []
        self._stretch = stretch
        self._is_copying = False
        self._crew = crew
        self._announce = announce
        self._roots = {oid: number for number, oid in enumerate(destination.tablespaces, start=1)}

    def begin(self, mark: Mark) -> None:
        """The first thing that is written: what dies from here on leaves an unfinished restore."""
        self._trees[0].write(UNFINISHED, mark.encode(), 0o600)

    def run(self) -> None:
        """Everything from the first directory to the last fsync, but for what `_seal` does."""
        self._announce(Phase("prepare", "making directories and reading where the pages lie"))
        self._prepare()
        for tasks in self._map_portions():
            for done in self._crew.run(tasks):
                for rows in done.rows:
                    self._placed(rows)
            if self._tiles:
                self._write(self._tile_tasks())
        self._copy()
        self._write_overlays()
        self._announce(Phase("sync", "making everything durable"))
        self._drain(self._sync_tasks(range(len(self.found.files)), lambda n: _place(self.found.files[n])))
        # Children before parents does not matter: a name is durable once its own directory is.
        self._drain(self._sync_tasks(range(len(self.found.directories)), lambda n: self.found.directories[n]))
        for tree in self._trees:
            tree.sync()

    def _placed(self, rows: Rows) -> None:
        """Take the rows of one file whose extents are a map."""
        tiles, rest = tiles_of(rows, self._manifest.inner.server.block_size, self._stretch)
        self._tiles += tiles
        self._layout.add(rest)

    def _copy(self) -> None:
        self._write(self._write_tasks())
        self._wrote(self._crew.each(Drain()))

    def _write(self, tasks: Iterator[object]) -> None:
        if not self._is_copying:
            self._announce(Phase("copy", "writing files"))
            self._is_copying = True
        self._wrote(self._crew.run(tasks))

    def _wrote(self, results: Iterable[Done]) -> None:
        for done in results:
            self.written += done.written
            self._announce(Progress(self.written, self.found.bytes))

    def _drain(self, tasks: Iterable[Task]) -> None:
        for _ in self._crew.run(tasks):
            pass

    def _prepare(self) -> None:
        for entry in self._manifest.entries():
            number, path = root_of(entry.path, self._roots)
            if entry.type is EntryType.LINKED_TABLESPACE:
                self._trees[0].make_link(entry.path, tablespace_target(self._manifest, self._destination, entry))
            elif entry.type is not EntryType.FILE:
                self._trees[number].make_directory(path, entry.mode)
                self.found.directories.append((number, path))
            elif not is_written_apart(entry, self._overlays):
                self._file(entry, TargetFile(number, path, entry.size, entry.mode & 0o777))

    def _file(self, entry: Entry, file: TargetFile) -> None:
        number = self.found.files.add(file)
        self.found.bytes += entry.size
        if entry.place is Place.NONE:
            self.found.empty.append(number)
        elif entry.place is Place.INLINE:
            page_size = self._manifest.inner.server.block_size
            self._layout.add(inline_row(entry, number, page_size, self._manifest.key))
        else:
            wanted = WantedMap(number, entry.unit, entry.size, entry.at, entry.length, entry.hash)
            self.found.maps.setdefault(entry.pack, []).append(wanted)

    def _map_portions(self) -> Iterator[list[Task]]:
        """Tasks that read the maps, about PORTION of them together."""
        portion: list[Task] = []
        size = 0
        for pack, maps in sorted(self.found.maps.items()):
            for part in _batches(maps):
                portion.append(ReadMaps(pack, part))
                size += sum(wanted.length for wanted in part)
                if size >= PORTION:
                    yield portion
                    portion, size = [], 0
        yield portion
        self.found.maps.clear()

    def _tile_tasks(self) -> Iterator[object]:
        tiles, self._tiles = self._tiles, []
        for tile in tiles:
            yield WriteTile(tile.tobytes(), self.found.files[int(tile["file"][0])])

    def _write_tasks(self) -> Iterator[object]:
        for pack, rows in self._layout.by_pack():
            yield from self._pack_tasks(pack, rows)
        for at in range(0, len(self.found.empty), _BATCH):
            yield WriteEmpty(tuple(self.found.files[number] for number in self.found.empty[at : at + _BATCH]))

    def _pack_tasks(self, pack: int, rows: Rows) -> Iterator[object]:
        """Tasks for WORKER that write what these rows name."""
        files = {number: self.found.files[number] for number in set(rows["file"].tolist())}
        stored = self._manifest.outer.packs[pack].footer.offset
        parts = max(1, -(-stored // SHARE_SIZE))
        data = rows.tobytes()
        for part in range(parts):
            yield WriteShare(pack, Share(part, parts), data, files)

    def _write_overlays(self) -> None:
        for overlay in self._overlays.values():
            if overlay.content is not None:
                self._trees[0].write(overlay.path, overlay.content, overlay.mode)

    def _sync_tasks(self, numbers: range, path: Callable[[int], tuple[int, bytes]]) -> Iterator[Task]:
        for at in range(0, len(numbers), _BATCH):
            yield SyncPaths(tuple(path(number) for number in numbers[at : at + _BATCH]))


def is_written_apart(entry: Entry, overlays: Mapping[bytes, Overlay]) -> bool:
    """True for a file that is not written from the packs in their order: pg_control, and what an overlay replaces."""
    return entry.path == CONTROL_FILE.encode() or entry.path in overlays


def tablespace_target(manifest: Manifest, destination: Destination, entry: Entry) -> str:
    """Where the link of a linked tablespace's entry leads now; Damaged when the backup has no such tablespace."""
    match = _TABLESPACE.fullmatch(entry.path)
    target = destination.tablespaces.get(int(match[1])) if match else None
    if target is None:
        shown = os.fsdecode(entry.path)
        raise Damaged(manifest.key, f"holds the link {shown!r}, which is none of its tablespaces")
    return target


def _batches(maps: Sequence[WantedMap]) -> Iterator[tuple[WantedMap, ...]]:
    """What one task reads of a pack's maps."""
    batch: list[WantedMap] = []
    size = 0
    for wanted in maps:
        batch.append(wanted)
        size += wanted.length
        if size >= MAPS_SIZE or len(batch) == _MAPS_BATCH:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)


def _place(file: TargetFile) -> tuple[int, bytes]:
    return file.root, file.path


def _seal(cluster: Cluster, manifest: Manifest, destination: Destination, tree: Tree) -> None:
    """backup_label and tablespace_map before pg_control: a server that started without them would believe its
    checkpoint and miss the WAL of the backup."""
    control = CONTROL_FILE.encode()
    contents = Contents(cluster, manifest)
    entry = contents.find(control)
    if entry is None:
        raise Damaged(manifest.key, f"holds no {CONTROL_FILE}")
    content = contents.of(entry)
    tree.write(_BACKUP_LABEL, manifest.inner.backup_label, 0o600)
    if destination.tablespaces:
        # Startup makes the links anew from this file: it holds the mapped paths, never the original ones.
        links = (TablespaceLink(oid, target) for oid, target in destination.tablespaces.items())
        tree.write(_TABLESPACE_MAP, format_tablespace_map(links), 0o600)
    tree.write(control, content, entry.mode & 0o777)
    tree.remove(UNFINISHED)
