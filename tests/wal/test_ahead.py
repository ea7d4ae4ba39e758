"""Working ahead: what is archived beyond the call's own file, when it ends, and that a kill leaves no false marker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.store.faulty import Effect, FaultyStore, Strike
from tests.wal.waiting import NO_LIMITS, Waiting, make_waiting
from tests.walfiles import CLOCK, Failover

import pgkeep
from pgkeep.errors import Fault
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.repo.walarchive import archive_of
from pgkeep.store.local import LocalStore
from pgkeep.wal import marker
from pgkeep.wal.ahead import Limits, _lock
from pgkeep.wal.backlog import waiting as names_waiting
from pgkeep.wal.claims import adopt
from pgkeep.wal.token import instance_token


@pytest.fixture
def waiting(failover: Failover, tmp_path: Path) -> Waiting:
    made = make_waiting(failover, tmp_path)
    instance_token(made.datadir)  # a token made by the push itself would be younger than the push's terms
    return made


def test_one_call_archives_all_that_waits(waiting: Waiting) -> None:
    assert len(waiting.names) > 5
    waiting.serve(waiting.names[0])
    assert waiting.held() == waiting.names
    assert waiting.marked() == waiting.names


def test_histories_come_first(failover: Failover, tmp_path: Path) -> None:
    promoted = make_waiting(failover, tmp_path, timeline=2)
    assert names_waiting(str(promoted.folder))[0] == "00000002.history"
    segments = [name for name in promoted.names if len(name) == 24]
    store = FaultyStore(LocalStore(promoted.repository))
    promoted.serve(segments[-1], Limits(1, 60.0, 2), store)
    # The claim of the new timeline brings its history along; one file is all the rest that was allowed.
    assert set(promoted.held()) == {segments[-1], "00000002.history"}
    assert promoted.is_archived("00000002.history")


@pytest.mark.parametrize(("limits", "more"), [(Limits(0, 60.0, 2), 0), (Limits(2, 60.0, 2), 2), (Limits(9, 0.0, 2), 0)])
def test_limits(waiting: Waiting, limits: Limits, more: int) -> None:
    waiting.serve(waiting.names[0], limits)
    assert waiting.held() == waiting.marked() == waiting.names[: 1 + more]


def test_nothing_is_begun_before_the_own_file_is_durable(waiting: Waiting) -> None:
    own = waiting.names[2]
    store = FaultyStore(LocalStore(waiting.repository), Strike(Effect.BEFORE, "put", key=lambda key: key.endswith(own)))
    with pytest.raises(Fault):
        waiting.serve(own, NO_LIMITS, store)
    assert waiting.held() == waiting.marked() == []


def test_it_ends_at_the_first_refusal(waiting: Waiting) -> None:
    """The file after the broken one may have been begun already by another process, but no further one."""
    broken = Path(waiting.path(waiting.names[4]))
    content = broken.read_bytes()
    broken.write_bytes(content[:-1])
    waiting.serve(waiting.names[0])
    marked = waiting.marked()
    assert set(waiting.names[:3]) <= set(marked) <= set(waiting.names[:4] + waiting.names[5:7])
    with pytest.raises(Fault):
        waiting.serve(broken.name)
    broken.write_bytes(content)
    waiting.serve(broken.name)
    assert waiting.held() == waiting.names


def test_a_store_that_goes_away_leaves_no_false_marker(waiting: Waiting) -> None:
    for nth in range(4, 60, 7):
        store = FaultyStore(LocalStore(waiting.repository), Strike(Effect.TORN, nth=nth, onward=True))
        try:
            waiting.serve(waiting.names[0], store=store)
        except Fault as fault:
            assert fault.code == "store-unreachable"
        assert set(waiting.marked()) <= set(waiting.held())
    waiting.serve(waiting.names[0])
    assert waiting.held() == waiting.marked() == waiting.names


def test_another_instances_claim_is_a_refusal(waiting: Waiting, tmp_path: Path) -> None:
    waiting.serve(waiting.names[0], Limits(0, 1.0, 1))
    clone = tmp_path / "clone"
    subprocess.run(["cp", "-a", waiting.datadir, clone], check=True)
    adopt(waiting.opened(), clone, CLOCK)
    waiting.serve(waiting.names[0])  # its own file is there already: a success, and then the claim forbids the others
    assert waiting.held() == waiting.marked() == waiting.names[:1]


def test_two_clones_of_which_one_has_worked_ahead(waiting: Waiting, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["cp", "-a", waiting.datadir, clone], check=True)
    other = Waiting(clone, waiting.repository, waiting.config, waiting.names)
    segment = Path(other.path(other.names[4]))
    diverged = bytearray(segment.read_bytes())
    diverged[-10] ^= 1
    segment.write_bytes(diverged)
    waiting.serve(waiting.names[0])
    subprocess.run(["cp", "-a", waiting.markers, clone / "pg_wal"], check=True)  # as a later copy would bring them
    assert other.marked() == []
    with pytest.raises(Fault, match=r"archives since|other content"):
        other.serve(segment.name)
    assert segment.name not in other.marked()


def test_who_comes_second_leaves_the_rest_to_the_first(waiting: Waiting) -> None:
    waiting.serve(waiting.names[0], Limits(0, 1.0, 1))
    lock = _lock(str(waiting.folder))
    assert lock is not None
    assert _lock(str(waiting.folder)) is None
    waiting.archiver().serve(waiting.path(waiting.names[1]), lambda _: NO_LIMITS)
    os.close(lock)
    time.sleep(0.3)
    assert waiting.marked() == waiting.names[:2]


def test_it_ends_with_the_server(waiting: Waiting) -> None:
    """Restarted or stopped: postmaster.pid is another one, or gone."""
    pid = waiting.datadir / "postmaster.pid"
    pid.write_text("1\n")
    second = waiting.names[1]
    strike = Strike(Effect.DELAY, "put", key=lambda key: key.endswith(second), seconds=1.0)
    slow = FaultyStore(LocalStore(waiting.repository), strike)
    waiting.archiver(slow).serve(waiting.path(waiting.names[0]), lambda _: Limits(100, 60.0, 1))
    time.sleep(0.3)
    pid.unlink()
    waiting.wait_idle()
    assert waiting.marked() == waiting.held() == waiting.names[:2]


def test_a_marker_of_an_earlier_boot_saves_the_upload(waiting: Waiting) -> None:
    """The file is hashed again, and the object looked at: nothing is sent."""
    waiting.serve(waiting.names[0])
    name = waiting.names[2]
    known = marker.read(waiting.path(name))
    assert known is not None
    known.boot = "another"
    marker.write(waiting.path(name), known)
    assert not waiting.is_archived(name)
    store = FaultyStore(LocalStore(waiting.repository))
    assert not waiting.serve(name, store=store).new
    assert store.count("put") == 0
    assert waiting.is_archived(name)
    os.unlink(marker.path_of(waiting.path(name)))
    assert not waiting.serve(name, store=store).new
    assert store.count("put") == 1  # without one the store itself must say that the object is durable


# --- killed


def test_kills_of_a_push_that_works_ahead(waiting: Waiting) -> None:
    _kill(waiting, times=6)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_two_hundred_kills_of_a_push_that_works_ahead(waiting: Waiting) -> None:
    _kill(waiting, times=200)


def _kill(waiting: Waiting, *, times: int) -> None:
    """Nothing is marked that is not held, and whoever comes next finishes the work."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    assert _run(waiting).wait() == 0
    waiting.wait_idle()
    partly = 0
    for _ in range(times):
        _forget(waiting)
        process = _run(waiting)
        _await_objects(waiting, process, chance.randrange(len(waiting.names)))
        time.sleep(chance.uniform(0, 0.01))
        _kill_all(process, waiting)
        marked, held = _marked_by_the_program(waiting), waiting.held()
        assert set(marked) <= set(held)
        partly += 0 < len(held) < len(waiting.names)
    print(f"{partly} of {times} were killed in the midst of it")
    for name in waiting.names:  # as PostgreSQL asks: a call whose file is marked only says so
        assert _run(waiting, name).wait() == 0
    waiting.wait_idle()
    assert _marked_by_the_program(waiting) == waiting.held() == waiting.names


def _await_objects(waiting: Waiting, process: subprocess.Popen[bytes], count: int) -> None:
    """Until the repository holds so many WAL files: a moment in the midst of the work, on whatever machine."""
    deadline = time.monotonic() + 60
    while sum(name in waiting.names for _, _, files in os.walk(waiting.repository) for name in files) < count:
        assert time.monotonic() < deadline, f"no {count} files are archived by {process.args!r}"
        time.sleep(0.001)


def _command(waiting: Waiting, name: str) -> list[str]:
    main = Path(pgkeep.__file__).with_name("__main__.py")
    return [sys.executable, "-P", str(main), "--config", str(waiting.config), "wal", "push", f"pg_wal/{name}"]


def _run(waiting: Waiting, name: str = "") -> subprocess.Popen[bytes]:
    command = _command(waiting, name or waiting.names[0])
    return subprocess.Popen(command, cwd=waiting.datadir, env=_environment(), start_new_session=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(pgkeep.__file__).parents[1])}


def _marked_by_the_program(waiting: Waiting) -> list[str]:
    probe = (
        "import os, sys; from pgkeep.cli import fast; from pgkeep.wal import marker; calls = map(fast.parse, ["
        + ", ".join(str(_command(waiting, name)[3:]) for name in waiting.names)
        + "]); print([marker.is_archived(c.operands[0], c.options, os.environ) for c in calls])"
    )
    command, env = [sys.executable, "-c", probe], _environment()
    ran = subprocess.run(command, cwd=waiting.datadir, env=env, capture_output=True, text=True, check=True)
    said = ran.stdout.strip().strip("[]").split(", ")
    return [name for name, answer in zip(waiting.names, said, strict=True) if answer == "True"]


def _forget(waiting: Waiting) -> None:
    """The repository forgets its WAL, and so do the markers, but not the claim."""
    archive = archive_of(waiting.opened(), read_control(waiting.datadir / CONTROL_FILE).system_identifier)
    for key, _ in archive.objects():
        archive.cluster.repository.store.delete(key)
    for path in waiting.markers.iterdir():
        path.unlink()


def _kill_all(process: subprocess.Popen[bytes], waiting: Waiting) -> None:
    """The call, and everything that it has left behind: whoever works in this data directory."""
    process.kill()
    process.wait()
    while pids := [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _works_in(pid, waiting)]:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def _works_in(pid: int, waiting: Waiting) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and Path(os.readlink(f"/proc/{pid}/cwd")) == waiting.datadir
    except OSError:
        return False
