"""LocalStore passes the contract, also without hard links; and keeps it when killed, full, unmounted or shut out."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgkeep.errors import Fault
from pgkeep.store import files
from pgkeep.store.local import LocalStore
from pgkeep.store.port import Store
from tests.requirements import need
from tests.store.contract import StoreContract, in_threads, listed, raises
from tests.store.local_children import content_of, everything_under

HERE = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> str:
    LocalStore.create(tmp_path / "store")
    return str(tmp_path / "store")


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


def failing(number: int) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def child(*arguments: str, command: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    """A program of local_children, started but not awaited."""
    return subprocess.Popen(
        [*command, sys.executable, "-m", "tests.store.local_children", *arguments],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": f"{HERE}/src"},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def run_child(*arguments: str, command: tuple[str, ...] = ()) -> str:
    with child(*arguments, command=command, stderr=subprocess.PIPE) as process:
        output, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    return output


def private_mounts() -> tuple[str, ...]:
    """The command that gives a program its own mounts, which end with it."""
    command = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        need("mount-namespace", "there is no unshare(1)")
    if tried.returncode:
        need("mount-namespace", tried.stderr.strip())
    return command


# --- durability and atomicity


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


def test_short_writes_and_reads_are_continued(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    monkeypatch.setattr(os, "pread", lambda fd, length, start: pread(fd, min(length, 7), start))
    store = LocalStore(root)
    store.put("a", [bytes(range(100)), b"", bytes(range(100, 200))])
    assert store.get("a") == bytes(range(200))
    assert store.get("a", 150, 20) == bytes(range(150, 170))


def test_a_network_file_system_may_report_its_own_success_as_a_clash(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_twice(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    LocalStore(root).put("a/b", [b"mine"])
    assert everything_under(root) == ["b"]
    assert LocalStore(root).get("a/b") == b"mine"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def test_every_way_to_say_no_hard_links_leads_to_the_rename(
    root: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    LocalStore(root).put("a/b", [b"x"])
    with raises("object-exists"):
        LocalStore(root).put("a/b", [b"y"])
    assert everything_under(root) == ["b"]
    assert LocalStore(root).get("a/b") == b"x"


@pytest.mark.parametrize("missing", ["libc", "file system"])
def test_without_links_and_without_a_safe_rename_nothing_is_written(
    root: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    import ctypes

    class Libc:
        def __init__(self, *_args: Any, **_kwargs: Any) -> None:
            if missing == "file system":
                self.renameat2 = lambda *_: -1

    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    monkeypatch.setattr(ctypes, "CDLL", Libc)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINVAL)
    with pytest.raises(Fault, match="neither hard links") as caught:
        LocalStore(root).put("a/b", [b"x"])
    assert caught.value.code == "store-denied"
    assert everything_under(root) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF])
def test_a_file_system_that_cannot_sync_directories_is_bearable(
    root: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    assert store.get("a/b") == b"x"
    store.delete("a/b")
    assert listed(store) == []


def test_a_put_outlives_deletes_that_take_its_folders(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = files.create_temporary
    lost: list[str] = []

    def after_a_delete(folder: str) -> tuple[int, str]:
        if os.path.isdir(folder) and len(lost) < 5:
            lost.append(folder)
            os.removedirs(folder)
            os.makedirs(root, exist_ok=True)
        return create(folder)

    monkeypatch.setattr(files, "create_temporary", after_a_delete)
    LocalStore(root).put("a/b/c", [b"x"])
    assert len(lost) == 5
    assert listed(LocalStore(root)) == ["a/b/c"]


def test_a_put_that_always_loses_its_folder_gives_up(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "mkdir", lambda *_: None)
    with raises("store-unreachable"):
        LocalStore(root).put("a/b/c", [b"x"])


# --- rights and media


def test_what_is_written_is_private(root: str) -> None:
    before = os.umask(0)
    try:
        LocalStore(root).put("a/b", [b"x"])
    finally:
        os.umask(before)
    modes = [os.stat(f"{root}{path}").st_mode & 0o7777 for path in ("", "/a", "/a/b")]
    assert modes == [0o700, 0o700, 0o600]


def test_a_limit_on_file_sizes_is_a_full_store(root: str) -> None:
    run_child("limited_file_size", root)


@pytest.mark.parametrize("program", ["full_disk", "read_only_mount", "unmounted"])
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


def test_create_takes_a_directory_that_is_there(root: str) -> None:
    LocalStore(root).put("a", [b"x"])
    assert listed(LocalStore.create(root)) == ["a"]


@pytest.mark.parametrize("path", ["", "relative", "./a", "~/a"])
def test_a_relative_root_is_a_mistake(path: str) -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        LocalStore(path)


# --- foreign files and leftovers


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


# --- in and between processes


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
