"""What stands where a restore is to go: whose it is, and what may be done with it.

1. A data directory on which a server runs, or whose files another running server uses, is never touched.
2. What is no data directory is refused: nothing of the user's is emptied by mistake (`preflight`).
3. Otherwise the user has said how: it is kept under another name, brought to the backup's state in place (delta), or
   removed (replace).  The last two need the same cluster: pg_control's system identifier decides; without a readable
   one, the mark of an interrupted restore, the lineage that a restore wrote, or the headers of its WAL.
4. A tablespace's directory goes with the data directory that links it, or whose name it bears; any other one that is
   not empty is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pgkeep.errors import Fault
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.running import RunningServers, running_servers, tablespaces_in_use
from pgkeep.pg.walfile import LONG_HEADER_SIZE, parse_header
from pgkeep.restore import preflight
from pgkeep.restore.delta import Differences
from pgkeep.restore.mark import UNFINISHED, is_unfinished, read_mark
from pgkeep.restore.tablespaces import MappedTablespace, default_target
from pgkeep.values.recovery import FILE_NAME, RecoveryLineage
from pgkeep.values.wal import WalFileKind, wal_file_kind

_SIGNS: Final = ("PG_VERSION", "base", "global", "pg_wal", "pg_xact", "postgresql.auto.conf")
_ENOUGH_SIGNS: Final = 3


class How(Enum):
    """What becomes of the data directory that is there."""

    KEEP = "keep"
    DELTA = "delta"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A system identifier that was found in the directory, and in what."""

    system_id: int
    where: str


@dataclass(frozen=True, slots=True)
class Present:
    """A data directory that is there and on which no server runs; `directory` is absolute, its links resolved."""

    directory: str
    how: How
    evidence: tuple[Evidence, ...]
    """The best there is: several that may disagree only where nothing better is."""
    links: Mapping[int, str]
    """Where its tablespaces lie (resolved), by OID."""
    unfinished: bool
    """A restore was interrupted here: its WAL was saved before that."""
    has_pid_file: bool


@dataclass(frozen=True, slots=True)
class PresentWal:
    """What becomes of the WAL that the dead server had not archived: names of files, by what was done with them.

    `waiting` is pushed when the restore is carried out, `pushed` the archive holds, `kept` lies in `where` because of
    `why`.
    """

    waiting: tuple[str, ...] = ()
    pushed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    where: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Overwriting:
    """The plan's part on what is there; `moved` are (from, to), `differences` what a delta or replacement meets."""

    how: How
    proof: str
    """What proves that it is the same cluster; '' when nothing does."""
    moved: tuple[tuple[str, str], ...] = ()
    differences: Differences | None = None
    wal: PresentWal | None = None


def look_at(directory: str, how: How) -> Present | None:
    """None for a directory that is absent or empty; `target-in-use`, `target-not-empty`, `target-unsafe`.

    `directory` is `preflight.resolve_directory`'s.
    """
    if not os.path.isdir(directory) or not os.listdir(directory) or not _is_data_directory(directory):
        preflight.check_directory(directory)
        return None
    preflight.check_stopped(directory)
    check_unused([directory])
    unfinished = is_unfinished(directory)
    if unfinished and how is How.KEEP:
        preflight.check_directory(directory)  # half a copy is not worth keeping: the refusal says what it is
    return Present(
        directory=directory,
        how=how,
        evidence=tuple(_evidence(directory)),
        links=_links(directory),
        unfinished=unfinished,
        has_pid_file=os.path.lexists(os.path.join(directory, "postmaster.pid")),
    )


def _is_data_directory(directory: str) -> bool:
    signs = [name for name in _SIGNS if os.path.lexists(os.path.join(directory, name))]
    return len(signs) >= _ENOUGH_SIGNS or os.path.lexists(os.path.join(directory, os.fsdecode(UNFINISHED)))


def check_unused(paths: Iterable[str], servers: RunningServers | None = None) -> None:
    """`target-in-use` when a running server's data directory or tablespace is, or lies within, one of the paths.

    `target-unsafe` when servers run that may not be looked at, and one of them could use it.
    """
    running = servers or running_servers()
    used = {**{each: each for each in running.directories}, **tablespaces_in_use(running)}
    for path in (os.path.realpath(each) for each in paths):
        for place, server in used.items():
            if f"{place}/".startswith(f"{path}/"):
                raise Fault(
                    "target-in-use",
                    f"the running server on {server} uses {place}, which this restore would rewrite",
                    hint="stop that server first, or restore into another directory",
                    path=place,
                )
        if running.unseen and not preflight.is_own(path):
            raise Fault(
                "target-unsafe",
                f"{running.unseen} server processes cannot be looked at: one of them may use {path}",
                hint="run pgkeep as root or as the servers' account",
                path=path,
            )


def _evidence(directory: str) -> Iterator[Evidence]:
    try:
        yield Evidence(read_control(os.path.join(directory, CONTROL_FILE)).system_identifier, "pg_control")
        return
    except Fault:
        pass  # absent or damaged: what else there is has to do
    if (mark := read_mark(directory)) is not None:
        yield Evidence(mark.system_id, "the mark of an interrupted restore")
        return
    try:
        with open(os.path.join(directory, FILE_NAME), encoding="utf-8") as file:
            yield Evidence(RecoveryLineage.decode(file.read()).system_id, FILE_NAME)
        return
    except (OSError, ValueError):
        pass
    yield from _evidence_of_wal(os.path.join(directory, "pg_wal"))


def _evidence_of_wal(folder: str) -> Iterator[Evidence]:
    found: dict[int, str] = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if wal_file_kind(name) is WalFileKind.SEGMENT:
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    found.setdefault(parse_header(file.read(LONG_HEADER_SIZE)).system_identifier, name)
            except (OSError, Fault):
                continue
    for system_id, name in found.items():
        yield Evidence(system_id, f"its WAL ({name})")


def _links(directory: str) -> dict[int, str]:
    folder = os.path.join(directory, "pg_tblspc")
    if os.path.islink(folder) or not os.path.isdir(folder):
        return {}
    links = [name for name in os.listdir(folder) if name.isdecimal() and os.path.islink(os.path.join(folder, name))]
    return {int(name): os.path.realpath(os.path.join(folder, name)) for name in links}


def proof_of(present: Present, system_id: int, cluster: str) -> str:
    """What proves that the directory is of the cluster `system_id` ('': nothing does); `cluster-mismatch` (pure)."""
    for each in present.evidence:
        if each.system_id != system_id:
            raise Fault(
                "cluster-mismatch",
                f"{present.directory} belongs to the cluster with system identifier {each.system_id} (says"
                f" {each.where}), expected {system_id}, of {cluster}",
                hint="name another directory, or rename this one: it is not replaced by another cluster's backup",
                path=present.directory,
            )
    return present.evidence[0].where if present.evidence else ""


def in_place_mappings(
    present: Present, spaces: Mapping[int, str], home: str, asked: Mapping[str, str]
) -> dict[str, str]:
    """The tablespaces that a delta rewrites where they are: those of the very directory that was backed up (pure).

    `spaces` are the original paths by OID, `home` the data directory that was backed up, `asked` the user's mappings.
    A copy of that directory links the original's tablespaces too: there, they are left alone.
    """
    if present.directory != os.path.normpath(home):
        return dict(asked)
    stays = {source: source for oid, source in spaces.items() if present.links.get(oid) == source}
    return {**stays, **asked}


def owned_targets(present: Present, spaces: Iterable[MappedTablespace]) -> frozenset[str]:
    """The targets whose contents belong to the directory: it links them, or they bear its name, or it lost its link
    and the user named the place (pure)."""
    return frozenset(
        space.target
        for space in spaces
        if present.links.get(space.oid) == space.target
        or space.target == default_target(present.directory, space.oid)
        or (space.explicit and space.oid not in present.links)
    )


def moves(present: Present, filled: Iterable[str], stamp: str) -> tuple[tuple[str, str], ...]:
    """What is renamed to be kept: the directory, and the tablespaces' targets that are not empty (pure)."""
    return tuple((path, f"{path}.before-{stamp}") for path in (present.directory, *filled))


def check_movable(moved: Iterable[tuple[str, str]]) -> None:
    """`target-unsafe` when one of them cannot be renamed."""
    for path, to in moved:
        why = ""
        if os.path.ismount(path):
            why = "it is a mount point"
        elif not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            why = f"{os.path.dirname(path)} is not writable for this account"
        elif os.path.lexists(to):
            why = f"{to} is there already"
        if why:
            raise Fault(
                "target-unsafe",
                f"{path} cannot be kept as {to}: {why}",
                hint="rewrite it in place with --delta, empty it first with --replace, or restore elsewhere",
                path=path,
            )


def over_json(over: Overwriting) -> dict[str, Any]:
    """The shape of the plan's `over` (docs/json.md)."""
    found, wal = over.differences, over.wal
    return {
        "how": over.how.value,
        "proof": over.proof or None,
        "moved": [{"from": path, "to": to} for path, to in over.moved],
        "differences": {
            "removed": found.removed,
            "removed_bytes": found.removed_bytes,
            "removed_paths": list(found.removed_paths),
            "missing": found.missing,
            "missing_bytes": found.missing_bytes,
            "compared": found.compared,
            "compared_bytes": found.compared_bytes,
        }
        if found is not None
        else None,
        "wal": {
            "waiting": list(wal.waiting),
            "pushed": list(wal.pushed),
            "kept": list(wal.kept),
            "where": wal.where or None,
            "why": wal.why or None,
        }
        if wal is not None
        else None,
    }
