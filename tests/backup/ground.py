"""Proving ground of incremental backups: taken in this process, with a rule left out where a test wants to see it fail.

A hazard's test calls `prove`: without its rule the backup must be wrong, with it exact.  So the test is known to notice
the rule's absence, and the hazard to be real.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pytest

from pgkeep.backup.detection import Mode
from pgkeep.backup.job import BackupRequest, run_backup
from pgkeep.catalog.verification import VerifyReport, verify
from pgkeep.clock import SystemClock
from pgkeep.events import Event, Phase, Warned, silent
from pgkeep.format.extents import HOLE, ExtentMap
from pgkeep.format.frame import FrameKind, split_frame
from pgkeep.format.manifest import Entry, EntryType, ManifestInfo, PackRef, Place, Unit
from pgkeep.pg.account import give_tree
from pgkeep.pg.controlfile import CONTROL_FILE
from pgkeep.pg.relfile import relation_of
from pgkeep.repo.backups import Manifest, read_manifest
from pgkeep.repo.packreader import FrameRun, PackReader, read_extents
from pgkeep.repo.repository import Cluster as RepositoryCluster
from pgkeep.values.ids import BackupId, ObjectId
from tests.backup.pagecompare import PAGE, differing, relation_files
from tests.clusters import Cluster
from tests.keeping import Kept

QUIET = {"autovacuum": "off", "bgwriter_lru_maxpages": "0", "checkpoint_timeout": "'1d'", "max_wal_size": "'4GB'"}
"""A server on which nothing happens by itself."""
Patch = Callable[[pytest.MonkeyPatch], None]
T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F")


def quiet(major: int) -> dict[str, Any]:
    """Settings for `kept`, with WAL summaries where there are any."""
    return QUIET | ({"summarize_wal": "on"} if major >= 17 else {})


class InlineCrew(Generic[T, R, F]):
    """A Crew of this very process, so that what a test changes reaches the workers' code too."""

    def __init__(self, _size: int, recipe: Callable[..., Any], *arguments: Any) -> None:
        self._worker = recipe(*arguments)

    def run(self, tasks: Iterable[T], idle: Callable[[], None] = lambda: None, _every: float = 1.0) -> Iterator[R]:
        for task in tasks:
            yield self._worker.run(task)
            idle()

    def each(self, task: T) -> Iterator[R]:
        yield self._worker.run(task)

    def ask_to_finish(self) -> None:
        return

    def finish(self) -> Iterator[F]:
        yield self._worker.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        return


@dataclass
class Ids:
    """Makes ids that ascend also when several backups are taken in one second."""

    last: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def make(self, now: datetime, entropy: bytes) -> BackupId:
        self.last = max(now, self.last + timedelta(seconds=1))
        return BackupId.make(self.last, entropy)


@dataclass(frozen=True)
class Taken:
    """A backup, and what was said while it was taken."""

    info: ManifestInfo
    warnings: dict[str, str]
    """By code."""


@dataclass
class Ground:
    """A cluster under care, and backups of it or of another server of the same repository."""

    kept: Kept
    server: Cluster
    path: Path = field(init=False)
    ids: Ids = field(default_factory=Ids)

    def __post_init__(self) -> None:
        self.path = self.server.datadir

    @property
    def catalogue(self) -> RepositoryCluster:
        return self.kept.catalogue()

    def backup(
        self, mode: Mode = "auto", *, without: Patch | None = None, during: Callable[[], None] | None = None,
        cluster: RepositoryCluster | None = None, archive_timeout: float = 60.0,
    ) -> Taken:  # fmt: skip
        """`during` is called when the backup has begun on the server, and before anything is read."""
        warnings: dict[str, str] = {}

        def announce(event: Event) -> None:
            if isinstance(event, Warned):
                warnings[event.code] = event.text
            if isinstance(event, Phase) and event.name == "copy" and during is not None:
                during()

        request = BackupRequest(self.server.conninfo, mode=mode, archive_timeout=archive_timeout)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pgkeep.backup.job.Crew", InlineCrew)
            patch.setattr("pgkeep.backup.job.BackupId", self.ids)
            if without is not None:
                without(patch)
            try:
                result = run_backup(cluster or self.catalogue, request, SystemClock(), announce)
            finally:
                give_tree(self.kept.account, self.kept.repository)
        return Taken(result.info, warnings)

    def wrong(self, taken: Taken, *, masked: bool = False) -> list[str]:
        """What the backup holds otherwise than the quiet server does now; `masked` as of `differing`."""
        manifest = read_manifest(self.catalogue, BackupId(taken.info.backup))
        live = {path: (self.path / path).read_bytes() for path in (*relation_files(self.path), *self._whole_files())}
        image = read_image(self.catalogue, manifest).items()
        ours = {path: content for path, content in image if relation_of(path) is not None or _is_whole(path)}
        return differing(ours, live, taken.info.start_lsn, masked=masked)

    def _whole_files(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.path, followlinks=True):
            home = os.path.relpath(folder, self.path)
            yield from (path for name in names if _is_whole(path := f"{home}/{name}"))

    def forget(self, taken: Taken) -> None:
        """As if that backup had never been: its packs are nobody's."""
        (manifest,) = self.kept.repository.glob(f"*/backups/{taken.info.backup}")
        manifest.unlink()

    def prove(self, mode: Mode, without: Patch, *, method: str, **options: Any) -> Taken:
        """See the module's docstring; `method` is what the backup with all rules must have come to."""
        broken = self.backup(mode, without=without, **options)
        assert broken.info.base is not None, broken.info.method_reason
        assert self.wrong(broken), f"as good without its rule: {broken.info.method}, {broken.info.method_reason}"
        self.forget(broken)
        exact = self.backup(mode, **options)
        assert not self.wrong(exact), (exact.info.method, self.wrong(exact))
        assert exact.info.method == method, exact.info.method_reason
        return exact

    def verified(self) -> VerifyReport:
        with ThreadPoolExecutor(1) as pool:
            report = verify(self.catalogue, pool, SystemClock(), silent)
        give_tree(self.kept.account, self.kept.repository)
        return report

    # ---- the server

    def sql(self, *statements: str, dbname: str = "postgres") -> None:
        for statement in statements:
            self.server.sql(statement, dbname=dbname)

    def table(self, name: str, rows: int = 2000, dbname: str = "postgres") -> Path:
        """A table of rows of some 250 bytes, on disk and all-visible; its file."""
        values = f"SELECT g AS id, 0 AS n, repeat('x', 200) AS pad FROM generate_series(1, {rows}) g"
        self.sql(f"CREATE TABLE {name} AS {values}", f"VACUUM (FREEZE) {name}", "CHECKPOINT", dbname=dbname)
        return self.file(name, dbname)

    def file(self, name: str, dbname: str = "postgres") -> Path:
        return self.path / str(self.server.value(f"SELECT pg_relation_filepath('{name}')", dbname=dbname))

    @contextmanager
    def stopped(self, *, immediate: bool = False) -> Iterator[None]:
        self.server.stop(immediate=immediate)
        yield
        self.server.start()


def _is_whole(path: str) -> bool:
    """Relation maps and SLRUs: no relations, and they change."""
    return path.endswith("/pg_filenode.map") or path.startswith(("pg_xact/", "pg_multixact/"))


def page_of(path: Path, number: int = 0) -> bytes:
    with path.open("rb") as file:
        file.seek(number * PAGE)
        return file.read(PAGE)


def put_page(path: Path, number: int, content: bytes) -> None:
    """What a disk, or a server of another time, left there."""
    with path.open("r+b") as file:
        file.seek(number * PAGE)
        file.write(content)


def read_image(cluster: RepositoryCluster, manifest: Manifest) -> dict[str, bytes]:
    """The content of every file of a backup, from its packs."""
    packs = {pack.id: _Pack(cluster, pack) for pack in manifest.outer.packs}
    rows = manifest.outer.packs
    return {
        os.fsdecode(entry.path): _content(cluster, packs, rows, entry)
        for entry in manifest.entries()
        if entry.type is EntryType.FILE and os.fsdecode(entry.path) != CONTROL_FILE
    }


class _Pack:
    """All units of a pack, read when first wanted."""

    def __init__(self, cluster: RepositoryCluster, pack: PackRef) -> None:
        self.reader = PackReader.open(cluster.repository, cluster.uuid, pack.id, pack.footer)
        self._units: dict[FrameKind, bytes] = {}

    def units(self, kind: FrameKind) -> bytes:
        if kind not in self._units:
            frames = [number for number, row in enumerate(self.reader.frames.kind) if row == kind]
            raws = [raw for number in frames for _, raw in self.reader.read(FrameRun(number, number))]
            self._units[kind] = b"".join(bytes(split_frame(raw, self.reader.key)[1]) for raw in raws)
        return self._units[kind]


def _content(cluster: RepositoryCluster, packs: dict[ObjectId, _Pack], rows: Sequence[PackRef], entry: Entry) -> bytes:
    if entry.place is Place.NONE:
        return b""
    pack = packs[rows[entry.pack].id]
    kind, size = (FrameKind.PAGES, PAGE) if entry.unit is Unit.PAGES else (FrameKind.BYTES, 1)
    if entry.place is Place.INLINE:
        return pack.units(kind)[entry.at * size : entry.at * size + entry.size]
    extents = read_extents(pack.reader, entry.at, entry.length, entry.hash, cluster.repository.keys)
    assert extents.total() * size == entry.size
    return b"".join(_extents(extents, packs, kind, size))


def _extents(extents: ExtentMap, packs: dict[ObjectId, _Pack], kind: FrameKind, size: int) -> Iterator[bytes]:
    for count, number, ordinal in zip(extents.count.tolist(), extents.pack, extents.ordinal.tolist(), strict=True):
        if number == np.uint32(HOLE):
            yield bytes(count * size)
            continue
        yield packs[extents.packs[int(number)]].units(kind)[ordinal * size : (ordinal + count) * size]
