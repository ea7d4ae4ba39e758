"""The rows of `pgkeep list`: every backup, whether its WAL is there, and what it can be recovered to.

A manifest or a history that cannot be read is shown as such, in its own row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pgkeep.catalog.continuity import Gap, Reach, gaps, reach
from pgkeep.catalog.timelines import Timelines, default_timeline, parse_history, read_timelines
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.manifest import ManifestInfo
from pgkeep.repo.backups import backup_ids, read_info, read_manifest
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import Listing, WalArchive
from pgkeep.repo.walstock import Pruned, read_pruned
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment, last_segment_number


@dataclass(frozen=True, slots=True)
class Window:
    """What a backup can be recovered to along one timeline, from the backup's end to the end of unbroken WAL."""

    timeline: int
    from_lsn: Lsn
    from_time: datetime
    """The end of the backup by the server's clock (UTC)."""
    to_lsn: Lsn
    archived: datetime | None
    """When the last full segment was archived, by the store's clock: its commits are not younger."""
    gap: Gap | None
    """The hole that ends the window although WAL lies behind it."""
    others: tuple[int, ...]
    """Living branches besides `timeline`, to which the backup could be recovered as well."""
    is_pruned: bool = False
    """The hole was made on purpose, by a prune."""


@dataclass(frozen=True, slots=True)
class BackupRow:
    """One backup.  `info` is None when its manifest is unreadable, and `window` when its own WAL is not complete."""

    backup: BackupId
    info: ManifestInfo | None = None
    damage: str = ""
    missing: tuple[Gap, ...] = ()
    """Segments between its start and its end that the archive lacks."""
    window: Window | None = None

    @property
    def is_restorable(self) -> bool:
        """The manifest is readable and the WAL that makes it consistent is there; the packs are verify's business."""
        return self.window is not None


@dataclass(frozen=True, slots=True)
class _View:
    """The archive of one system identifier, listed once."""

    archive: WalArchive
    listing: Listing
    timelines: Timelines
    pruned: Pruned


def backup_rows(cluster: Cluster) -> list[BackupRow]:
    """Every backup of the cluster, oldest first."""
    views: dict[int, _View] = {}
    pruned = read_pruned(cluster)
    return [row for backup in backup_ids(cluster) for row in _rows_of(cluster, backup, views, pruned)]


def _rows_of(cluster: Cluster, backup: BackupId, views: dict[int, _View], pruned: Pruned) -> Iterator[BackupRow]:
    info = None
    try:
        info = read_info(cluster, backup)
        if info.system_id not in views:
            views[info.system_id] = _view(cluster, info, pruned)
        yield _row(cluster, backup, info, views[info.system_id])
    except Fault as fault:
        if fault.code in ("format-damaged", "format-unsupported"):
            yield BackupRow(backup, info, fault.message)
        elif fault.code != "backup-unknown":  # deleted since it was listed
            raise


def _view(cluster: Cluster, info: ManifestInfo, pruned: Pruned) -> _View:
    archive = WalArchive(cluster, info.system_id, info.wal_segment_size)
    listing = archive.listing()
    return _View(archive, listing, read_timelines(archive, listing), pruned)


def _row(cluster: Cluster, backup: BackupId, info: ManifestInfo, view: _View) -> BackupRow:
    size = info.wal_segment_size
    own = own_history(cluster, info, view.timelines)
    known = {own.timeline: own, **view.timelines.histories}
    stop = Lsn(info.stop_lsn)
    chosen = default_timeline(known, view.listing, info.timeline, stop)
    first = info.start_lsn // size
    reached = reach(view.listing, known[chosen.timeline], first)
    if reached.end < stop:
        missing = gaps(view.listing, own, first, last_segment_number(stop, size))
        return BackupRow(backup, info, missing=missing)
    return BackupRow(backup, info, window=_window(info, chosen.timeline, reached, chosen.others, view))


def own_history(cluster: Cluster, info: ManifestInfo, timelines: Timelines) -> History:
    """The lineage on which a backup was made; from its manifest where the archive has no (readable) file.  Damaged."""
    known = timelines.histories.get(info.timeline)
    if known is not None and (known.switches or info.timeline == 1):
        return known
    backup = BackupId(info.backup)
    text = read_manifest(cluster, backup).inner.wal.history
    return parse_history(info.timeline, text, names.backup(cluster.uuid, backup)) if text else History(info.timeline)


def _window(info: ManifestInfo, timeline: int, reached: Reach, others: tuple[int, ...], view: _View) -> Window:
    return Window(
        timeline,
        Lsn(info.stop_lsn),
        stopped_at(info),
        reached.end,
        _archived(reached, timeline, view),
        reached.gap,
        others,
        reached.gap is not None and view.pruned.holds(info.system_id, reached.gap.timeline, reached.gap.first),
    )


def stopped_at(info: ManifestInfo) -> datetime:
    """When the backup ended, by the server's clock (aware); Damaged."""
    try:
        return datetime.fromisoformat(info.stopped)
    except ValueError:
        raise Damaged(f"backup {info.backup}", f"holds no readable time ({info.stopped!r})") from None


def _archived(reached: Reach, timeline: int, view: _View) -> datetime | None:
    history = view.timelines.histories.get(timeline, History(timeline))
    last = Segment(history.segment_timeline(reached.last, view.archive.segment_size), reached.last)
    try:
        return view.archive.stat(last).modified
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        return None
