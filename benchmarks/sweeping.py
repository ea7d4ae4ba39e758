"""`python -m benchmarks.sweeping`: what planning a sweep of a large repository costs, in seconds and megabytes.

The repository is synthetic: 100 backups of 50,000 packs each (10 TB, of which each backup changes 1 %: docs/format/
limits.md).  Its manifests are real, its packs are empty files with their names: a sweep looks at nothing else of them.
The census is taken by a process of its own, whose peak of memory is what counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pgkeep.clock import SystemClock
from pgkeep.format import names
from pgkeep.format.header import ObjectType
from pgkeep.format.manifest import Inner, ManifestInfo, Outer, PackRef, ServerInfo, WalNeeds
from pgkeep.format.manifestcodec import encode_manifest
from pgkeep.format.objects import IncarnationInfo
from pgkeep.format.tail import FooterPlace
from pgkeep.repo.backups import backup_ids
from pgkeep.repo.census import take_census
from pgkeep.repo.moved import moved_index
from pgkeep.repo.repack import Budget, live_frames, plan_repack
from pgkeep.repo.repository import Cluster, clusters, create_repository, open_repository, register_cluster
from pgkeep.repo.sweep import Fate, plan_sweep
from pgkeep.store.open import create_store, open_store
from pgkeep.values.ids import BackupId, ObjectId

FRAMES = 1600
"""Of a pack of 64 MiB whose pages compress to a third."""
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Size:
    """Backups, packs of each, and packs that each one brings."""

    backups: int
    packs: int
    fresh: int


def main() -> int:
    options = _parser().parse_args()
    size = Size(options.backups, options.packs, options.packs // 100)
    root = options.work / f"{size.backups}x{size.packs}"
    if not (root / "made").exists():
        began = time.monotonic()
        shutil.rmtree(root, ignore_errors=True)
        _make(root, size)
        print(f"made in {time.monotonic() - began:.0f} s", flush=True)
    for what in ("sweep", "repack"):
        child = os.fork()
        if not child:
            _measure(root, what)
            os._exit(0)
        os.waitpid(child, 0)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeping", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backups", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--packs", type=int, default=50_000, help="of each backup (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/pgkeep-sweeping"), help="folder (%(default)s)")
    return parser


def _measure(root: Path, what: str) -> None:
    (cluster,) = clusters(open_repository(open_store(str(root))))
    began = time.monotonic()
    census = take_census(cluster)
    if what == "sweep":
        now = datetime.now(UTC)
        plan = plan_sweep(census, [], now)
        oldest = frozenset(backup_ids(cluster)[:30])
        leaving = plan_sweep(census, [], now, leaving=oldest)
        freed = sum(census.freed_by().values())
        found = f"{plan.count(Fate.NEEDED)} needed, {leaving.count(Fate.UNNEEDED)} not after 30 left, {freed} B alone"
    else:
        sizes = dict.fromkeys(_ids(census.ids.tobytes()), 64 << 20)
        index = moved_index(cluster.repository, cluster.uuid)
        live = live_frames(cluster, lambda: None)
        found = f"{len(plan_repack(live, sizes, index, frozenset(), Budget()))} packs to repack"
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {seconds:.1f} s, {peak:.0f} MB at most; {len(census.ids)} packs, {found}", flush=True)


def _ids(data: bytes) -> Iterator[ObjectId]:
    return (ObjectId(data[at : at + 16]) for at in range(0, len(data), 16))


def _make(root: Path, size: Size) -> None:
    clock = SystemClock()
    repository = create_repository(create_store(str(root)), clock, "benchmark")
    info = IncarnationInfo(
        system_id=7_500_000_000_000_000_001, cluster_name="main", server_version=170011, first_seen="",
        wal_segment_size=16 << 20,
    )  # fmt: skip
    cluster = register_cluster(repository, info, clock)
    (root / cluster.uuid / "packs").mkdir(parents=True)
    held: list[PackRef] = []
    for number in range(size.backups):
        fresh = size.packs if not number else size.fresh
        new = [synthetic_pack() for _ in range(fresh)]
        for pack in new:
            (root / names.pack(cluster.uuid, pack.id)).touch()
        # Each backup needs 1 % less of every older pack, and has no use any more for a few of them.
        held = [replace(pack, live=thinned(pack.live, number)) for pack in held[fresh if number else 0 :]] + new
        _commit(cluster, number, held)
    (root / "made").touch()


def synthetic_pack() -> PackRef:
    """A pack of 64 MiB, as a manifest names it; all of it is live."""
    length = 64 << 20
    place = FooterPlace(length, length - 88 - 100_000, 100_000, 25_000, 90_000, os.urandom(32))
    return PackRef(ObjectId(os.urandom(16)), place, FRAMES, b"\xff" * (FRAMES // 8))


def thinned(live: bytes, number: int) -> bytes:
    """A bitmap of which two bytes went, other ones for each number."""
    at = (number * 7919) % len(live)
    return live[:at] + b"\0\0" + live[at + 2 :] if at + 2 <= len(live) else live


def _commit(cluster: Cluster, number: int, packs: list[PackRef]) -> None:
    started = _BEGAN + timedelta(days=number)
    backup = BackupId.make(started, os.urandom(4))
    text: dict[str, Any] = dict.fromkeys(ServerInfo.__struct_fields__, "")
    for name, field in ServerInfo.__annotations__.items():
        text[name] = {"Small": 8192, "bool": False}.get(str(field), "")
    server = ServerInfo(**text)
    info = ManifestInfo(
        backup=backup, cluster=cluster.uuid, cluster_name="main", writer="benchmark", host="", label="",
        started=started.isoformat(), stopped=started.isoformat(), system_id=cluster.incarnations[0].system_id,
        server_version=170011, timeline=1, start_timeline=1, start_lsn=1, stop_lsn=2, wal_segment_size=16 << 20,
        source="primary", method="summaries", method_reason="", base=None, base_proof="", logical_bytes=0,
        stored_bytes=0, pages=0, pages_changed=0, files=0, bad_pages=0,
    )  # fmt: skip
    inner = Inner(server, b"", b"", WalNeeds(ranges=[], history=b""), [], [], [], [], [], [])
    key = names.backup(cluster.uuid, backup)
    header = cluster.repository.header(ObjectType.MANIFEST, key, SystemClock())
    cluster.repository.store.put(key, encode_manifest(header, Outer(info, [], packs), inner, []))


if __name__ == "__main__":
    sys.exit(main())
