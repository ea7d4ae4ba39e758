"""verify: every object of every backup and all WAL read and re-hashed, and WAL continuity against each backup's needs.

1. Nothing is believed but bytes: sizes and names of a listing prove nothing.
2. A damaged object is a finding; the next one is checked.  An unreachable store ends the run: no answer is no "sound".
3. Each pack is read once, however many backups use it; each finding names the backups that it costs.
4. The work fans out over a `concurrent.futures.Executor`, whatever is behind it: tasks and answers pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pgkeep.catalog.continuity import Gap, gaps, needs_gaps, newest
from pgkeep.catalog.timelines import continues, read_timelines
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Progress, Warned
from pgkeep.format import names
from pgkeep.format.header import ObjectType
from pgkeep.format.manifest import PackRef
from pgkeep.format.objects import IncarnationInfo
from pgkeep.format.tail import FooterPlace
from pgkeep.repo.backups import Manifest, backup_ids, read_manifest
from pgkeep.repo.check import (
    Checked,
    RepositoryAddress,
    check_manifest,
    check_pack,
    check_wal,
    is_damage,
)
from pgkeep.repo.checkdump import check_dump
from pgkeep.repo.deleting import damaged_packs, mark_damaged, unmark_damaged
from pgkeep.repo.dumps import dump_ids
from pgkeep.repo.keeping import kept
from pgkeep.repo.repository import Cluster, damaged_incarnations
from pgkeep.repo.roots import open_any, root_ids
from pgkeep.repo.walarchive import Listing, WalArchive
from pgkeep.repo.walstock import read_pruned
from pgkeep.values.ids import BackupId, ClusterUuid, DumpId, ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment, history_name

WAL_BATCH: Final = 8
"""WAL objects of one task: a segment alone is too little work to hand to another process."""
AHEAD: Final = 64
"""Tasks that wait in the executor at most, so that memory does not grow with the repository."""


@dataclass(frozen=True, slots=True)
class BackupVerdict:
    """What was found for one backup, or one dump; it is sound when there are no problems."""

    backup: str
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found; `bytes` were read from the store."""

    backups: tuple[BackupVerdict, ...]
    wal_problems: tuple[str, ...]
    cluster_problems: tuple[str, ...]
    """Incarnations of any cluster of the repository that cannot be read."""
    packs: int
    wal_objects: int
    bytes: int
    seconds: float
    dumps: tuple[BackupVerdict, ...] = ()

    @property
    def is_sound(self) -> bool:
        if self.wal_problems or self.cluster_problems:
            return False
        return all(verdict.is_sound for verdict in (*self.backups, *self.dumps))


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """How another process opens the same cluster (picklable)."""

    repository: RepositoryAddress
    uuid: ClusterUuid
    incarnations: tuple[IncarnationInfo, ...]

    @classmethod
    def of(cls, cluster: Cluster) -> ClusterAddress:
        return cls(RepositoryAddress.of(cluster.repository), cluster.uuid, cluster.incarnations)

    def open(self) -> Cluster:
        return Cluster(self.repository.open(), self.uuid, self.incarnations)


@dataclass(frozen=True, slots=True)
class _PackTask:
    address: ClusterAddress
    pack: ObjectId
    place: FooterPlace

    def run(self) -> list[Checked]:
        cluster = self.address.open()
        return [check_pack(cluster.repository, cluster.uuid, self.pack, self.place)]


@dataclass(frozen=True, slots=True)
class _WalTask:
    address: ClusterAddress
    system_id: int
    segment_size: int
    objects: tuple[tuple[str, ObjectType], ...]

    def run(self) -> list[Checked]:
        archive = WalArchive(self.address.open(), self.system_id, self.segment_size)
        return [check_wal(archive, key, type_) for key, type_ in self.objects]


@dataclass(frozen=True, slots=True)
class _ManifestTask:
    """All of one manifest."""

    address: ClusterAddress
    backup: BackupId

    def run(self) -> list[Checked]:
        cluster = self.address.open()
        try:
            manifest = read_manifest(cluster, self.backup)
        except Fault as fault:
            if not is_damage(fault):
                raise
            return []  # reported by the reader of all manifests
        return [Checked(manifest.key, 0, tuple(check_manifest(cluster, manifest)))]


@dataclass(frozen=True, slots=True)
class _DumpTask:
    """All of one dump's manifest."""

    address: ClusterAddress
    dump: DumpId

    def run(self) -> list[Checked]:
        cluster = self.address.open()
        return [Checked(names.dump(cluster.uuid, self.dump), 0, tuple(check_dump(cluster, self.dump)))]


_Task = _PackTask | _WalTask | _ManifestTask | _DumpTask


def _run(task: _Task) -> list[Checked]:
    return task.run()


@dataclass(slots=True)
class _Findings:
    """Problems by object, collected while the tasks come back."""

    damage: dict[str, list[str]] = field(default_factory=dict)
    unreadable: dict[BackupId, str] = field(default_factory=dict)
    unreadable_dumps: dict[DumpId, str] = field(default_factory=dict)
    packs: int = 0
    wal_objects: int = 0
    bytes: int = 0

    def add(self, checked: Checked) -> None:
        self.bytes += checked.bytes
        for found in checked.damage:
            self.damage.setdefault(checked.key, []).append(found.problem)


Probe = Callable[[Cluster, DumpId], tuple[str, ...]]
"""Why a dump whose bytes are sound could not be loaded; () when nothing speaks against it."""


def verify(
    cluster: Cluster, executor: Executor, clock: Clock, announce: Announce, probe: Probe = lambda *_: ()
) -> VerifyReport:
    """Read everything.  Damage is in the report; faults are those of the store (store-unreachable ...).

    Damaged packs are marked, so that no backup inherits from them; marks of sound ones go.
    """
    with kept(cluster, clock, announce, purpose="verify", bases=root_ids(cluster)):
        return _verify(cluster, executor, clock, announce, probe)


def _verify(
    cluster: Cluster, executor: Executor, clock: Clock, announce: Announce, probe: Probe
) -> VerifyReport:  # fmt: skip
    began = clock.monotonic()
    announce(Phase("manifests", "reading the manifests"))
    findings = _Findings()
    damaged = damaged_incarnations(cluster.repository)
    manifests = _manifests(cluster, findings)
    dumps = _dumps(cluster, findings)
    archives = [WalArchive(cluster, info.system_id, info.wal_segment_size) for info in cluster.incarnations]
    tasks = list(_tasks(cluster, manifests, dumps, archives, findings))
    announce(Phase("objects", f"re-hashing {findings.packs} packs and {findings.wal_objects} WAL objects"))
    for done, answer in enumerate(_fan_out(executor, tasks), 1):
        for checked in answer:
            findings.add(checked)
        announce(Progress(done, len(tasks), findings.bytes, "objects"))
    named = [pack for manifest in manifests.values() for pack in manifest.outer.packs]
    named += [pack for packs in dumps.values() for pack in packs]
    _mark(cluster, named, findings, clock, announce)
    listed = [(archive, archive.listing()) for archive in archives]
    wal = tuple(problem for pair in listed for problem in _wal_problems(*pair, manifests, findings))
    # Only what was read: a backup that came meanwhile is the next run's.
    read = sorted({*manifests, *findings.unreadable})
    verdicts = tuple(_verdict(backup, manifests.get(backup), listed, findings) for backup in read)
    seconds = clock.monotonic() - began
    problems = tuple(f"{one.fault.message}; what belongs to it is out of reach" for one in damaged)
    return VerifyReport(
        verdicts, wal, problems, findings.packs, findings.wal_objects, findings.bytes, seconds,
        tuple(_dump_verdict(cluster, dump, packs, findings, probe) for dump, packs in dumps.items()),
    )  # fmt: skip


def _mark(cluster: Cluster, named: Iterable[PackRef], findings: _Findings, clock: Clock, announce: Announce) -> None:
    """Remember which packs are damaged.  A repository that cannot be written is verified all the same."""
    packs = {pack.id for pack in named}
    damaged = {pack: found for pack in packs if (found := findings.damage.get(names.pack(cluster.uuid, pack)))}
    try:
        for pack in damaged_packs(cluster) & packs - damaged.keys():
            unmark_damaged(cluster, pack)
        for pack, problems in damaged.items():
            mark_damaged(cluster, pack, problems[0], clock)
    except Fault as fault:
        text = f"it cannot be remembered which packs are damaged ({fault.message})"
        announce(Warned("mark-unwritten", text, "back up in full until they are replaced, and verify again"))


def _manifests(cluster: Cluster, findings: _Findings) -> dict[BackupId, Manifest]:
    manifests: dict[BackupId, Manifest] = {}
    for backup in backup_ids(cluster):
        try:
            manifests[backup] = read_manifest(cluster, backup)
        except Fault as fault:
            if not is_damage(fault):
                raise
            findings.unreadable[backup] = fault.message
    return manifests


def _dumps(cluster: Cluster, findings: _Findings) -> dict[DumpId, list[PackRef]]:
    """The pack tables of all dumps; of one that cannot be read nothing but the finding."""
    found: dict[DumpId, list[PackRef]] = {}
    for dump in dump_ids(cluster):
        try:
            found[dump] = open_any(cluster, dump).all_packs()
        except Fault as fault:
            if not is_damage(fault):
                raise
            if fault.code != "object-missing":  # deleted since it was listed
                found[dump] = []
                findings.unreadable_dumps[dump] = fault.message
    return found


def _tasks(
    cluster: Cluster, manifests: Mapping[BackupId, Manifest], dumps: Mapping[DumpId, Sequence[PackRef]],
    archives: Sequence[WalArchive], findings: _Findings,
) -> Iterator[_Task]:  # fmt: skip
    address = ClusterAddress.of(cluster)
    packs = {pack.id: pack.footer for manifest in manifests.values() for pack in manifest.outer.packs}
    packs |= {pack.id: pack.footer for named in dumps.values() for pack in named}
    findings.packs = len(packs)
    for pack, place in packs.items():
        yield _PackTask(address, pack, place)
    for backup in manifests:
        yield _ManifestTask(address, backup)
    for dump in dumps.keys() - findings.unreadable_dumps.keys():
        yield _DumpTask(address, dump)
    for archive in archives:
        objects = archive.objects()
        while batch := tuple(islice(objects, WAL_BATCH)):
            findings.wal_objects += len(batch)
            yield _WalTask(address, archive.system_id, archive.segment_size, batch)


def _fan_out(executor: Executor, tasks: Iterable[_Task]) -> Iterator[list[Checked]]:
    """Answers as they come; the first fault ends it."""
    source = iter(tasks)
    waiting: set[Future[list[Checked]]] = set()
    try:
        waiting |= {executor.submit(_run, task) for task in islice(source, AHEAD)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting |= {executor.submit(_run, task) for task in islice(source, len(done))}
            for future in done:
                yield future.result()
    except BrokenExecutor as error:
        raise Fault(
            "worker-died",
            f"a worker process ended unexpectedly ({error})",
            hint="look for an out-of-memory kill in the system's log, then run the command again",
        ) from error
    finally:
        for future in waiting:
            future.cancel()


def _verdict(
    backup: BackupId,
    manifest: Manifest | None,
    archives: Sequence[tuple[WalArchive, Listing]],
    findings: _Findings,
) -> BackupVerdict:
    if manifest is None:
        return BackupVerdict(backup, (findings.unreadable[backup],))
    problems = list(findings.damage.get(manifest.key, ()))
    for pack in manifest.outer.packs:
        problems += findings.damage.get(names.pack(ClusterUuid(manifest.info.cluster), pack.id), ())
    for archive, listing in archives:
        if archive.system_id == manifest.info.system_id:
            problems += _wal_of_backup(archive, listing, manifest, findings)
    return BackupVerdict(backup, tuple(dict.fromkeys(problems)))


def _dump_verdict(
    cluster: Cluster, dump: DumpId, packs: Iterable[PackRef], findings: _Findings, probe: Probe
) -> BackupVerdict:
    problems = [findings.unreadable_dumps[dump]] if dump in findings.unreadable_dumps else []
    problems += findings.damage.get(names.dump(cluster.uuid, dump), ())
    for pack in packs:
        problems += findings.damage.get(names.pack(cluster.uuid, pack.id), ())
    return BackupVerdict(dump, tuple(dict.fromkeys(problems)) or probe(cluster, dump))


def _wal_of_backup(archive: WalArchive, listing: Listing, manifest: Manifest, findings: _Findings) -> Iterator[str]:
    """What its own WAL lacks to make the backup consistent."""
    size = archive.segment_size
    timeline = manifest.info.timeline
    if manifest.inner.wal.history:
        # Recovery on a timeline whose history it cannot get does not begin (validateRecoveryParameters).
        if timeline not in listing.timelines_with_history:
            yield f"the history of its timeline is missing from the archive: {history_name(timeline)}"
        elif archive.key(history_name(timeline)) in findings.damage:
            yield f"the history of its timeline is damaged: {history_name(timeline)}"
    for gap in needs_gaps(listing, manifest.inner.wal):
        yield f"the WAL that makes it consistent is missing: {gap.describe(size)}"
    for needed in manifest.inner.wal.ranges:
        for number in range(needed.first, needed.last + 1):
            name = Segment(needed.timeline, number).name(size)
            if archive.key(name) in findings.damage:
                yield f"the WAL that makes it consistent is damaged: {name}"


def _wal_problems(
    archive: WalArchive, listing: Listing, manifests: Mapping[BackupId, Manifest], findings: _Findings
) -> Iterator[str]:
    """Damaged WAL objects and claims, and gaps from the oldest backup's start to the newest segment of each lineage.

    What a prune took out is no gap; what a backup needs of it is reported with the backup.
    """
    prefix = names.wal_root(archive.cluster.uuid, archive.system_id)
    for key, problems in findings.damage.items():
        if key.startswith(prefix):
            yield from problems
    for timeline in archive.timelines():
        try:
            archive.claim(timeline)
        except Fault as fault:
            if not is_damage(fault):
                raise
            yield f"{fault.message}; no server can archive on timeline {timeline} while it is so"
    infos = [m.info for m in manifests.values() if m.info.system_id == archive.system_id]
    reported: set[Gap] = set()
    for history in read_timelines(archive, listing).histories.values():
        starts = [info.start_lsn for info in infos if continues(history, info.timeline, Lsn(info.stop_lsn))]
        last = newest(listing, history)
        if not starts or last is None:
            continue
        for gap in _lost(archive, gaps(listing, history, min(starts) // archive.segment_size, last.number)):
            if gap not in reported:
                reported.add(gap)
                yield f"WAL is missing: {gap.describe(archive.segment_size)}; no recovery can pass it"


def _lost(archive: WalArchive, missing: Iterable[Gap]) -> Iterator[Gap]:
    """The parts of gaps that no prune took out."""
    pruned = read_pruned(archive.cluster)
    for gap in missing:
        for first, last in pruned.lost(archive.system_id, gap.timeline, gap.first, gap.last):
            yield Gap(gap.timeline, first, last)
