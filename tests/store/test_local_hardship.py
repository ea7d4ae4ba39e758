"""LocalStore keeps the contract when it is killed, raced by processes, out of room, unmounted or shut out."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.store.local import LocalStore
from tests.store.contract import listed, raises
from tests.store.local_children import content_of, everything_under
from tests.store.starting import child, private_mounts, run_child


def test_a_put_that_dies_at_any_system_call_shows_all_or_nothing(tmp_path: Path) -> None:
    points = int(run_child("die_at_every_system_call", str(tmp_path)))
    whole = content_of("x") + content_of("y")
    shown = []
    for number in range(1, points + 1):
        if not (tmp_path / str(number)).is_dir():
            continue  # died before the root was made
        store = LocalStore(tmp_path / str(number))
        shown.append(listed(store) == ["a/b/c"])
        assert store.list_parts() == (["a/"] if shown[-1] else [])
        if not shown[-1]:
            with raises("object-missing"):
                store.get("a/b/c")
            store.put("a/b/c", [whole])
        assert store.get("a/b/c") == whole
        store.remove_leftovers(0)
        assert everything_under(str(tmp_path / str(number))) == ["c"]
    assert shown == sorted(shown)
    assert shown.count(False) > 10
    assert shown.count(True) > 3


def test_a_killed_writer_leaves_whole_objects_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(20260507)
    cut_short = 0
    for turn in range(60):
        if turn >= 8 and cut_short >= 3:
            break
        root = str(tmp_path / str(turn))
        LocalStore.create(root)
        begun, done = kill_after(root, chance.uniform(0.0, 0.06))
        store = LocalStore(root)
        assert set(done) <= set(listed(store)) <= set(begun)
        for key in listed(store):
            assert store.get(key) == content_of(key)
        cut_short += store.remove_leftovers(0) > 0
        assert len(everything_under(root)) == len(listed(store))
    assert cut_short >= 3, "no kill ever met a put in the middle"


def kill_after(root: str, seconds: float) -> tuple[list[str], list[str]]:
    """Start put_for_ever, kill it; the keys that it had begun, and those whose put had returned."""
    with child("put_for_ever", root) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = [line.split() for line in (first + process.stdout.read()).splitlines()]
    assert process.returncode == -signal.SIGKILL
    return ([key for word, key in lines if word == "begun"], [key for word, key in lines if word == "done"])


def test_of_racing_processes_exactly_one_wins(root: str) -> None:
    writers = "abc"
    racers = [child("race", root, writer, stdin=subprocess.PIPE) for writer in writers]
    try:
        for number in range(40):
            answers = [ask(racer, f"race/{number}/claim") for racer in racers]
            results = [answer() for answer in answers]
            assert sorted(results) == ["done", "object-exists", "object-exists"]
            winner = writers[results.index("done")]
            assert LocalStore(root).get(f"race/{number}/claim") == winner.encode() * 50_000
    finally:
        for racer in racers:
            racer.communicate(timeout=60)
    assert [racer.returncode for racer in racers] == [0, 0, 0]


def ask(racer: subprocess.Popen[str], key: str) -> Callable[[], str]:
    """Send the key now; read the answer when called."""
    assert racer.stdin is not None
    assert racer.stdout is not None
    racer.stdin.write(key + "\n")
    racer.stdin.flush()
    return lambda: racer.stdout.readline().strip()  # type: ignore[union-attr]


def test_a_limit_on_file_sizes_is_a_full_store(root: str) -> None:
    run_child("limited_file_size", root)


@pytest.mark.parametrize("program", ["full_disk", "read_only_mount", "unmounted", "unmounted_in_a_put", "mounted_anew"])
def test_on_a_file_system_of_its_own(root: str, program: str) -> None:
    run_child(program, root, command=private_mounts())


def test_an_account_without_rights_is_told(request: pytest.FixtureRequest) -> None:
    # Not below pytest's own directory, which other accounts cannot enter.
    place = tempfile.mkdtemp(prefix="pgkeep-store-")
    request.addfinalizer(lambda: remove_tree(place))
    os.chmod(place, 0o755)
    for name in ("closed", "readable", "partly"):
        LocalStore.create(f"{place}/{name}").put("there", [b"x"])
    LocalStore(f"{place}/readable").put("secret", [b"x"])
    os.chmod(f"{place}/readable/there", 0o444)
    os.chmod(f"{place}/readable/secret", 0)
    os.chmod(f"{place}/readable", 0o555)
    os.chmod(f"{place}/closed", 0)
    os.mkdir(f"{place}/partly/packs", 0)
    os.chmod(f"{place}/partly", 0o755)
    run_child("without_rights", place)


def remove_tree(place: str) -> None:
    for folder, folders, _ in os.walk(place):
        for name in folders:
            os.chmod(f"{folder}/{name}", 0o700)
    shutil.rmtree(place)
