"""LocalStore passes the contract, also without hard links, in the order of steps that durability needs."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgkeep.store import files
from pgkeep.store.local import LocalStore
from pgkeep.store.port import Store
from tests.store.contract import StoreContract, in_threads, listed, raises
from tests.store.local_children import everything_under
from tests.store.starting import HERE, failing


class TestLocalContract(StoreContract):
    @pytest.fixture
    def store(self, root: str) -> Store:
        return LocalStore(root)

    @pytest.fixture
    def other(self, root: str) -> Store:
        return LocalStore(root + "/")


class TestLocalContractWithoutHardLinks(TestLocalContract):
    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every step towards durability, in order: ('sync', path), ('link', name), ('mkdir', path)."""
    seen: list[tuple[str, str]] = []
    fsync, link, mkdir = os.fsync, os.link, os.mkdir

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def watched_link(source: str, target: str) -> None:
        link(source, target)
        seen.append(("link", target))

    def watched_mkdir(path: str, mode: int) -> None:
        mkdir(path, mode)
        seen.append(("mkdir", path))

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "link", watched_link)
    monkeypatch.setattr(os, "mkdir", watched_mkdir)
    return seen


def test_all_is_durable_before_the_name_and_the_name_before_the_return(root: str, steps: list[tuple[str, str]]) -> None:
    LocalStore(root).put("a/b/c", [b"x"])
    link = steps.index(("link", f"{root}/a/b/c"))
    before, after = steps[:link], steps[link + 1 :]
    assert [path for step, path in before if step == "mkdir"] == [f"{root}/a", f"{root}/a/b"]
    synced = [path for step, path in before if step == "sync"]
    assert synced[0].startswith(f"{root}/a/b/{files.TEMPORARY}")
    assert {root, f"{root}/a"} <= set(synced), "the names of new directories"
    assert after == [("sync", f"{root}/a/b")]


def test_folders_that_another_writer_made_are_made_durable_too(root: str, steps: list[tuple[str, str]]) -> None:
    os.makedirs(f"{root}/a/b")
    steps.clear()
    LocalStore(root).put("a/b/c", [b"x"])
    link = steps.index(("link", f"{root}/a/b/c"))
    assert {("sync", root), ("sync", f"{root}/a")} <= set(steps[:link])


def test_object_exists_is_said_only_of_a_durable_object(root: str, steps: list[tuple[str, str]]) -> None:
    LocalStore(root).put("a/b", [b"x"])
    steps.clear()
    with raises("object-exists"):
        LocalStore(root).put("a/b", [b"x"])
    assert {("sync", root), ("sync", f"{root}/a")} <= set(steps)


def test_a_delete_is_durable_also_when_another_began_it(root: str, steps: list[tuple[str, str]]) -> None:
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    store.put("a/c", [b"x"])
    steps.clear()
    store.delete("a/b")
    assert steps == [("sync", f"{root}/a")]
    store.delete("a/b")
    assert steps == [("sync", f"{root}/a")] * 2


def test_create_makes_the_root_durable(tmp_path: Path, steps: list[tuple[str, str]]) -> None:
    LocalStore.create(tmp_path / "x" / "y")
    assert steps == [
        ("mkdir", f"{tmp_path}/x"),
        ("sync", f"{tmp_path}"),
        ("mkdir", f"{tmp_path}/x/y"),
        ("sync", f"{tmp_path}/x"),
    ]


@pytest.mark.parametrize("broken", ["write", "fsync", "link"])
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EIO, "store-unreachable"),
        (errno.ESTALE, "store-unreachable"),
        (errno.ENOSPC, "store-full"),
        (errno.EDQUOT, "store-full"),
        (errno.EROFS, "store-read-only"),
        (errno.EACCES, "store-denied"),
    ],
)
def test_a_failed_put_leaves_nothing_and_says_why(
    root: str, monkeypatch: pytest.MonkeyPatch, broken: str, number: int, code: str
) -> None:
    store = LocalStore(root)
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, failing(number))
        with raises(code):
            store.put("a/b", [b"x"])
    assert everything_under(root) == []
    assert listed(store) == []
    store.put("a/b", [b"y"])
    assert store.get("a/b") == b"y"


def test_a_put_that_was_interrupted_leaves_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        LocalStore(root).put("a", [b"x"])
    assert everything_under(root) == []


def test_an_error_after_the_link_is_ambiguous(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_break(source: str, target: str) -> None:
        link(source, target)
        monkeypatch.setattr(os, "fsync", failing(errno.EIO))

    monkeypatch.setattr(os, "link", link_and_break)
    with raises("store-unreachable"):
        LocalStore(root).put("a/b", [b"x"])
    assert listed(LocalStore(root)) == ["a/b"]
    # As long as the name cannot be made durable, nobody is told that the object exists.
    with raises("store-unreachable"):
        LocalStore(root).put("a/b", [b"x"])


def test_a_put_outlives_deletes_that_take_its_folders(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = files.create
    lost: list[str] = []

    def after_a_delete(path: str) -> int:
        folder = os.path.dirname(path)
        if os.path.isdir(folder) and len(lost) < 5:
            lost.append(folder)
            os.removedirs(folder)
            os.makedirs(root, exist_ok=True)
        return create(path)

    monkeypatch.setattr(files, "create", after_a_delete)
    LocalStore(root).put("a/b/c", [b"x"])
    assert len(lost) == 5
    assert listed(LocalStore(root)) == ["a/b/c"]


def test_a_put_that_always_loses_its_folder_gives_up(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "mkdir", lambda *_: None)
    with raises("store-unreachable"):
        LocalStore(root).put("a/b/c", [b"x"])


def test_what_is_written_is_private(root: str) -> None:
    before = os.umask(0)
    try:
        LocalStore(root).put("a/b", [b"x"])
    finally:
        os.umask(before)
    modes = [os.stat(f"{root}{path}").st_mode & 0o7777 for path in ("", "/a", "/a/b")]
    assert modes == [0o700, 0o700, 0o600]


CALLS: dict[str, Callable[[LocalStore], Any]] = {
    "put": lambda store: store.put("a/b", [b"x"]),
    "put at the top": lambda store: store.put("a", [b"x"]),
    "get": lambda store: store.get("a/b"),
    "stat": lambda store: store.stat("a/b"),
    "list": lambda store: [*store.list()],
    "list a folder": lambda store: [*store.list("a/")],
    "list_parts": lambda store: store.list_parts("a/"),
    "delete": lambda store: store.delete("a/b"),
    "remove_leftovers": lambda store: store.remove_leftovers(0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("stood", ["never", "before"])
def test_a_missing_root_is_an_outage_and_stays_missing(
    tmp_path: Path, call: Callable[[LocalStore], Any], stood: str
) -> None:
    root = tmp_path / "nas" / "pg"
    store = LocalStore(root)
    if stood == "before":
        LocalStore.create(root).put("a/b", [b"x"])
        store.get("a/b")
        shutil.rmtree(tmp_path / "nas")
    with raises("store-unreachable"):
        call(store)
    assert not (tmp_path / "nas").exists()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_file_in_place_of_the_root_is_an_outage(tmp_path: Path, call: Callable[[LocalStore], Any]) -> None:
    (tmp_path / "root").write_text("not a directory")
    with raises("store-unreachable"):
        call(LocalStore(tmp_path / "root"))
    with raises("store-unreachable"):
        LocalStore.create(tmp_path / "root")


def test_a_listing_notices_that_the_root_went_away(root: str) -> None:
    store = LocalStore(root)
    for key in ("a/1", "b/2", "c/3"):
        store.put(key, [b"x"])
    listing = store.list()
    next(listing)
    shutil.rmtree(root)
    with raises("store-unreachable"):
        list(listing)


@pytest.mark.parametrize(
    ("call", "met"),
    [
        ("get", "open"),
        ("stat", "stat"),
        ("delete", "unlink"),
        ("list_parts", "scandir"),
        ("list", "scandir"),
        ("put", "open"),
    ],
)
def test_a_root_that_goes_away_in_the_middle_of_a_call_is_an_outage(
    root: str, monkeypatch: pytest.MonkeyPatch, call: str, met: str
) -> None:
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    real = getattr(os, met)
    checked: list[str] = []

    def too_late(path: str, *args: Any, **kwargs: Any) -> Any:
        if str(path).startswith(f"{root}/") and not checked:
            checked.append(path)
            shutil.rmtree(root)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, met, too_late)
    with raises("store-unreachable"):
        (CALLS | {"put": lambda store: store.put("c/d", [b"x"])})[call](store)
    assert checked
    assert not os.path.exists(root)


def test_create_takes_a_directory_that_is_there(root: str) -> None:
    LocalStore(root).put("a", [b"x"])
    assert listed(LocalStore.create(root)) == ["a"]


@pytest.mark.parametrize("path", ["", "relative", "./a", "~/a"])
def test_a_relative_root_is_a_mistake(path: str) -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        LocalStore(path)


def test_foreign_names_are_passed_by(root: str) -> None:
    store = LocalStore(root)
    store.put("packs/a", [b"x"])
    for name in ("lost+found", "@eaDir", ".snapshot", "packs/.nfs0001", "packs/sp ace", "packs/ümlaut"):
        os.mkdir(f"{root}/{name}")
        Path(f"{root}/{name}/file").write_text("foreign")
    for name in (".DS_Store", "packs/x~", "packs/\udcff\udcfe", "packs/.tmp-0123"):
        Path(f"{root}/{name}").write_text("foreign")
    os.mkfifo(f"{root}/packs/pipe")
    os.symlink("/nowhere", f"{root}/packs/dangling")
    assert listed(store) == ["packs/a"]
    assert store.list_parts() == ["packs/"]
    assert store.list_parts("packs/") == ["a"]
    with raises("object-missing"):
        store.get("packs/pipe")
    with raises("object-missing"):
        store.stat("packs/pipe")
    with raises("object-exists"):
        store.put("packs/dangling", [b"x"])


def test_an_empty_directory_is_no_folder(root: str) -> None:
    os.makedirs(f"{root}/a/b/c")
    store = LocalStore(root)
    assert store.list_parts() == []
    assert listed(store) == []
    store.put("a/b/d", [b"x"])
    assert store.list_parts("a/b/") == ["d"]


def test_only_stale_leftovers_are_removed(root: str) -> None:
    store = LocalStore(root)
    store.put("a/b/object", [b"x"])
    now = time.time()
    for name, age in (("a/b/.tmp-old", 7200), ("a/.tmp-young", 1800), (".tmp-top", 7200), ("a/b/.other", 7200)):
        Path(f"{root}/{name}").write_bytes(b"half")
        os.utime(f"{root}/{name}", (now - age, now - age))
    os.mkdir(f"{root}/.tmp-directory")
    assert store.remove_leftovers(3600) == 2
    assert everything_under(root) == [".other", ".tmp-young", "object"]
    assert store.remove_leftovers(0) == 1
    assert listed(store) == ["a/b/object"]


def test_the_age_of_a_leftover_is_told_by_the_stores_clock(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(f"{root}/.tmp-now").write_bytes(b"")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert LocalStore(root).remove_leftovers(60) == 0


def test_a_put_whose_file_is_cleared_away_fails_and_shows_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def cleared(descriptor: int) -> None:
        fsync(descriptor)
        for path in Path(root).rglob(".tmp-*"):
            path.unlink()

    monkeypatch.setattr(os, "fsync", cleared)
    with raises("store-unreachable"):
        LocalStore(root).put("a/b", [b"x"])
    assert listed(LocalStore(root)) == []


def test_an_instance_may_be_sent_to_another_process(root: str) -> None:
    store = LocalStore(root)
    store.put("a", [b"x"])
    assert pickle.loads(pickle.dumps(store)).get("a") == b"x"


def test_no_descriptor_is_left_open(root: str) -> None:
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    before = os.listdir("/proc/self/fd")
    for number in range(20):
        store.put(f"c/{number}", [b"x"])
        with raises("object-exists"):
            store.put("a/b", [b"x"])
        with raises("object-missing"):
            store.get("a/c")
        next(store.list())
        store.delete(f"c/{number}")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_put_and_get_load_nothing_slow(root: str) -> None:
    program = (
        "import sys; from pgkeep.store.open import open_store\n"
        f"store = open_store('file://{root}'); store.put('a/b', [b'x']); assert store.get('a/b') == b'x'\n"
        "print(*sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": f"{HERE}/src"},
        capture_output=True,
        text=True,
        check=True,
    )
    slow = {"dataclasses", "inspect", "datetime", "urllib.parse", "ctypes", "pathlib", "threading", "logging", "json"}
    assert slow & set(output.stdout.split()) == set()


def test_threads_that_put_into_one_new_folder_all_succeed(root: str) -> None:
    store = LocalStore(root)
    jobs = [lambda n=n: store.put(f"new/folder/{n}", [b"x"]) for n in range(12)]
    assert in_threads(*jobs) == [None] * 12
    assert len(listed(store)) == 12
