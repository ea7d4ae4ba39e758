"""Backups and archives as values, for tests of what is decided about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pgkeep.format.manifest import ManifestInfo
from pgkeep.pg.waldump import RestorePoint, TransactionEnd
from pgkeep.repo.walarchive import Listing
from pgkeep.restore.choice import ArchiveView
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History
from tests.restore.backups_of import info_of

SIZE = 1 << 24
NOON = datetime(2026, 5, 7, 12, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def backup(number: int, segment: int, *, minutes: float, timeline: int = 1) -> ManifestInfo:
    """It starts and ends within `segment`, and ended `minutes` after noon."""
    return info_of(
        backup=f"20260507T1129{number:02d}Z-3f9a01c7", start_lsn=segment * SIZE + 0x28,
        stop_lsn=segment * SIZE + 0x1000, timeline=timeline, start_timeline=timeline, stopped=at(minutes).isoformat(),
    )  # fmt: skip


def view(segments: dict[int, list[int]], *histories: History) -> ArchiveView:
    known = {history.timeline: history for history in histories} or {t: History(t) for t in segments}
    return ArchiveView(Listing(SIZE, segments, (), tuple(known)), known)


def end(
    lsn: int, minutes: float, xid: int = 700, *, committed: bool = True, subxacts: tuple[int, ...] = ()
) -> TransactionEnd:
    return TransactionEnd(Lsn(lsn), Lsn(lsn + 0x30), xid, committed, at(minutes), subxacts, False)


def point(lsn: int, name: str) -> RestorePoint:
    return RestorePoint(Lsn(lsn), Lsn(lsn + 0x68), name, at(0))
