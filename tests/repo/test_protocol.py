"""The protocol of deletion, interleaved at every store call; and what each of its rules is there for.

A rule's script is run twice: with the protocol as it is, and with the rule taken out.  The second run must lose a pack,
or fail a job that should not fail: so neither the rule nor the test is idle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pgkeep.repo.deleting import condemned_packs
from pgkeep.repo.lease import LEASE_SECONDS, SKEW_SECONDS
from pgkeep.repo.roots import root_ids
from tests.repo import weakened
from tests.repo.protocol import PATHS, WAIT, Lost, Needless, World, walk
from tests.repo.story import backup_id


def stopped_for_longer_than_its_lease(world: World) -> None:
    """While it encodes its manifest."""
    backup = world.start_backup()
    world.until(backup, "list_parts", "encoding")
    for _ in range(2):
        world.wait(2 * WAIT)
        world.run(world.start_sweep())
    world.run(backup)


def swept_while_it_runs(world: World) -> None:
    backup = world.start_backup()
    world.until(backup, "list_parts", "encoding")
    world.run(world.start_sweep())
    world.run(backup)


def dumped_while_it_is_swept(world: World) -> None:
    dump = world.start_dump()
    world.until(dump, "put", "dumps/")
    world.run(world.start_sweep())
    world.run(dump)
    for _ in range(2):
        world.wait(2 * WAIT)
        world.run(world.start_sweep())


def committed_between_census_and_list(world: World) -> None:
    """The store's clock jumps, so that its lease looks as if it had run out."""
    backup = world.start_backup()
    world.until(backup, "list_parts", "encoding")
    world.jump(2 * WAIT)
    first = world.start_sweep()
    world.until(first, "put", "condemned")
    world.run(backup)
    world.run(first)
    world.wait(WAIT)
    world.run(world.start_sweep())


def condemned_while_it_commits(world: World) -> None:
    """The clock jumps twice: its packs are condemned, and the list looks old at once."""
    backup = world.start_backup()
    world.until(backup, "list_parts", "encoding")
    world.jump(2 * WAIT)
    world.run(world.start_sweep())
    world.jump(2 * WAIT)
    second = world.start_sweep()
    world.until(second, "delete", "packs")
    world.run(backup)
    world.run(second)


def reader_without_a_lease(world: World) -> None:
    reader = world.start_reader(backup_id(2), leased=False)
    world.until(reader, "get", "packs")
    world.run(world.start_retire(backup_id(2)))
    world.run(world.start_sweep())
    world.run(world.start_sweep())
    world.wait(LEASE_SECONDS / 2)
    world.run(world.start_sweep())
    world.run(reader)


def base_retired_while_it_is_named(world: World) -> None:
    """The retire has looked at the leases, and has not deleted the manifest yet."""
    backup = world.start_backup(())
    world.until(backup, "put", "0000000002")
    retire = world.start_retire(backup_id(2))
    world.until(retire, "delete", "backups")
    world.until(backup, "list_parts", "encoding")
    world.run(retire)
    world.run(world.start_sweep())
    world.run(backup)


def committed_between_two_listings(world: World) -> None:
    backup = world.start_backup()
    world.until(backup, "list_parts", "encoding")
    sweep = world.start_sweep()
    world.until(sweep, "list", "packs")
    world.until(sweep, "list", "leases")
    world.run(backup)
    world.run(sweep)
    if condemned_packs(world.cluster):
        raise Needless("packs of a backup that there is were condemned")


def based_on_what_is_condemned(world: World) -> None:
    backup = world.start_backup()
    world.until(backup, "list_parts", "encoding")
    world.jump(2 * WAIT)
    sweep = world.start_sweep()
    world.until(sweep, "put", "condemned")
    world.run(backup)
    world.run(sweep)
    world.jumped = False
    world.run(world.start_backup(PATHS[1:]))


@dataclass(frozen=True)
class Rule:
    """A rule, how it is taken out, what happens then, and a script that shows it."""

    take_out: Callable[[pytest.MonkeyPatch], None]
    script: Callable[[World], None]
    harm: type[AssertionError]

    @property
    def name(self) -> str:
        return self.take_out.__name__


RULES = (
    Rule(weakened.no_lease_check, stopped_for_longer_than_its_lease, Lost),
    Rule(weakened.leases_ignored, swept_while_it_runs, Needless),
    Rule(weakened.leases_ignored, dumped_while_it_is_swept, Needless),
    Rule(weakened.dumps_not_known, dumped_while_it_is_swept, Lost),
    Rule(weakened.no_second_listing, committed_between_census_and_list, Lost),
    Rule(weakened.no_look_after_the_commit, condemned_while_it_commits, Lost),
    Rule(weakened.no_look_at_condemnations, condemned_while_it_commits, Lost),
    Rule(weakened.no_wait, reader_without_a_lease, Needless),
    Rule(weakened.bases_not_looked_at_again, base_retired_while_it_is_named, Needless),
    Rule(weakened.manifests_before_leases, committed_between_two_listings, Needless),
    Rule(weakened.condemned_is_inherited, based_on_what_is_condemned, Needless),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_is_needed(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    rule.script(world)
    world.finish()
    rule.take_out(monkeypatch)
    with pytest.raises(rule.harm):
        rule.script(World())


class Protocol(RuleBasedStateMachine):
    """Up to four jobs on several hosts, in any order of their store calls, killed and stopped anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @precondition(lambda self: len(self.world.actors) < 4)
    @rule(changed=st.sets(st.sampled_from(PATHS)))
    def back_up(self, changed: set[bytes]) -> None:
        self.world.start_backup(tuple(sorted(changed)))

    @precondition(lambda self: len(self.world.actors) < 4)
    @rule()
    def dump(self) -> None:
        self.world.start_dump()

    @precondition(lambda self: len(self.world.actors) < 4)
    @rule()
    def sweep(self) -> None:
        self.world.start_sweep()

    @precondition(lambda self: len(self.world.actors) < 4 and bool(root_ids(self.world.cluster)))
    @rule(which=st.integers(0, 9))
    def retire(self, which: int) -> None:
        known = root_ids(self.world.cluster)
        self.world.start_retire(known[which % len(known)])

    @precondition(lambda self: len(self.world.actors) < 4 and bool(root_ids(self.world.cluster)))
    @rule(which=st.integers(0, 9), leased=st.booleans())
    def read(self, which: int, leased: bool) -> None:
        known = root_ids(self.world.cluster)
        self.world.start_reader(known[which % len(known)], leased=leased)

    @precondition(lambda self: self.world.actors)
    @rule(which=st.integers(0, 3), calls=st.sampled_from([1, 2, 3, 5, 8, 20, 100]))
    def step(self, which: int, calls: int) -> None:
        self.world.step(self.world.actors[which % len(self.world.actors)], calls)

    @precondition(lambda self: self.world.actors)
    @rule(which=st.integers(0, 3), calls=st.integers(1, 40))
    def step_on(self, which: int, calls: int) -> None:
        """Again, so that most of what happens are steps."""
        self.world.step(self.world.actors[which % len(self.world.actors)], calls)

    @precondition(lambda self: self.world.actors)
    @rule(which=st.integers(0, 3))
    def run(self, which: int) -> None:
        self.world.run(self.world.actors[which % len(self.world.actors)])

    @precondition(lambda self: self.world.actors)
    @rule(which=st.integers(0, 3))
    def kill(self, which: int) -> None:
        self.world.kill(self.world.actors[which % len(self.world.actors)])

    @rule(seconds=st.sampled_from([1, SKEW_SECONDS, LEASE_SECONDS // 2, LEASE_SECONDS, WAIT, 2 * WAIT]))
    def wait(self, seconds: int) -> None:
        self.world.wait(seconds)

    @invariant()
    def every_manifest_has_its_packs(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.finish()


class Jumping(Protocol):
    """The same while the store's clock jumps."""

    @rule(seconds=st.sampled_from([SKEW_SECONDS, WAIT, 2 * WAIT]), back=st.booleans())
    def jump(self, seconds: int, back: bool) -> None:
        self.world.jump(-seconds if back else seconds)


MACHINES = pytest.mark.parametrize("machine", [Protocol, Jumping], ids=lambda machine: machine.__name__)


def _search(machine: type[Protocol], examples: int) -> None:
    bounds = settings(
        max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=bounds)


@MACHINES
def test_whatever_the_order(machine: type[Protocol]) -> None:
    _search(machine, 25)


@pytest.mark.campaign
@MACHINES
def test_whatever_the_order_at_length(machine: type[Protocol]) -> None:
    _search(machine, 3000)


def test_random_walks_find_what_a_missing_rule_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are what most orders need: walks that did not notice their absence would prove nothing."""
    weakened.leases_ignored(monkeypatch)
    with pytest.raises((Lost, Needless)):
        for seed in range(400):
            walk(seed)


@pytest.mark.parametrize("jumps", [False, True])
def test_random_walks(jumps: bool) -> None:
    for seed in range(20):
        print(f"seed {seed}")
        walk(seed, jumps=jumps)


@pytest.mark.campaign
@pytest.mark.parametrize("jumps", [False, True])
def test_many_random_walks(jumps: bool) -> None:
    for seed in range(20, 5000):
        print(f"seed {seed}")
        walk(seed, jumps=jumps)
