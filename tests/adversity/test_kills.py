"""SIGKILL, Ctrl-C and SIGTERM at random moments of push and restore (of backup: tests/backup/test_job.py)."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.pg.account import give
from pgkeep.pg.instance import Instance, server_pids
from pgkeep.restore.mark import is_unfinished
from tests.adversity.conftest import Past, refused, rows, started
from tests.aim import Aim
from tests.keeping import Kept


def _state(kept: Kept) -> dict[str, tuple[int, int]]:
    """Every file of the repository, as far as a change would show; WAL indexes and leases are notes."""
    files = [path for path in kept.repository.rglob("*") if path.is_file() and not {"windex", "leases"} & {*path.parts}]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def _remove(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(f"{target}-tablespaces", ignore_errors=True)


# --- restore


def test_restores_are_killed(past: Past, aside: Kept, seed: int) -> None:
    _kill_restores(aside, times=5, seed=seed)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_a_hundred_restores_are_killed(past: Past, aside: Kept, seed: int) -> None:
    _kill_restores(aside, times=100, seed=seed)


def _kill_restores(kept: Kept, *, times: int, seed: int) -> None:
    """Whatever is left cannot start, unless it is complete; the repository is as it was."""
    chance = random.Random(seed)
    before = _state(kept)
    target = kept.home / "restored"
    began = time.monotonic()
    kept.run("restore", str(target))
    aim = Aim(chance, time.monotonic() - began)
    unfinished = 0
    for turn in range(times):
        _remove(target)
        process = kept.start("restore", str(target))
        # Half of them once writing has begun: a restore spends most of its time before that.
        if turn % 2:
            kept.wait(lambda: target.exists() or process.poll() is not None, "nothing is written")  # noqa: B023
            assert target.exists(), process.communicate()
            time.sleep(0.3 * aim.moment())
        else:
            time.sleep(aim.moment())
        if chance.random() < 0.5:
            process.kill()  # its workers are left to find out by themselves
        kept.kill(process)
        process.communicate()
        aim.came(late=(target / "global/pg_control").exists())
        if target.exists() and not (target / "global/pg_control").exists():
            unfinished += 1
            _check_it_cannot_start(kept, target)
    assert unfinished, "no restore was killed while it wrote"
    print(f"{unfinished} were killed while they wrote")
    aim.check()
    _remove(target)
    with started(kept, target) as server:
        assert rows(server) == [1, 2, 3]
        assert server.value("SELECT count(*) FROM big") == 40000
    assert _state(kept) == before


def _check_it_cannot_start(kept: Kept, target: Path) -> None:
    instance = Instance(kept.cluster.programs, target, kept.account, kept.home, kept.home / "left.log")
    instance.start()
    with pytest.raises(Fault):
        instance.wait_ready(30)
    assert server_pids(target) == ()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_restore_leaves_what_cannot_start(past: Past, aside: Kept, number: int) -> None:
    target = aside.home / "to be restored"
    process = aside.start("restore", str(target))
    aside.wait((target / "base").exists, "nothing is written")
    # Ctrl-C reaches the whole foreground group, the workers too; SIGTERM the one process that is named.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    assert is_unfinished(str(target)) and not (target / "global/pg_control").exists()
    error = refused(aside, target, code="target-not-empty")
    remove = shlex.split(error["hint"].split(": ", 1)[1])
    (oid,) = os.listdir(f"{target}-tablespaces")
    # The link to the tablespace comes before any file of it: without one there is nothing to remove.
    assert remove in (["rm", "-r", str(target), *more] for more in ([], [f"{target}-tablespaces/{oid}"]))
    subprocess.run(remove, check=True)
    target.mkdir()
    give(aside.account, [target])
    aside.run("restore", str(target))
    assert (target / "global/pg_control").exists() and not is_unfinished(str(target))


def test_an_interrupted_recovery_leaves_no_server(past: Past, aside: Kept) -> None:
    """Ctrl-C while `restore --start` follows the recovery, which waits for WAL."""
    slow, entry = aside.home / "slow", aside.home / "entry"
    words = " ".join(f"'{word}'" for word in aside.program)
    slow.write_text(
        f'#!/bin/sh\ncase "$*" in *--lineage*) touch {aside.home}/asked; sleep 60;; esac\nexec {words} "$@"\n'
    )
    made_for_the_account = Path(aside.program[0])
    if "PGKEEP_PROGRAM=" in made_for_the_account.read_text(errors="replace"):  # it would overrule the environment
        entry.write_text(made_for_the_account.read_text().replace(f"M={made_for_the_account} ", f"M={slow} "))
    else:
        entry.write_text(f'#!/bin/sh\nPGKEEP_PROGRAM={slow} exec {words} "$@"\n')
    for script in (slow, entry):
        script.chmod(0o755)
    target = aside.home / "restored"
    process = Kept(aside.cluster, aside.home, (str(entry),)).start("restore", str(target), "--start")
    aside.wait((aside.home / "asked").exists, "recovery does not begin")
    assert server_pids(target)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert server_pids(target) == ()


# --- push


def test_pushes_are_killed(past: Past, aside: Kept, seed: int) -> None:
    _kill_pushes(past, aside, times=8, seed=seed)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_hundred_pushes_are_killed(past: Past, aside: Kept, seed: int) -> None:
    _kill_pushes(past, aside, times=100, seed=seed)


def _kill_pushes(past: Past, kept: Kept, *, times: int, seed: int) -> None:
    """The repository holds the whole segment or none, and the next push succeeds."""
    chance = random.Random(seed)
    pushing = _archiver(past, kept)
    file, stored = _taken_out(pushing, kept)
    began = time.monotonic()
    pushing.run("wal", "push", str(file))
    aim = Aim(chance, time.monotonic() - began, begin=0.7)  # what comes before are imports
    for _ in range(times):
        stored.unlink()
        process = pushing.start("wal", "push", str(file))
        time.sleep(aim.moment())
        kept.kill(process)
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        assert stored.exists() or process.returncode != 0
        aim.came(late=stored.exists())
        if stored.exists():
            assert _got(pushing, kept, stored.name) == file.read_bytes()
        pushing.run("wal", "push", str(file))
    aim.check()
    assert _got(pushing, kept, stored.name) == file.read_bytes()
    assert kept.result("verify")["sound"] is True


def test_two_pushes_of_one_segment_at_once(past: Past, aside: Kept) -> None:
    """Equal ones both succeed; of different ones exactly one does, and its bytes are the ones that are kept."""
    pushing = _archiver(past, aside)
    file, stored = _taken_out(pushing, aside)
    content = file.read_bytes()
    other = aside.home / "other" / file.name
    other.parent.mkdir()
    other.write_bytes(content[:-100] + bytes(99) + b"x")
    for second in (file, other):
        for _ in range(2):
            stored.unlink(missing_ok=True)
            racers = [pushing.start("wal", "push", str(path)) for path in (file, second)]
            said = [process.communicate(timeout=60)[1] for process in racers]
            statuses = [process.returncode for process in racers]
            if second is file:
                assert statuses == [0, 0], said
            else:
                assert sorted(statuses) == [0, 1], said
                assert "archived already with other content" in said[statuses.index(1)]
            winner = (file, second)[statuses.index(0)]
            assert _got(pushing, aside, stored.name) == winner.read_bytes()


def test_what_archive_command_should_not_be_called_for(past: Past, aside: Kept) -> None:
    pushing = _archiver(past, aside)
    server = past.kept.cluster.datadir
    before = _state(aside)
    named = aside.home / ("0" * 7 + "1" + "0" * 14 + "FF")
    named.write_text("no WAL")
    for path in (server / "PG_VERSION", server / "pg_wal", server / "absent", named, aside.home / "000000010000000000"):
        done = pushing.run("wal", "push", str(path), check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert _state(aside) == before


def _archiver(past: Past, kept: Kept) -> Kept:
    """Runs the program in production's data directory, as archive_command does."""
    program = ("sh", "-c", 'cd "$0" && exec "$@"', str(past.kept.cluster.datadir), *kept.program)
    return Kept(kept.cluster, kept.home, program)


def _taken_out(pushing: Kept, kept: Kept) -> tuple[Path, Path]:
    """A segment as a file, and its object, which is to be put back by pushing."""
    stored = kept.wal()[-1]
    file = kept.home / stored.name
    file.write_bytes(_got(pushing, kept, stored.name))
    give(kept.account, [file])
    stored.unlink()
    return file, stored


def _got(pushing: Kept, kept: Kept, name: str) -> bytes:
    got = kept.home / "got"
    pushing.run("wal", "get", name, str(got))
    return got.read_bytes()
