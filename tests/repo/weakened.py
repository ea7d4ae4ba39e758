"""The protocol of deletion with one rule taken out: each must lose something (test_protocol.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from pgkeep.repo import backups, census, deleting, roots, sweep
from pgkeep.repo.lease import Lease
from pgkeep.repo.repository import Cluster
from pgkeep.values.ids import BackupId
from tests.repo import protocol

Patch = Callable[[pytest.MonkeyPatch], None]


def no_lease_check(patch: pytest.MonkeyPatch) -> None:
    """A writer that was stopped goes on when it wakes up."""
    patch.setattr(Lease, "check", lambda _self: None)


def leases_ignored(patch: pytest.MonkeyPatch) -> None:
    """A sweep takes the packs of running backups for garbage, and a retire takes what is read."""
    patch.setattr(sweep, "seen_leases", lambda _cluster: [], raising=False)
    patch.setattr(census, "seen_leases", lambda _cluster: [])
    patch.setattr(deleting, "live_leases", lambda *_args, **_how: [])


def no_second_listing(patch: pytest.MonkeyPatch) -> None:
    """What is on a list is deleted without another look at the manifests."""
    decide = sweep.plan_sweep

    def blind(looked: census.Census, lists: list[sweep.CondemnedList], now: datetime, **how: Any) -> sweep.SweepPlan:
        plan = decide(looked, lists, now, **how)
        fate = plan.fate.copy()
        for condemned in lists:
            if condemned.is_ripe(now):
                fate[looked.places(condemned.packs)] = sweep.Fate.DOOMED
        return replace(plan, fate=fate)

    patch.setattr(sweep, "plan_sweep", blind)


def no_look_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    look = roots._check_packs
    given: list[Any] = []

    def once(cluster: Cluster, packs: Any, lease: Lease | None, purpose: str) -> Any:
        if not any(packs is known for known in given):
            given.append(look(cluster, packs, lease, purpose))
        return given[-1]

    patch.setattr(roots, "_check_packs", once)


def dumps_not_known(patch: pytest.MonkeyPatch) -> None:
    """A sweep of a pgkeep from before there were dumps, which the feature keeps out."""
    patch.setattr(census, "root_ids", backups.backup_ids)


def no_look_at_condemnations(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(roots, "read_all_condemned", lambda _cluster: frozenset())


def no_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep.CondemnedList, "is_ripe", lambda _self, _now: True)


def bases_not_looked_at_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deleting, "still_there", lambda *_: True)


def manifests_before_leases(patch: pytest.MonkeyPatch) -> None:
    """A backup that commits and releases its lease in between is not seen at all."""
    list_packs = census._packs
    listed: list[list[BackupId]] = []

    def manifests_first(cluster: Cluster) -> Any:
        listed.append(roots.root_ids(cluster))
        return list_packs(cluster)

    patch.setattr(census, "_packs", manifests_first)
    patch.setattr(census, "root_ids", lambda _cluster: listed.pop())


def condemned_is_inherited(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "condemned_packs", lambda _cluster: frozenset())
