"""RestorePlan: everything that a restore will do, before it does it (pure).

What was looked up (the backup, the archive, this machine) comes in as values; what is printed, confirmed, tested and
carried out is this one frozen value.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

from pgkeep.catalog.backups import stopped_at
from pgkeep.catalog.continuity import spans
from pgkeep.format.manifest import Collation, Inner, ManifestInfo, PackRef
from pgkeep.pg.account import Account
from pgkeep.pg.programs import Programs
from pgkeep.pg.waldump import TransactionEnd
from pgkeep.restore.choice import Candidate, Choice
from pgkeep.restore.materialise import Destination, Overlay
from pgkeep.restore.moment import in_zone, show_moment
from pgkeep.restore.preflight import Volume
from pgkeep.restore.present import Overwriting, over_json
from pgkeep.restore.settings import Action, ConfigurationPlan, Place, Settings
from pgkeep.restore.standby import Standby
from pgkeep.restore.stops import Stop, distance
from pgkeep.restore.survey import Survey
from pgkeep.restore.tablespaces import MappedTablespace
from pgkeep.restore.target import Target, TargetKind
from pgkeep.restore.tree import Owner
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import FILE_NAME, RecoveryLineage
from pgkeep.values.wal import History, Segment, history_name

_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Caution:
    """Something to know before it is done; `code` is permanent."""

    code: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class WalToReplay:
    """The segments that recovery reads: names of the first and last, how many, and bytes at most."""

    first: str
    last: str
    segments: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """See the module's docstring.  Sizes in bytes."""

    directory: str
    target: Target
    """As it was asked for."""
    stop: Stop
    """Where recovery will stop, and what the server is told."""
    action: Action
    backup: ManifestInfo
    timeline: int
    history: History
    lineage: RecoveryLineage
    files: int
    write_bytes: int
    read_bytes: int
    """Stored bytes of the packs' live parts, about."""
    wal: WalToReplay
    tablespaces: tuple[MappedTablespace, ...]
    volumes: tuple[Volume, ...]
    place: Place
    configuration: ConfigurationPlan
    programs: Programs
    account: Account
    mode: int
    """Permission bits of the data directory."""
    zone: str
    """The server's time zone, for showing times."""
    warnings: tuple[Caution, ...]
    over: Overwriting | None = None
    """What becomes of the data directory that is there."""
    standby: Standby | None = None

    @property
    def settings(self) -> Settings:
        """What is written at the end of postgresql.auto.conf."""
        return self.configuration.written

    def destination(self) -> Destination:
        """For `materialise`."""
        owner = None if self.account.is_self else Owner(self.account.uid, self.account.gid)
        return Destination(self.directory, {s.oid: s.target for s in self.tablespaces}, owner, self.mode)

    def overlays(self) -> list[Overlay]:
        """The files that are written instead of the backup's, the lineage for `wal get` among them."""
        files = [
            Overlay(os.fsencode(path), None if text is None else text.encode("utf-8", "surrogateescape"))
            for path, text in self.configuration.files.items()
        ]
        return [*files, Overlay(FILE_NAME.encode(), self.lineage.encode().encode())]

    def as_json(self) -> dict[str, Any]:
        """The shape of `--dry-run --json` (docs/json.md): LSNs and times as text, sizes in bytes."""
        return {
            "directory": self.directory,
            "backup": {
                "id": self.backup.backup,
                "stopped": self.backup.stopped,
                "start_lsn": str(Lsn(self.backup.start_lsn)),
                "stop_lsn": str(Lsn(self.backup.stop_lsn)),
                "server_version": self.backup.server_version,
            },
            "target": _target_json(self.target),
            "stop": _stop_json(self.stop, self.target),
            "action": self.action.value,
            "timeline": self.timeline,
            "history": [{"timeline": s.timeline, "left_at": str(s.lsn)} for s in self.history.switches],
            "files": self.files,
            "write_bytes": self.write_bytes,
            "read_bytes": self.read_bytes,
            "wal": {
                "first": self.wal.first,
                "last": self.wal.last,
                "segments": self.wal.segments,
                "bytes": self.wal.bytes,
            },
            "tablespaces": [{"oid": s.oid, "name": s.name, "from": s.source, "to": s.target} for s in self.tablespaces],
            "space": [{"path": v.path, "needed": v.needed, "free": v.free} for v in self.volumes],
            "account": self.account.name,
            "programs": {"version": self.programs.version, "directory": str(self.programs.bindir)},
            "port": self.place.port,
            "socket_directory": self.place.socket_directory,
            "settings": [{"name": name, "value": value} for name, value in self.settings],
            "over": over_json(self.over) if self.over is not None else None,
            "standby": {"slot": self.standby.slot or None} if self.standby is not None else None,
            "warnings": [{"code": w.code, "text": w.text, "hint": w.hint or None} for w in self.warnings],
        }


def _target_json(target: Target) -> dict[str, Any]:
    value = {
        TargetKind.TIME: target.time and show_moment(target.time),
        TargetKind.LSN: target.lsn is not None and str(target.lsn),
        TargetKind.XID: target.xid,
        TargetKind.NAME: target.name,
    }.get(target.kind)
    return {"kind": target.kind.value, "value": value, "inclusive": target.inclusive, "timeline": target.timeline}


def _stop_json(stop: Stop, target: Target) -> dict[str, Any]:
    return {
        "told": _target_json(stop.recover_to),
        "lsn": str(stop.position) if stop.position is not None else None,
        "previous": _transaction_json(stop.previous, target),
        "last": _transaction_json(stop.last, target),
        "next": _transaction_json(stop.next, target),
    }


def _transaction_json(end: TransactionEnd | None, target: Target) -> dict[str, Any] | None:
    if end is None:
        return None
    far = distance(end, target)
    return {
        "xid": end.xid,
        "lsn": str(end.lsn),
        "time": end.time.isoformat(),
        "committed": end.committed,
        "seconds_from_target": far.seconds,
        "bytes_from_target": far.bytes,
    }


def show_in(zone: str, moment: datetime) -> str:
    """A moment in the server's own zone."""
    return show_moment(in_zone(moment, zone))


def wal_to_replay(candidate: Candidate, choice: Choice, stop: Stop) -> WalToReplay:
    """From the segment of the backup's start to the one of the stop, or to the end of the reach."""
    size, reached = choice.size, candidate.reach
    last = reached.last + (reached.partial is not None)
    if stop.position is not None:
        end = stop.last.end if stop.last is not None and stop.last.lsn == stop.position else stop.position
        last = min(last, end // size)
    first = candidate.start // size
    named = [segment for span in spans(choice.history, size, first, last) for segment in (span.first, span.last)]
    count = named[-1] - named[0] + 1
    return WalToReplay(_name(choice, named[0]), _name(choice, named[-1]), count, count * size)


def _name(choice: Choice, number: int) -> str:
    return Segment(choice.history.segment_timeline(number, choice.size), number).name(choice.size)


def live_bytes(packs: Iterable[PackRef]) -> int:
    """Stored bytes that a restore reads: of each pack the part that its live frames are, by number."""
    total = 0
    for pack in packs:
        live = int(np.unpackbits(np.frombuffer(pack.live, np.uint8)).sum())
        total += pack.footer.offset * live // max(pack.frames, 1)
    return total


def directory_mode(modes: Iterable[int]) -> int:
    """0700, or 0750 where the cluster allows its group to read (initdb --allow-group-access)."""
    return 0o750 if any(mode & 0o050 for mode in modes) else 0o700


def gather_warnings(
    inner: Inner,
    candidate: Candidate,
    choice: Choice,
    surveyed: Survey,
    configuration: ConfigurationPlan,
    *,
    stop: Stop,
    missing_libraries: Sequence[str],
    library_version: str,
    unmade: Sequence[str],
) -> tuple[Caution, ...]:
    """Everything that does not forbid the restore but should be read first."""
    found = [Caution("target", text) for text in stop.warnings]
    if unmade:
        found.append(
            Caution(
                "tablespace-replay",
                f"the WAL to be replayed creates tablespaces in {', '.join(unmade)}, which this host does not have:"
                " recovery will stop there",
                "make these directories, empty and owned by the server's account, before it starts: "
                + "; ".join(shlex.join(["mkdir", "-p", path]) for path in unmade),
            )
        )
    found += [Caution("configuration", text) for text in (*surveyed.warnings, *configuration.warnings)]
    found += _other_warnings(inner, candidate, choice)
    if missing_libraries:
        found.append(
            Caution(
                "preload-missing",
                f"shared_preload_libraries names {', '.join(missing_libraries)}, which this installation lacks: the"
                " server will not start",
                "install the extensions' packages",
            )
        )
    found += _collation_warnings(inner.collations, library_version)
    return tuple(found)


def _other_warnings(inner: Inner, candidate: Candidate, choice: Choice) -> list[Caution]:
    found = []
    if choice.others:
        numbers = ", ".join(map(str, choice.others))
        found.append(
            Caution(
                "timeline-branches",
                f"timeline {choice.history.timeline} is followed, the newest; timelines {numbers} hold other WAL",
                "name the one that you mean with --timeline",
            )
        )
    if choice.without_history:
        numbers = ", ".join(map(str, choice.without_history))
        found.append(
            Caution(
                "history-missing",
                f"timelines {numbers} have WAL, but their history files are missing or damaged: whether they continue"
                f" timeline {choice.history.timeline} is not known, and they are not followed",
                "archive them from a server that has them, in its data directory: pgkeep wal push pg_wal/"
                + history_name(choice.without_history[0]),
            )
        )
    bad = sum(len(file.blocks) for file in inner.bad_pages)
    if bad:
        names = ", ".join(os.fsdecode(file.path) for file in inner.bad_pages[:_SHOWN])
        found.append(Caution("bad-pages", f"{bad} pages were damaged on the source already, in {names}"))
    if candidate.reach.end <= (candidate.stop - 1) // choice.size * choice.size + choice.size:
        found.append(
            Caution(
                "no-archive", "the archive holds no WAL behind this backup: nothing later can be recovered",
                f"the backup ended at {show_moment(stopped_at(candidate.info))}",
            )
        )  # fmt: skip
    return found


def _collation_warnings(collations: Sequence[Collation], library_version: str) -> list[Caution]:
    """libc alone: ICU's versions can only be asked of the started server."""
    libc = sorted({c.version for c in collations if c.provider in ("c", "libc") and c.version})
    differing = [version for version in libc if library_version and version != library_version]
    if not differing:
        return []
    return [
        Caution(
            "collation-version",
            f"indexes on text were sorted by glibc {', '.join(differing)}, this host has {library_version}",
            "REINDEX what sorts by text after the restore, then ALTER DATABASE ... REFRESH COLLATION VERSION",
        )
    ]
