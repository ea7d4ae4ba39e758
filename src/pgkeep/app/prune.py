"""`prune`: the plan of what the policy lets go, and carrying it out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo

from pgkeep.app.place import Place
from pgkeep.clock import Clock
from pgkeep.events import Announce, Phase
from pgkeep.retention.carry import PruneResult, carry_out
from pgkeep.retention.facts import RetentionFacts
from pgkeep.retention.gather import KnownBackup, gather
from pgkeep.retention.plan import RetentionPlan, plan_retention
from pgkeep.retention.zone import zone_of_days


@dataclass(frozen=True, slots=True)
class PruneChoices:
    """What the command line says; `local_zone` is the name of this machine's zone, '' when it is not known."""

    local_zone: str = ""
    timeline: int | None = None
    """Which of several live branches is the cluster's own."""


def zone_of(place: Place, local_zone: str) -> tzinfo:
    """The zone of the policy's days."""
    return zone_of_days(place.settings.timezone, local_zone)


def plan(
    place: Place, choices: PruneChoices, clock: Clock, announce: Announce, known: Iterable[KnownBackup] | None = None
) -> RetentionPlan:
    """What would stay and go now.  `usage` when several branches live and nobody said which; the store's faults."""
    announce(Phase("facts", "reading the manifests and the archive's listing"))
    now = clock.now()
    facts = gather(place.cluster, now, known)
    return plan_of(place, facts, zone_of(place, choices.local_zone), now, choices.timeline)


def plan_of(
    place: Place, facts: RetentionFacts, zone: tzinfo, now: datetime, timeline: int | None = None
) -> RetentionPlan:
    """What the configuration makes of the facts."""
    sets = {one.name: one.keep for one in place.settings.dumps if one.keep is not None}
    return plan_retention(facts, place.settings.keep, zone, now, timeline, sets)


def prune(
    place: Place, choices: PruneChoices, planned: RetentionPlan, clock: Clock, announce: Announce, *, wait: bool
) -> PruneResult:
    """Delete what `planned` says and what is still so; faults of `retention.carry.carry_out`."""

    def again() -> RetentionPlan:
        now = clock.now()
        facts = gather(place.cluster, now, with_packs=False)
        return plan_of(place, facts, zone_of(place, choices.local_zone), now, choices.timeline)

    return carry_out(place.cluster, planned, again, clock, announce, wait=wait)
