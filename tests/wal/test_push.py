"""`wal push`: what it takes, what it refuses, and that it never claims success for what is not there."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.store.faulty import Crash, Effect, FaultyStore, Strike
from tests.walfiles import CLOCK, SIZE, Failover, copy_instance, new_archive

from pgkeep.errors import Fault
from pgkeep.format.header import ObjectType
from pgkeep.pg.controlfile import CONTROL_FILE, LAYOUTS, State, parse_control
from pgkeep.pg.crc32c import crc32c
from pgkeep.repo.repository import Repository, open_repository
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store import files
from pgkeep.store.local import LocalStore
from pgkeep.store.memory import MemoryStore
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment, WalFileKind
from pgkeep.wal.claims import adopt
from pgkeep.wal.push import PushOutcome, push


def send(archive: WalArchive, path: Path, instance: Path) -> PushOutcome:
    return push(archive.cluster.repository, str(path), CLOCK, data_directory=instance)


def refusal(archive: WalArchive, path: Path, instance: Path) -> Fault:
    """The Fault of a push that must fail, having stored nothing."""
    before = everything(archive)
    with pytest.raises(Fault) as caught:
        send(archive, path, instance)
    assert everything(archive) - before <= {key for key in everything(archive) if "/claim" in key}
    return caught.value


def everything(archive: WalArchive) -> set[str]:
    return {stat.key for stat in archive.cluster.repository.store.list("")}


def altered(source: Path, target: Path, offset: int, data: bytes) -> Path:
    """A copy of a WAL file with other bytes at `offset`."""
    content = bytearray(source.read_bytes())
    content[offset : offset + len(data)] = data
    target.write_bytes(content)
    return target


# --- what is taken


def test_every_file_of_the_primary_comes_back_as_it_was(
    failover: Failover, archive: WalArchive, instance: Path
) -> None:
    kinds = set()
    for path in sorted(failover.old.iterdir()):
        outcome = send(archive, path, instance)
        kinds.add(outcome.kind)
        assert outcome.new
        type_ = ObjectType.WAL_SEGMENT if outcome.kind is WalFileKind.SEGMENT else ObjectType.WAL_BACKUP_LABEL
        assert archive.read(outcome.key, type_) == path.read_bytes()
    assert kinds == {WalFileKind.SEGMENT, WalFileKind.BACKUP_LABEL}


def test_a_promotion_makes_history_and_partial(failover: Failover, archive: WalArchive, promoted: Path) -> None:
    outcomes = {path.name: send(archive, path, promoted) for path in sorted(failover.new.iterdir())}
    assert {outcome.kind for outcome in outcomes.values()} == {
        WalFileKind.HISTORY, WalFileKind.PARTIAL, WalFileKind.SEGMENT,
    }  # fmt: skip
    assert archive.history(2) == (failover.new / "00000002.history").read_bytes()
    (partial,) = archive.listing().partials
    assert partial.segment == Segment(1, failover.switch // SIZE)
    # Up to the page that holds the switch, and not a page further.
    assert partial.flush - 8192 < failover.switch <= partial.flush
    content = failover.partial.read_bytes()
    assert archive.partial(partial) == content[: partial.flush - partial.segment.start(SIZE)]


def test_the_segment_after_a_switch_is_taken_although_its_pages_show_the_parent(
    failover: Failover, archive: WalArchive, promoted: Path
) -> None:
    first = failover.segments(2)[0]
    assert first.read_bytes()[4:8] == (1).to_bytes(4, "little")
    assert send(archive, first, promoted).new


def test_pushing_again_is_success_without_a_second_object(
    failover: Failover, archive: WalArchive, instance: Path
) -> None:
    path = failover.segments(1)[0]
    assert send(archive, path, instance).new
    before = everything(archive)
    assert not send(archive, path, instance).new
    assert everything(archive) == before


def test_a_path_relative_to_the_data_directory(
    failover: Failover, archive: WalArchive, instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = failover.segments(1)[0]
    shutil.copy(source, instance / "pg_wal")
    monkeypatch.chdir(instance)
    assert push(archive.cluster.repository, f"pg_wal/{source.name}", CLOCK).new


# --- what is refused


@pytest.mark.parametrize(
    "name",
    [
        "postgresql.conf", "00000001", "00000001000000000000000G", "00000001000000000000000a", "1.history",
        "000000010000000000000001.backup", "000000010000000000000001.partial.gz", "RECOVERYXLOG", "", "..",
        "000000010000000000000001 ", "000000010000000000000001\n",
    ],
)  # fmt: skip
def test_what_is_not_wal(archive: WalArchive, instance: Path, tmp_path: Path, name: str) -> None:
    if name.strip(". \n"):
        (tmp_path / name).write_bytes(b"x" * SIZE)
    assert refusal(archive, tmp_path / name, instance).code == "wal-refused"


def test_segments_that_are_not_what_their_names_say(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path
) -> None:
    good, other = failover.segments(1)[:2]
    here = tmp_path / good.name
    shutil.copy(other, here)
    assert refusal(archive, here, instance).code == "wal-refused"  # another segment's bytes
    here.write_bytes(good.read_bytes()[:-8192])
    assert refusal(archive, here, instance).code == "wal-refused"  # cut off
    here.write_bytes(good.read_bytes() + bytes(8192))
    assert refusal(archive, here, instance).code == "wal-refused"  # too long
    here.write_bytes(b"")
    assert refusal(archive, here, instance).code == "wal-refused"
    here.write_bytes(bytes(SIZE))
    assert refusal(archive, here, instance).code == "wal-refused"  # never written
    here.write_bytes(os.urandom(SIZE))
    assert refusal(archive, here, instance).code in ("wal-refused", "postgres-version")
    high = tmp_path / (good.name[:16] + "00001000")
    shutil.copy(good, high)
    assert refusal(archive, high, instance).code == "wal-refused"  # impossible number for 1 MiB segments


def test_another_clusters_segment(failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path) -> None:
    good = failover.segments(1)[0]
    foreign = altered(good, tmp_path / good.name, 24, os.urandom(8))
    assert refusal(archive, foreign, instance).code == "cluster-mismatch"


def test_another_segment_size(failover: Failover, instance: Path, tmp_path: Path) -> None:
    control = failover.control
    archive = new_archive(MemoryStore(), control)
    wrong = WalArchive(archive.cluster, control.system_identifier, SIZE)
    good = failover.segments(1)[0]
    doubled = tmp_path / good.name
    doubled.write_bytes(altered(good, doubled, 32, (2 * SIZE).to_bytes(4, "little")).read_bytes() * 2)
    assert refusal(wrong, doubled, instance).code == "wal-refused"


def test_a_cluster_that_the_repository_does_not_know(failover: Failover, instance: Path, tmp_path: Path) -> None:
    archive = new_archive(MemoryStore(), replace(failover.control, system_identifier=1))
    assert refusal(archive, failover.segments(1)[0], instance).code == "cluster-unknown"


@pytest.mark.parametrize(
    "text",
    [b"", b"nonsense\n", b"2\t0/5000000\tcannot be its own parent\n", b"1\tnowhere\tx\n", b"# a comment only\n",
     b"1\t0/5000000\ta\n1\t0/6000000\ttwice\n", b"\xff\xfe", b"1"],
)  # fmt: skip
def test_histories_that_postgresql_could_not_read(
    archive: WalArchive, instance: Path, tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "00000002.history"
    path.write_bytes(text)
    assert refusal(archive, path, instance).code == "wal-refused"


def test_a_history_whose_reason_holds_any_bytes(archive: WalArchive, instance: Path, tmp_path: Path) -> None:
    path = tmp_path / "00000002.history"
    path.write_bytes('1\t0/5000000\tat restore point "Å\u2028\x85\xff"\n'.encode("latin-1", "replace") + b"\n")
    assert send(archive, path, instance).new


def test_a_backup_file_that_is_none(archive: WalArchive, instance: Path, tmp_path: Path) -> None:
    path = tmp_path / "000000010000000000000002.00000028.backup"
    path.write_bytes(b"hello")
    assert refusal(archive, path, instance).code == "wal-refused"


def test_what_cannot_be_read(failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path) -> None:
    name = failover.segments(1)[0].name
    assert refusal(archive, tmp_path / name, instance).code == "io"
    (tmp_path / name).mkdir()
    assert refusal(archive, tmp_path / name, instance).code in ("io", "wal-refused")
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    assert refusal(archive, tmp_path / name, instance).code == "wal-refused"


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_that_changes_while_it_is_read(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    is_there: bool,
) -> None:  # fmt: skip
    """A segment that is not in the archive is read piece by piece, any other file at once."""
    path = Path(shutil.copy(failover.segments(1)[0], tmp_path))
    if is_there:
        send(archive, path, instance)
    name = "read_range" if is_there else "read_into"
    read: Callable[..., object] = getattr(files, name)

    def read_and_write(*arguments: object) -> object:
        content = read(*arguments)
        with path.open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(first)
        return content

    monkeypatch.setattr(files, name, read_and_write)
    os.utime(path, (1, 1))
    fault = refusal(archive, path, instance)
    assert fault.code == "wal-refused"
    assert "changed" in fault.message


@pytest.mark.parametrize("change", ["cut", "another header"])
def test_a_segment_that_is_another_one_when_its_bytes_are_read(
    failover: Failover,
    archive: WalArchive,
    instance: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """Even if no time stamp shows it."""
    path = Path(shutil.copy(failover.segments(1)[0], tmp_path))
    other = failover.segments(1)[1].read_bytes()
    read = files.read_into

    def read_other(descriptor: int, start: int, memory: memoryview) -> int:
        if change == "cut":
            return read(descriptor, start, memory[: len(memory) // 2])
        memory[:] = other[start : start + len(memory)]
        return len(memory)

    monkeypatch.setattr(files, "read_into", read_other)
    assert "changed" in refusal(archive, path, instance).message


def test_no_data_directory(failover: Failover, archive: WalArchive, tmp_path: Path) -> None:
    assert refusal(archive, failover.segments(1)[0], tmp_path).code == "datadir-invalid"


# --- equal names, other content


def test_other_content_under_an_archived_name(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path
) -> None:
    good = failover.segments(1)[0]
    send(archive, good, instance)
    other = altered(good, tmp_path / good.name, SIZE - 100, b"different")
    assert refusal(archive, other, instance).code == "wal-refused"
    assert archive.segment(Segment.parse(good.name, SIZE)) == good.read_bytes()


def _push_at(repository: str, path: str, instance: str, barrier: object, answers: object) -> None:
    opened = open_repository(LocalStore(repository))
    barrier.wait()  # type: ignore[attr-defined]
    try:
        answers.put(str(push(opened, path, CLOCK, data_directory=instance).new))  # type: ignore[attr-defined]
    except Fault as fault:
        answers.put(fault.code)  # type: ignore[attr-defined]


def race(archive: WalArchive, pushes: list[tuple[Path, Path]]) -> list[str]:
    """Push (file, data directory) pairs at the same moment; the answers, sorted."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(len(pushes)), context.Queue()
    root = archive.cluster.repository.store.url.removeprefix("file://")
    workers = [
        context.Process(target=_push_at, args=(root, str(path), str(instance), barrier, answers))
        for path, instance in pushes
    ]
    for worker in workers:
        worker.start()
    found = sorted(answers.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    return found


def test_two_equal_pushes_at_once(failover: Failover, archive: WalArchive, instance: Path) -> None:
    for path in failover.segments(1)[:5]:
        assert race(archive, [(path, instance), (path, instance)]) == ["False", "True"]
        assert archive.segment(Segment.parse(path.name, SIZE)) == path.read_bytes()


def test_two_different_pushes_at_once(failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path) -> None:
    for path in failover.segments(1)[:5]:
        other = altered(path, tmp_path / path.name, SIZE - 100, b"different")
        assert race(archive, [(path, instance), (other, instance)]) == ["True", "wal-refused"]
        assert archive.segment(Segment.parse(path.name, SIZE)) in (path.read_bytes(), other.read_bytes())


def test_two_instances_race_for_a_timeline(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path
) -> None:
    clone = copy_instance(failover.primary, tmp_path / "clone")
    one, two = failover.segments(1)[:2]
    assert race(archive, [(one, instance), (two, clone)]) == ["True", "wal-claimed"]


# --- claims


def test_a_clone_is_refused_until_it_adopts(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path
) -> None:
    first, second, third = failover.segments(1)[:3]
    send(archive, first, instance)
    clone = tmp_path / "clone"
    subprocess.run(["cp", "-a", instance, clone], check=True)
    fault = refusal(archive, second, clone)
    assert (fault.code, "pgkeep init --adopt" in fault.hint) == ("wal-claimed", True)
    assert not send(archive, first, clone).new  # nothing to write: the very bytes are there
    adopt(archive.cluster.repository, clone, CLOCK)
    assert send(archive, second, clone).new
    assert refusal(archive, third, instance).code == "wal-claimed"


def test_the_promoted_servers_partial_needs_no_claim(
    failover: Failover, archive: WalArchive, instance: Path, promoted: Path
) -> None:
    send(archive, failover.segments(1)[0], instance)
    assert send(archive, failover.partial, promoted).new
    assert send(archive, failover.new / "00000002.history", promoted).new
    assert send(archive, failover.segments(2)[0], promoted).new
    assert send(archive, failover.segments(1)[1], instance).new  # the old timeline is still the primary's
    copy = copy_instance(failover.promoted, promoted.parent / "third")
    assert refusal(archive, failover.segments(2)[1], copy).code == "wal-claimed"


def test_a_standby_neither_claims_nor_needs_a_claim(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path
) -> None:
    standby = copy_instance(failover.primary, tmp_path / "standby")
    control = bytearray((standby / CONTROL_FILE).read_bytes())
    control[16:20] = int(State.IN_ARCHIVE_RECOVERY).to_bytes(4, "little")
    crc = LAYOUTS[parse_control(bytes((standby / CONTROL_FILE).read_bytes())).control_version].crc
    control[crc : crc + 4] = crc32c(bytes(control[:crc])).to_bytes(4, "little")
    (standby / CONTROL_FILE).write_bytes(control)
    first, second, third = failover.segments(1)[:3]
    assert send(archive, first, standby).new
    assert archive.claim(1) == (-1, None)
    assert send(archive, second, instance).new
    assert send(archive, third, standby).new
    assert not send(archive, third, instance).new


# --- outages and deaths


def pushes(failover: Failover, instance: Path, repository: Repository) -> None:
    push(repository, str(failover.segments(1)[0]), CLOCK, data_directory=instance)


@pytest.mark.parametrize("effect", [Effect.BEFORE, Effect.AFTER, Effect.TORN])
def test_a_failing_store_call_is_never_a_success_unless_the_object_is_there(
    failover: Failover, instance: Path, tmp_path: Path, effect: Effect
) -> None:
    path = failover.segments(1)[0]
    segment = Segment.parse(path.name, SIZE)
    counted = FaultyStore(LocalStore.create(tmp_path / "count"))
    known = new_archive(counted, failover.control)
    before = len(counted.calls)
    pushes(failover, instance, known.cluster.repository)
    total = len(counted.calls) - before
    assert total >= 5
    for nth in range(1, total + 1):
        inner = LocalStore.create(tmp_path / f"{nth}")
        archive = new_archive(inner, failover.control)
        broken = FaultyStore(inner, Strike(effect, nth=nth))
        repository = Repository(broken, archive.cluster.repository.id, archive.cluster.repository.keys)
        try:
            pushes(failover, instance, repository)
        except Fault as fault:
            assert fault.code == "store-unreachable"
        else:
            assert archive.segment(segment) == path.read_bytes()
        # What PostgreSQL does next: the same again.
        assert send(archive, path, instance).length == SIZE
        assert archive.segment(segment) == path.read_bytes()


def test_dying_at_every_store_call_leaves_all_or_nothing(failover: Failover, instance: Path, tmp_path: Path) -> None:
    path = failover.segments(1)[0]
    segment = Segment.parse(path.name, SIZE)
    for number in range(1, 12):
        inner = LocalStore.create(tmp_path / f"{number}")
        archive = new_archive(inner, failover.control)
        dying = FaultyStore.dying_at(number, inner, Effect.TORN)
        repository = Repository(dying, archive.cluster.repository.id, archive.cluster.repository.keys)
        try:
            pushes(failover, instance, repository)
        except Crash:
            pass
        else:
            break
        if archive.listing().segments:
            assert archive.segment(segment) == path.read_bytes()
        assert send(archive, path, instance).length == SIZE
    else:
        raise AssertionError("the push never got through")


def test_killed_at_any_moment_it_leaves_all_or_nothing(failover: Failover, archive: WalArchive, instance: Path) -> None:
    context = multiprocessing.get_context("fork")
    root = archive.cluster.repository.store.url.removeprefix("file://")
    source = failover.segments(1)
    randomness = random.Random(os.urandom(8))
    complete = 0
    for round_number in range(30):
        path = source[round_number % len(source)]
        barrier, answers = context.Barrier(2), context.Queue()
        worker = context.Process(target=_push_at, args=(root, str(path), str(instance), barrier, answers))
        worker.start()
        barrier.wait()
        time.sleep(randomness.uniform(0, 0.03))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        segment = Segment.parse(path.name, SIZE)
        if segment.number in archive.listing().segments.get(1, []):
            complete += 1
            assert archive.segment(segment) == path.read_bytes()
        send(archive, path, instance)
        archive.cluster.repository.store.delete(archive.key(path.name))
    assert complete < 30  # it was really killed before the end now and then


def test_a_full_store_is_no_success(failover: Failover, archive: WalArchive, instance: Path) -> None:
    def full(operation: str, key: str) -> BaseException:
        return Fault("store-full", f"{key}: {operation}: no room")

    broken = FaultyStore(
        archive.cluster.repository.store, Strike(Effect.BEFORE, "put", key=lambda key: "claim" not in key, failure=full)
    )
    repository = Repository(broken, archive.cluster.repository.id, archive.cluster.repository.keys)
    with pytest.raises(Fault) as caught:
        pushes(failover, instance, repository)
    assert caught.value.code == "store-full"


def test_a_damaged_object_is_not_taken_for_the_segment(
    failover: Failover, archive: WalArchive, instance: Path, tmp_path: Path
) -> None:
    path = failover.segments(1)[0]
    send(archive, path, instance)
    stored = tmp_path / "repository" / archive.key(path.name)
    stored.write_bytes(stored.read_bytes()[:100])
    with pytest.raises(Fault) as caught:
        send(archive, path, instance)
    assert caught.value.code == "format-damaged"


def test_lsn_of_a_partial_is_in_its_key(failover: Failover, archive: WalArchive, promoted: Path) -> None:
    outcome = send(archive, failover.partial, promoted)
    flush = Lsn(int(outcome.key.rsplit(".", 1)[1], 16))
    assert outcome.length == flush - Segment.parse(failover.partial.name[:24], SIZE).start(SIZE)
    assert not send(archive, failover.partial, promoted).new
