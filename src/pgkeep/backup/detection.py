"""How a backup finds what has changed: the base, the mode, the proof that the base is this server's past.

It goes from the cheapest mode that is proven to the one that needs no proof, and says at each step why not:
summaries -> lsn -> rescan (page hashes: right whatever the base is) -> full (docs/format/inheritance.md).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from pgkeep.backup.base import (
    BaseFiles,
    ancestry_refusal,
    format_refusal,
    lsn_refusal,
    scattered_packs,
    stretches,
)
from pgkeep.backup.tasks import How
from pgkeep.backup.walwait import compare_with_server, is_archived, read_history
from pgkeep.catalog.continuity import gaps
from pgkeep.catalog.timelines import parse_history
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Warned
from pgkeep.format import names
from pgkeep.pg.changes import Changes
from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.summaries import Stretch, Summary, cover, list_summaries, read_changes
from pgkeep.repo.backups import Manifest, backup_ids, read_manifest
from pgkeep.repo.deleting import condemned_packs, damaged_packs, retired_backups, still_there
from pgkeep.repo.lease import Lease
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.ids import BackupId, ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment

Mode = Literal["auto", "full", "rescan", "lsn", "summaries"]
SUMMARY_WAIT: Final = 30.0
"""Seconds that the WAL summarizer may take to reach the backup's start."""
POLL: Final = 0.02
SUMMARIES_FROM: Final = 17


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What was decided, and why."""

    method: str
    """'full', 'rescan', 'lsn' or 'summaries'."""
    reason: str
    base: Manifest | None = None
    proof: str = ""
    changes: Changes | None = None
    avoid: frozenset[ObjectId] = field(default_factory=frozenset)
    """Packs whose pages are stored again."""
    awaited: tuple[Segment, ...] = ()
    """WAL of before this backup that the proof needs and that was not yet archived."""

    def files(self, relation_segment_blocks: int) -> BaseFiles | None:
        if self.base is None:
            return None
        how = How.LSN if self.method == "lsn" else How.HASH
        return BaseFiles(self.base, how, self.changes, relation_segment_blocks)

    def by_hash(self, why: str) -> Detection:
        """The same base, believed only where hashes say so."""
        return Detection("rescan", why, self.base, _HASH_PROOF, avoid=self.avoid)


_HASH_PROOF: Final = "the keyed hash of every page and file that was taken over"


@dataclass(frozen=True, slots=True)
class _Proof:
    """That the base is the server's own past; `refusal` says why nothing proves it."""

    text: str
    refusal: str = ""
    awaited: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class Detector:
    """What is needed to decide: the repository's side, the server's, and when the backup began."""

    cluster: Cluster
    archive: WalArchive
    facts: ServerFacts
    start: Lsn
    timeline: int
    lease: Lease
    """The backup's own: it comes to name the base."""
    clock: Clock
    announce: Announce

    def detect(self, mode: Mode) -> Detection:
        """Faults are those of the store, and lease-lost; a base that cannot be read is passed by."""
        if mode == "full":
            return Detection("full", "asked for")
        self.announce(Phase("base", "looking for the backup to build on"))
        while True:
            decided = self._decide(mode)
            if decided.base is None:
                return decided
            # A prune that did not see the lease has retired the base before this look, or condemns nothing of it.
            base = BackupId(decided.base.info.backup)
            self.lease.name_bases([base])
            if still_there(self.cluster, base):
                avoid = condemned_packs(self.cluster) | damaged_packs(self.cluster)
                return replace(decided, avoid=avoid | scattered_packs(decided.base.outer.packs))

    def _decide(self, mode: Mode) -> Detection:
        newest, refusal = self._newest()
        if newest is None:
            return Detection("full", refusal)
        if mode == "rescan":
            return Detection("rescan", "asked for", newest, _HASH_PROOF)
        base, refusal = self._ancestor()
        if base is None:
            return Detection("rescan", refusal, newest, _HASH_PROOF)
        proof = self._archive_proof(base)
        if proof.refusal:
            return Detection("rescan", proof.refusal, newest, _HASH_PROOF)
        reason = "asked for"
        if mode in ("auto", "summaries"):
            changes, reason = self._summaries(base)
            if changes is not None:
                checked = f"{proof.text}; the LSNs of all catalogs' pages and of one in a hundred others"
                return Detection("summaries", reason, base, checked, changes, awaited=proof.awaited)
        unfit = lsn_refusal(base.info, self.facts, self.timeline)
        if unfit is not None:
            why = unfit if mode == "lsn" else f"{reason}; {unfit}"
            return Detection("rescan", why, base, _HASH_PROOF)
        checked = f"{proof.text}; the LSN of every page that was taken over"
        return Detection("lsn", reason, base, checked, awaited=proof.awaited)

    # ---- which base

    def _manifests(self) -> Iterator[Manifest]:
        """Newest first, without those that cannot be read."""
        retired = retired_backups(self.cluster)
        for backup in reversed(backup_ids(self.cluster)):
            if backup in retired:
                continue
            try:
                yield read_manifest(self.cluster, backup)
            except Fault as fault:
                if fault.code not in ("format-damaged", "format-unsupported", "backup-unknown"):
                    raise

    def _newest(self) -> tuple[Manifest | None, str]:
        """The newest backup whose pages can be compared by hash, or why there is none."""
        refusal = "it is the first backup"
        for manifest in self._manifests():
            why = format_refusal(manifest.info, manifest.inner.server, self.facts)
            if why is None:
                return manifest, ""
            refusal = why
        return None, refusal

    def _ancestor(self) -> tuple[Manifest | None, str]:
        """The newest backup in this server's own past; else why the newest one is not."""
        try:
            history = self._history()
        except Fault as fault:
            if fault.code not in ("wal-missing", "format-damaged"):
                raise
            return None, f"the history of timeline {self.timeline} is not in the archive"
        refusal = ""
        for manifest in self._manifests():
            why = format_refusal(manifest.info, manifest.inner.server, self.facts) or ancestry_refusal(
                manifest.info, manifest.inner.server, self.facts, history, self.start
            )
            if why is None:
                return manifest, ""
            refusal = refusal or why
        return None, refusal

    def _history(self) -> History:
        text = read_history(self.archive, self.timeline, self._wal_directory)
        key = names.history(self.cluster.uuid, self.archive.system_id, self.timeline)
        return parse_history(self.timeline, text, key) if text else History(self.timeline)

    @property
    def _wal_directory(self) -> str:
        return os.path.join(self.facts.data_directory, "pg_wal")

    # ---- the proof

    def _archive_proof(self, base: Manifest) -> _Proof:
        """WAL from the base's start to this backup's is unbroken in the archive and equal to what the server has.

        What the server is about to archive is awaited and compared when the backup ends, with its own WAL.
        """
        size = self.archive.segment_size
        first, last = base.info.start_lsn // size, self.start // size - 1
        if last < first:
            return _Proof("no segment of WAL has been completed since the base")
        history = self._history()
        missing = [segment for gap in gaps(self.archive.listing(), history, first, last) for segment in gap.segments()]
        lost = next((segment for segment in missing if not self._is_coming(segment)), None)
        if lost is not None:
            return _Proof("", f"the WAL archive lacks {lost.name(size)}, so nothing proves what happened since")
        try:
            for segment in self._own(history, first, last, set(missing)):
                compare_with_server(self.archive, segment, self._wal_directory, self.clock)
        except Fault as fault:
            if fault.code != "wal-differs":
                raise
            self.announce(Warned("base-dropped", fault.message, fault.hint))
            return _Proof("", "the WAL archive is not this server's own")
        names_ = (Segment(history.segment_timeline(number, size), number).name(size) for number in (first, last))
        return _Proof(f"WAL archive unbroken from {' to '.join(names_)}", awaited=tuple(missing))

    def _is_coming(self, segment: Segment) -> bool:
        """The server waits to archive it, or has done so since the archive was listed."""
        name = segment.name(self.archive.segment_size)
        ready = os.path.join(self._wal_directory, "archive_status", f"{name}.ready")
        return os.path.exists(ready) or is_archived(self.archive, segment)

    def _own(self, history: History, first: int, last: int, but: Collection[Segment]) -> Sequence[Segment]:
        """The oldest and the newest of these segments that the server still has, but for some."""
        size = self.archive.segment_size
        own = []
        for name in os.listdir(self._wal_directory):
            try:
                segment = Segment.parse(name, size)
            except ValueError:
                continue
            right = first <= segment.number <= last and segment.timeline == history.segment_timeline(
                segment.number, size
            )
            if right and first <= segment.number <= last and segment not in but:
                own.append(segment)
        return sorted({min(own), max(own)}) if own else ()

    # ---- summaries

    def _summaries(self, base: Manifest) -> tuple[Changes | None, str]:
        """(changes, reason); no changes when summaries cannot be used, and why."""
        if self.facts.major < SUMMARIES_FROM:
            return None, f"PostgreSQL {self.facts.major} has no WAL summaries"
        if not self.facts.summarize_wal:
            return None, "summarize_wal is off"
        wanted = stretches(self._history(), Lsn(base.info.start_lsn), self.start)
        chosen, missing = self._cover(wanted)
        if missing is not None:
            return None, f"there is no WAL summary from {missing.start} on timeline {missing.timeline}"
        try:
            changes = read_changes(self._wal_directory, chosen)
        except Fault as fault:
            if fault.code not in ("summary-damaged", "io"):
                raise
            self.announce(Warned("summary-damaged", fault.message))
            return None, fault.message
        return changes, f"WAL summaries cover everything since backup {base.info.backup}"

    def _cover(self, wanted: Sequence[Stretch]) -> tuple[list[Summary], Stretch | None]:
        """The summarizer follows the checkpoint that began the backup after a moment: only the end is waited for."""
        deadline = self.clock.monotonic() + SUMMARY_WAIT
        while True:
            summaries = list_summaries(self._wal_directory)
            chosen, missing = cover(summaries, wanted)
            later = missing and any((one.timeline, one.end) > (missing.timeline, missing.start) for one in summaries)
            if missing is None or later or self.clock.monotonic() >= deadline:
                return chosen, missing
            self.clock.sleep(POLL)
