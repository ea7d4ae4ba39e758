"""`python -m benchmarks.scale`: what planning a restore and a backup of 10 TB costs, in seconds and megabytes.

A real server with a real, small backup; then a hundred manifests of 50,000 packs each, as in benchmarks.sweeping, of
which the newest lists a million relations of 10 MiB (docs/format/limits.md).  The packs are not there: planning reads
none.

*restore* is `pgkeep restore --latest --dry-run`, from its start to its exit; that there is no room for 10 TB is the
last thing that it finds out.  *backup* is what a backup does between
its start checkpoint and the first page, in a process of its own: it reads the base's manifest and the WAL summaries of
a day in which one page in a hundred was changed at random (96 files), walks the data directory (a million sparse files)
and cuts the work into tasks.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace as with_fields

from benchmarks.archiving import archive_with
from benchmarks.contenders import PgKeep
from benchmarks.measure import measured
from benchmarks.race import await_archiver
from benchmarks.server import RaceError, Server, Site, find_programs, running
from benchmarks.sweeping import synthetic_pack, thinned
from pgkeep.backup.base import scattered_packs
from pgkeep.backup.detection import Detection
from pgkeep.backup.tasks import content_length, plan_tasks
from pgkeep.clock import SystemClock
from pgkeep.format import names
from pgkeep.format.header import ObjectType
from pgkeep.format.manifest import Entry, EntryType, Outer, PackRef, Place, Unit
from pgkeep.format.manifestcodec import encode_manifest
from pgkeep.pg.changes import NO_LIMIT
from pgkeep.pg.crc32c import crc32c_of_bulk
from pgkeep.pg.datadir import scan
from pgkeep.pg.page import BLCKSZ
from pgkeep.pg.summaries import list_summaries, read_changes
from pgkeep.repo.backups import Manifest, backup_ids, read_manifest
from pgkeep.repo.deleting import condemned_packs, damaged_packs, retired_backups
from pgkeep.repo.repository import Cluster, clusters, open_repository
from pgkeep.store.open import open_store
from pgkeep.values.ids import BackupId

PAGES: Final = 1280
"""Of each relation: 10 MiB."""
FIRST: Final = 1_000_000
"""Number of the first relation."""
SUMMARIES: Final = 96
CHANGED: Final = 0.01
_EXTENTS: Final = 1100
"""Of a map, after a hundred backups that each changed one page in a hundred."""
_DEFAULT: Final = 1663  # DEFAULTTABLESPACE_OID
_DATABASE: Final = 5


def main() -> int:
    options = _parser().parse_args()
    account = options.account if os.geteuid() == 0 else None
    site = Site(options.work.resolve() / str(options.files), find_programs(options.postgres), account)
    keep = PgKeep(site, options.pgkeep)
    try:
        if not (site.work / "made").exists():
            _make(site, keep, options)
        _race_restore(site, keep)
        _in_a_child(site)
    except RaceError as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000, help="of the cluster (default: %(default)s)")
    parser.add_argument("--backups", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--packs", type=int, default=50_000, help="of each backup (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pgkeep-scale"), help="folder (%(default)s)")
    parser.add_argument("--pgkeep", default=shutil.which("pgkeep"), help="program (default: from PATH)")
    parser.add_argument("--postgres", type=Path, help="PostgreSQL's bin folder")
    parser.add_argument("--account", default="postgres", help="account when started as root (default: %(default)s)")
    return parser


# ---- measuring


def _race_restore(site: Site, keep: PgKeep) -> None:
    words = ("restore", str(site.work / "restored"), "--latest", "--dry-run", "--json", "--quiet")
    cost = measured(keep.command(*words), site.account, site.environment(), str(site.work))
    said = "\n".join(line.text for line in cost.lines)
    if cost.status and '"target-space"' not in said:
        raise RaceError(f"restore --dry-run ended with status {cost.status}:\n{said}")
    print(f"restore: {cost.wall:.1f} s, {cost.cpu:.1f} CPU s, {cost.peak_pss / 1e6:.0f} MB at most", flush=True)


def _in_a_child(site: Site) -> None:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _plan_backup(site)
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise RaceError("the planning of a backup failed")


def _plan_backup(site: Site) -> None:
    began, worked = time.monotonic(), time.process_time()

    def lap(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        passed = f"{time.monotonic() - began:.1f} s, {time.process_time() - worked:.1f} CPU s, {peak:.0f} MB at most"
        print(f"backup, with {what}: {passed}", flush=True)

    cluster, data = _cluster(site), site.work / "pgdata"
    retired = retired_backups(cluster)
    base = read_manifest(cluster, next(each for each in reversed(backup_ids(cluster)) if each not in retired))
    avoid = condemned_packs(cluster) | damaged_packs(cluster) | scattered_packs(base.outer.packs)
    lap("the base")
    wal = str(data / "pg_wal")
    detection = Detection("summaries", "", base, "", read_changes(wal, list_summaries(wal)), avoid)
    lap("the summaries")
    directory = scan(str(data))
    total = sum(content_length(entry) for entry in directory.entries)
    lap("the directory")
    files = detection.files(131072)
    assert files is not None
    tasks = changed = 0
    for task in plan_tasks(directory.entries, 131072, files.finder()):
        tasks += 1
        for run in task:
            if run.base is not None and run.base.changed is not None:
                changed += len(run.base.changed)
    lap(f"{tasks} tasks for {total / 1e12:.1f} TB of which {changed} pages are named")


# ---- making


def _cluster(site: Site) -> Cluster:
    (cluster,) = clusters(open_repository(open_store(str(site.work / "pgkeep" / "repository"))))
    return cluster


def _make(site: Site, keep: PgKeep, options: argparse.Namespace) -> None:
    began = time.monotonic()
    shutil.rmtree(site.work, ignore_errors=True)
    site.folder(".")
    data = site.work / "pgdata"
    Server(site, data, data).initdb()
    with running(site, data, "archive_mode=on", "summarize_wal=on", "fsync=off") as server:
        keep.prepare(server)
        archive_with(server, keep.archive_command)
        site.run(*keep.backup(server))
        await_archiver(server)
    cluster = _cluster(site)
    _manifests(cluster, options)
    _files(data / "base" / str(_DATABASE), options.files)
    _summaries(data / "pg_wal" / "summaries", options.files)
    if site.account is not None:
        site_owner = f"{site.account}:"
        Site(site.work, site.programs, None).run("chown", "-R", site_owner, str(site.work))
    (site.work / "made").touch()
    print(f"made in {time.monotonic() - began:.0f} s", flush=True)


def _manifests(cluster: Cluster, options: argparse.Namespace) -> None:
    (real,) = (read_manifest(cluster, backup) for backup in backup_ids(cluster))
    held: list[PackRef] = []
    fresh = options.packs // 100
    for number in range(options.backups):
        new = [synthetic_pack() for _ in range(fresh if number else options.packs)]
        held = [replace(pack, live=thinned(pack.live, number)) for pack in held[fresh if number else 0 :]] + new
        is_newest = number == options.backups - 1
        _commit(cluster, real, number, held, _entries(real, options.files, options.packs) if is_newest else iter(()))


def _entries(real: Manifest, files: int, packs: int) -> Iterator[Entry]:
    """The real backup's, whose packs are the first, and the relations; ascending by path."""
    rows = sorted([*real.entries(), *_relations(files, packs)], key=lambda entry: entry.path)
    return iter(rows)


def _relations(files: int, packs: int) -> Iterator[Entry]:
    for number in range(files):
        yield Entry(
            path=b"base/%d/%d" % (_DATABASE, FIRST + number), type=EntryType.FILE, mode=0o600, size=PAGES * BLCKSZ,
            unit=Unit.PAGES, place=Place.MAP, pack=number % packs, at=number * 17 % 1_000_003,
            length=24 + 16 * _EXTENTS, hash=os.urandom(16),
        )  # fmt: skip


def _commit(cluster: Cluster, real: Manifest, number: int, packs: list[PackRef], entries: Iterator[Entry]) -> None:
    started = datetime.fromisoformat(real.info.started) + timedelta(minutes=1 + number)
    backup = BackupId.make(started, os.urandom(4))
    info = with_fields(real.info, backup=backup, started=started.isoformat())
    key = names.backup(cluster.uuid, backup)
    header = cluster.repository.header(ObjectType.MANIFEST, key, SystemClock())
    table = [*real.outer.packs, *packs]
    cluster.repository.store.put(key, encode_manifest(header, Outer(info, [], table), _inner(real), entries))


def _inner(real: Manifest) -> Any:
    """Its streams are read anew for each manifest."""
    return real.reader.inner()


def _files(directory: Path, count: int) -> None:
    for number in range(count):
        descriptor = os.open(directory / str(FIRST + number), os.O_WRONLY | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, PAGES * BLCKSZ)
        os.close(descriptor)


def _summaries(directory: Path, files: int) -> None:
    """One page in a hundred, spread over the day."""
    shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    random = np.random.default_rng(1)
    each = int(files * PAGES * CHANGED) // SUMMARIES
    for number in range(SUMMARIES):
        start = (1 + number) << 30
        places = np.unique(random.integers(0, files * PAGES, each))
        name = f"{1:08X}{start:016X}{start + (1 << 30):016X}.summary"
        (directory / name).write_bytes(_summary(places // PAGES + FIRST, places % PAGES))


def _summary(relations: np.ndarray[Any, np.dtype[np.int64]], blocks: np.ndarray[Any, np.dtype[np.int64]]) -> bytes:
    """A file (common/blkreftable.c) that says of each relation, ascending, these blocks, in one chunk."""
    numbers, first, count = np.unique(relations, return_index=True, return_counts=True)
    begins = np.cumsum(13 + count) - (13 + count)
    words = np.zeros(int(begins[-1] + 13 + count[-1]), "<u2")
    head = np.zeros((len(numbers), 6), "<u4")
    head[:, 0], head[:, 1], head[:, 2], head[:, 4], head[:, 5] = _DEFAULT, _DATABASE, numbers, NO_LIMIT, 1
    words[begins[:, None] + np.arange(12)] = head.view("<u2")
    words[begins + 12] = count
    place = np.repeat(begins + 13 - first, count) + np.arange(len(blocks))
    words[place] = blocks
    body = struct.pack("<I", 0x652B137B) + words.tobytes() + bytes(24)
    return body + struct.pack("<I", crc32c_of_bulk(body))


if __name__ == "__main__":
    sys.exit(main())
