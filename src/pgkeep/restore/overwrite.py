"""A restore over what is there: the plan's part on it, and what is done before the first file is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pgkeep.repo.backups import Manifest
from pgkeep.restore import preflight
from pgkeep.restore.aside import move_aside
from pgkeep.restore.delta import DeltaJob, Differences, ReplaceJob, look
from pgkeep.restore.materialise import Job
from pgkeep.restore.plan import Caution, RestorePlan
from pgkeep.restore.preflight import Volume
from pgkeep.restore.present import (
    How,
    Overwriting,
    Present,
    PresentWal,
    check_movable,
    check_unused,
    moves,
    owned_targets,
    proof_of,
)

_JOBS: Final = {How.KEEP: Job, How.DELTA: DeltaJob, How.REPLACE: ReplaceJob}


def plan_over(
    plan: RestorePlan, present: Present, manifest: Manifest, *, stamp: str, wal: PresentWal | None = None
) -> RestorePlan:
    """The plan with what becomes of the present; `cluster-mismatch`, `target-in-use`, `target-unsafe`.

    `stamp` names what is kept, `wal` is what became of the WAL that had not been archived.
    """
    owned = owned_targets(present, plan.tablespaces)
    filled = [space.target for space in plan.tablespaces if space.target in owned and _holds_something(space.target)]
    if present.how is How.KEEP:
        moved = moves(present, filled, stamp)
        check_movable(moved)
        check_unused(filled)
        over = Overwriting(present.how, "", moved, None, wal)
        return replace(plan, over=over, warnings=(*plan.warnings, *_cautions(plan, present)))
    proof = proof_of(present, plan.backup.system_id, plan.backup.cluster_name)
    check_unused(filled)
    differences = look(manifest, plan.destination(), plan.overlays())
    cautions = [*_cautions(plan, present), *_in_place_cautions(plan, present, proof)]
    return replace(
        plan,
        over=Overwriting(present.how, proof, (), differences, wal),
        volumes=volumes_after(plan.volumes, differences),
        warnings=(*plan.warnings, *cautions),
    )


def _holds_something(path: str) -> bool:
    return os.path.isdir(path) and bool(os.listdir(path))


def volumes_after(volumes: Sequence[Volume], differences: Differences) -> tuple[Volume, ...]:
    """What is needed besides the room that the present takes already (pure)."""
    there = differences.removed_bytes + differences.compared_bytes
    return tuple(replace(volume, needed=max(0, volume.needed - there)) for volume in volumes)


def _cautions(plan: RestorePlan, present: Present) -> list[Caution]:
    found = []
    if present.has_pid_file:
        found.append(
            Caution(
                "postmaster-pid",
                f"{present.directory} holds postmaster.pid although no server of this machine runs there: it crashed,"
                " or it runs on another host or in another container that shares the directory",
                "make sure that no server runs there before you go on",
            )
        )
    for space in plan.tablespaces:
        place = present.links.get(space.oid, space.target)
        if place != space.target:
            found.append(
                Caution(
                    "tablespace-left",
                    f"tablespace {space.name} goes to {space.target}; {place}, which {present.directory} links now, is"
                    " left as it is",
                    f"to use that place: --tablespace-map {space.source}={place}",
                )
            )
    return found


def _in_place_cautions(plan: RestorePlan, present: Present, proof: str) -> list[Caution]:
    found = []
    if not proof:
        found.append(
            Caution(
                "cluster-unproven",
                f"nothing in {present.directory} proves that it is of the cluster {plan.backup.cluster_name}: it has"
                " no readable pg_control, no mark of a restore and no WAL",
                "go on only if you are sure of it",
            )
        )
    wal = os.path.join(present.directory, "pg_wal")
    if os.path.islink(wal):
        found.append(
            Caution(
                "wal-link",
                f"{wal} is a link to {os.path.realpath(wal)}: it becomes a directory, and what the link names is left",
                "move pg_wal back before the server starts, if it is to lie there",
            )
        )
    return found


def begin(plan: RestorePlan) -> type[Job]:
    """The last looks, and the renames; then the Job that writes.  `target-in-use`, `target-not-empty`, io."""
    if plan.over is None:
        preflight.check_directory(plan.directory)
        preflight.check_tablespaces(plan.tablespaces)
        return Job
    preflight.check_stopped(plan.directory)
    check_unused(plan.destination().roots())
    move_aside(plan.over.moved)
    return _JOBS[plan.over.how]
