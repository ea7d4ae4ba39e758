"""`wal get`: found, truly missing, or a Fault; never "missing" for an outage, a gap or a dead branch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.store.faulty import Effect, FaultyStore, Strike
from tests.walfiles import CLOCK, SIZE, Failover, lineage_of, number

from pgkeep.errors import Fault
from pgkeep.pg.controlfile import read_control
from pgkeep.repo.repository import Repository, create_repository
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.local import LocalStore
from pgkeep.store.memory import MemoryStore
from pgkeep.values.ids import ClusterUuid
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.values.wal import History, Segment
from pgkeep.wal.get import EXIT_FAILED, GetOutcome, GetStatus, find_archive, get
from pgkeep.wal.push import push


@dataclass
class Recovery:
    """A restored data directory that asks for WAL."""

    archive: WalArchive
    where: Path
    lineage: RecoveryLineage | None

    @property
    def destination(self) -> Path:
        return self.where / "pg_wal" / "RECOVERYXLOG"

    def ask(self, name: str, repository: Repository | None = None) -> GetOutcome:
        archive = find_archive(repository or self.archive.cluster.repository, self.lineage, self.where)
        outcome = get(archive, name, str(self.destination), self.lineage)
        assert self.destination.exists() == (outcome.status is GetStatus.FOUND)
        return outcome

    def found(self, name: str) -> bytes:
        assert self.ask(name).status is GetStatus.FOUND
        content = self.destination.read_bytes()
        self.destination.unlink()
        return content

    def missing(self, name: str) -> bool:
        return self.ask(name).status is GetStatus.MISSING

    def fault(self, name: str, repository: Repository | None = None) -> Fault:
        with pytest.raises(Fault) as caught:
            self.ask(name, repository)
        assert not self.destination.exists()
        return caught.value


@pytest.fixture
def along_two(failover: Failover, full: WalArchive, instance: Path) -> Recovery:
    """A restore that follows timeline 2."""
    return Recovery(full, instance, lineage_of(full, failover.history))


@pytest.fixture
def along_one(full: WalArchive, instance: Path) -> Recovery:
    """A restore that follows timeline 1 to its end."""
    return Recovery(full, instance, lineage_of(full, History(1)))


@pytest.fixture
def unplanned(full: WalArchive, instance: Path) -> Recovery:
    """A standby, or a recovery that somebody set up by hand."""
    return Recovery(full, instance, None)


def drop(archive: WalArchive, name: str) -> None:
    archive.cluster.repository.store.delete(archive.key(name))


def name_of(timeline: int, segment: int) -> str:
    return Segment(timeline, segment).name(SIZE)


def send_old(failover: Failover, archive: WalArchive, instance: Path) -> list[Path]:
    """The old primary's WAL from the switch on, which a split brain archives."""
    dead = [path for path in failover.segments(1) if path not in failover.common()]
    for path in dead:
        push(archive.cluster.repository, str(path), CLOCK, data_directory=instance)
    return dead


# --- found


def test_exit_statuses_mean_to_postgresql_what_they_should() -> None:
    assert (GetStatus.FOUND.value, GetStatus.MISSING.value) == (0, 1)
    assert 125 < EXIT_FAILED < 256
    assert EXIT_FAILED != 128 + 15  # PostgreSQL takes that for its own SIGTERM


def test_the_whole_lineage(failover: Failover, along_two: Recovery) -> None:
    for path in [*failover.common(), *failover.segments(2)]:
        assert along_two.found(path.name) == path.read_bytes()
    assert along_two.found("00000002.history") == (failover.new / "00000002.history").read_bytes()
    (label,) = [path for path in failover.old.iterdir() if path.suffix == ".backup"]
    assert along_two.found(label.name) == label.read_bytes()
    assert along_two.missing(name_of(2, number(failover.segments(2)[-1]) + 1))
    assert along_two.missing("00000003.history")


def test_without_a_plan(failover: Failover, unplanned: Recovery) -> None:
    for path in [*failover.common(), *failover.segments(2)]:
        assert unplanned.found(path.name) == path.read_bytes()
    assert unplanned.missing(name_of(2, number(failover.segments(2)[-1]) + 1))


def test_an_older_file_at_the_destination_is_replaced(failover: Failover, along_two: Recovery) -> None:
    along_two.destination.write_bytes(b"older")
    path = failover.segments(2)[0]
    assert along_two.found(path.name) == path.read_bytes()


def test_an_archived_history_is_seen_at_once(failover: Failover, along_two: Recovery) -> None:
    assert along_two.missing("00000003.history")
    text = b"1\t0/5000000\tx\n2\t0/F000000\ty\n"
    source = along_two.where / "00000003.history"
    source.write_bytes(text)
    push(along_two.archive.cluster.repository, str(source), CLOCK, data_directory=along_two.where)
    assert along_two.found("00000003.history") == text


def test_what_was_archived_after_the_plan_is_not_served(failover: Failover, along_two: Recovery) -> None:
    """It may create a tablespace where a running server has one: the plan has not seen it."""
    assert along_two.lineage is not None
    names = [path.name for path in failover.segments(2)]
    known = Segment.parse(names[0], SIZE).number
    bounded = replace(along_two, lineage=replace(along_two.lineage, last_segment=known))
    assert bounded.found(names[0])
    outcome = bounded.ask(names[1])
    assert outcome.status is GetStatus.MISSING
    assert "after this restore was planned" in outcome.notes[0]


def bounded(recovery: Recovery, flush: int) -> Recovery:
    """The plan of `recovery` knew its segment at `flush` as a partial one that ended there."""
    assert recovery.lineage is not None
    return replace(recovery, lineage=replace(recovery.lineage, last_segment=(flush - 1) // SIZE, flush=Lsn(flush)))


def test_of_a_planned_partial_no_later_byte_is_served(failover: Failover, along_one: Recovery, instance: Path) -> None:
    """The rest may create a tablespace where a running server has one: the plan has not seen it."""
    start = failover.switch // SIZE * SIZE
    (known,) = along_one.archive.listing().partials
    planned = bounded(along_one, known.flush)
    served = partial_bytes(failover, along_one.archive)
    name = name_of(1, start // SIZE)
    assert planned.found(name) == served
    put_partial(failover, along_one.archive, start + SIZE - 8192, b"longer")
    assert planned.ask(name).flush == known.flush
    assert planned.found(name) == served
    path = send_old(failover, along_one.archive, instance)[0]
    assert path.read_bytes() != served
    assert planned.found(name) == served
    assert along_one.found(name) == path.read_bytes()


def test_a_planned_partial_that_is_gone_is_no_end_of_wal(
    failover: Failover, along_one: Recovery, instance: Path
) -> None:
    (known,) = along_one.archive.listing().partials
    planned = bounded(along_one, known.flush)
    send_old(failover, along_one.archive, instance)
    along_one.archive.cluster.repository.store.delete(known.key)
    assert planned.fault(name_of(1, failover.switch // SIZE)).code == "wal-gap"


def test_a_bound_within_a_segment_leaves_the_earlier_ones_whole(failover: Failover, along_two: Recovery) -> None:
    first, second = failover.segments(2)[:2]
    planned = bounded(along_two, number(second) * SIZE + 8192)
    assert planned.found(first.name) == first.read_bytes()
    assert planned.fault(second.name).code == "wal-gap"


@pytest.mark.parametrize("name", ["", "RECOVERYXLOG", "000000010000000000000001.partial", "pg_control", "../x"])
def test_names_that_recovery_does_not_ask_for(along_two: Recovery, name: str) -> None:
    assert along_two.fault(name).code == "wal-refused"


# --- gaps


def test_a_gap_is_no_end_of_wal(failover: Failover, along_two: Recovery, unplanned: Recovery) -> None:
    for path in [failover.common()[1], failover.segments(2)[0]]:
        drop(along_two.archive, path.name)
        for recovery in (along_two, unplanned):
            fault = recovery.fault(path.name)
            assert fault.code == "wal-gap"
            assert path.name in fault.message


def test_a_gap_that_only_the_next_timeline_shows(failover: Failover, along_two: Recovery) -> None:
    last = failover.common()[-1]
    drop(along_two.archive, last.name)
    assert along_two.fault(last.name).code == "wal-gap"


def test_a_gap_that_only_the_history_shows(failover: Failover, along_two: Recovery) -> None:
    for path in [failover.common()[-1], *failover.segments(2)]:
        drop(along_two.archive, path.name)
    assert along_two.fault(failover.common()[-1].name).code == "wal-gap"


def test_other_branches_are_no_later_wal(failover: Failover, full: WalArchive, instance: Path) -> None:
    send_old(failover, full, instance)
    two = Recovery(full, instance, lineage_of(full, failover.history))
    for path in failover.segments(2)[1:]:
        drop(full, path.name)
    assert two.missing(failover.segments(2)[1].name)


# --- the one right timeline


def test_a_parents_segment_at_or_past_the_switch(failover: Failover, along_two: Recovery, instance: Path) -> None:
    at_switch = failover.switch // SIZE
    assert along_two.fault(name_of(1, at_switch)).code == "wal-refused"  # there as a partial only
    assert along_two.fault(name_of(1, at_switch + 1)).code == "wal-refused"  # not there
    for path in send_old(failover, along_two.archive, instance):
        assert along_two.fault(path.name).code == "wal-refused"


def test_a_child_before_it_began(failover: Failover, along_two: Recovery, unplanned: Recovery) -> None:
    assert along_two.missing(name_of(2, number(failover.common()[0])))
    assert unplanned.missing(name_of(2, number(failover.common()[0])))


def test_a_timeline_of_another_branch(failover: Failover, along_one: Recovery) -> None:
    assert along_one.fault(failover.segments(2)[0].name).code == "wal-refused"


def test_old_branch_to_its_end_when_the_plan_says_so(failover: Failover, along_one: Recovery, instance: Path) -> None:
    for path in send_old(failover, along_one.archive, instance):
        assert along_one.found(path.name) == path.read_bytes()


# --- partials


def partial_bytes(failover: Failover, archive: WalArchive) -> bytes:
    """What a server must be given for the switch's segment of timeline 1."""
    start = failover.switch // SIZE * SIZE
    flush = -(-failover.switch // 8192) * 8192
    return failover.partial.read_bytes()[: flush - start] + bytes(SIZE - (flush - start))


def test_the_partial_ends_the_branch_that_was_chosen(failover: Failover, along_one: Recovery) -> None:
    name = name_of(1, failover.switch // SIZE)
    outcome = along_one.ask(name)
    assert outcome.flush is not None
    assert along_one.destination.read_bytes() == partial_bytes(failover, along_one.archive)


def test_without_a_plan_a_left_timelines_partial_is_withheld(failover: Failover, unplanned: Recovery) -> None:
    name = name_of(1, failover.switch // SIZE)
    assert unplanned.missing(name)
    drop(unplanned.archive, "00000002.history")
    assert unplanned.found(name) == partial_bytes(failover, unplanned.archive)


def test_a_full_segment_goes_before_the_partial(failover: Failover, along_one: Recovery, instance: Path) -> None:
    path = send_old(failover, along_one.archive, instance)[0]
    assert along_one.found(path.name) == path.read_bytes()


def test_no_partial_before_a_later_segment(failover: Failover, along_one: Recovery, instance: Path) -> None:
    path = send_old(failover, along_one.archive, instance)[0]
    drop(along_one.archive, path.name)
    assert along_one.fault(path.name).code == "wal-gap"


def put_partial(failover: Failover, archive: WalArchive, flush: int, mark: bytes = b"") -> str:
    """A partial of the switch's segment that ends elsewhere; its key."""
    start = Lsn(failover.switch // SIZE * SIZE)
    content = bytearray(failover.partial.read_bytes()[: flush - start])
    content[len(content) - len(mark) :] = mark
    archive.put(failover.partial.name, bytes(content), start, CLOCK, flush=Lsn(flush))
    return archive.key(failover.partial.name, Lsn(flush))


def test_the_longest_verified_partial_wins(failover: Failover, along_one: Recovery, tmp_path: Path) -> None:
    archive, name = along_one.archive, name_of(1, failover.switch // SIZE)
    start = failover.switch // SIZE * SIZE
    put_partial(failover, archive, start + 100)
    longest = put_partial(failover, archive, start + SIZE - 8192, b"longest")
    content = along_one.found(name)
    assert content[: SIZE - 8192].endswith(b"longest")
    assert content[SIZE - 8192 :] == bytes(8192)
    stored = tmp_path / "repository" / longest
    damaged = bytearray(stored.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    stored.write_bytes(damaged)
    outcome = along_one.ask(name)
    assert along_one.destination.read_bytes() == partial_bytes(failover, archive)
    assert len(outcome.notes) == 1
    assert longest in outcome.notes[0]


def test_only_damaged_partials_are_no_end_of_wal(failover: Failover, along_one: Recovery, tmp_path: Path) -> None:
    (partial,) = along_one.archive.listing().partials
    stored = tmp_path / "repository" / partial.key
    stored.write_bytes(stored.read_bytes()[:-1])
    assert along_one.fault(name_of(1, failover.switch // SIZE)).code == "format-damaged"


def test_other_branches_do_not_withhold_the_partial_of_the_chosen_one(failover: Failover, along_one: Recovery) -> None:
    archive = along_one.archive
    start = failover.switch // SIZE * SIZE
    archive.put("00000003.history", f"1\t{Lsn(start - 100)}\tx\n".encode(), 0, CLOCK)
    assert along_one.found(name_of(1, failover.switch // SIZE)) == partial_bytes(failover, archive)


# --- the wrong place, damage, outages


def test_another_repository_cluster_or_segment_size(failover: Failover, along_two: Recovery) -> None:
    name = failover.common()[0].name
    other = create_repository(MemoryStore(), CLOCK, "test")
    assert along_two.fault(name, other).code == "cluster-mismatch"
    right = along_two.lineage
    assert right is not None
    for wrong in (
        replace(right, cluster=ClusterUuid.make(bytes(16))), replace(right, system_id=7),
        replace(right, segment_size=16 << 20),
    ):  # fmt: skip
        along_two.lineage = wrong
        assert along_two.fault(name).code == "cluster-mismatch"
        assert along_two.fault("00000009.history").code == "cluster-mismatch"


def test_an_unknown_cluster_without_a_plan(failover: Failover, unplanned: Recovery) -> None:
    other = create_repository(MemoryStore(), CLOCK, "test")
    assert unplanned.fault(failover.common()[0].name, other).code == "cluster-unknown"
    assert read_control(unplanned.where / "global/pg_control").system_identifier == unplanned.archive.system_id


def test_damage_is_no_end_of_wal(failover: Failover, along_two: Recovery, tmp_path: Path) -> None:
    path = failover.segments(2)[-1]
    stored = tmp_path / "repository" / along_two.archive.key(path.name)
    good = stored.read_bytes()
    for bad in (b"", good[:200], good[:-1], good[:1000] + bytes([good[1000] ^ 1]) + good[1001:], good + b"x"):
        stored.write_bytes(bad)
        assert along_two.fault(path.name).code == "format-damaged"
    stored.write_bytes((tmp_path / "repository" / along_two.archive.key(failover.segments(2)[0].name)).read_bytes())
    assert along_two.fault(path.name).code == "format-damaged"


def test_a_lost_mount_is_no_end_of_wal(failover: Failover, along_two: Recovery, tmp_path: Path) -> None:
    (tmp_path / "repository").rename(tmp_path / "away")
    for name in (failover.common()[0].name, "00000002.history", "00000009.history", name_of(2, 4000)):
        assert along_two.fault(name).code == "store-unreachable"


@pytest.mark.parametrize("effect", [Effect.BEFORE, Effect.AFTER, Effect.TORN])
@pytest.mark.parametrize("planned", [True, False])
def test_an_outage_at_any_store_call_is_never_an_absence(
    failover: Failover, full: WalArchive, instance: Path, effect: Effect, planned: bool
) -> None:
    recovery = Recovery(full, instance, lineage_of(full, History(1)) if planned else None)
    at_switch = failover.switch // SIZE
    drop(full, failover.common()[1].name)
    names = [
        failover.common()[0].name, failover.common()[1].name, name_of(1, at_switch), name_of(1, at_switch + 1),
        "00000002.history", "00000009.history",
    ]  # fmt: skip
    for name in names:
        counted = FaultyStore(full.cluster.repository.store)
        truth = answer(recovery, name, counted)
        for nth in range(1, len(counted.calls) + 1):
            broken = FaultyStore(full.cluster.repository.store, Strike(effect, nth=nth))
            assert answer(recovery, name, broken) in (truth, "store-unreachable")
        broken = FaultyStore(full.cluster.repository.store, Strike(effect, nth=1, onward=True))
        assert answer(recovery, name, broken) == "store-unreachable"


def answer(recovery: Recovery, name: str, store: FaultyStore) -> str:
    known = recovery.archive.cluster.repository
    recovery.destination.unlink(missing_ok=True)
    try:
        return str(recovery.ask(name, Repository(store, known.id, known.keys)))
    except Fault as fault:
        return fault.code


def test_a_destination_that_cannot_be_written(failover: Failover, along_two: Recovery) -> None:
    along_two.destination.parent.rmdir()
    assert along_two.fault(failover.common()[0].name).code == "io"


def test_the_store_is_only_read(failover: Failover, along_two: Recovery) -> None:
    store = FaultyStore(LocalStore(along_two.archive.cluster.repository.store.url.removeprefix("file://")))
    known = along_two.archive.cluster.repository
    along_two.ask(failover.common()[0].name, Repository(store, known.id, known.keys))
    assert store.count("put") == store.count("delete") == 0
