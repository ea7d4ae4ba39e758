"""Programs that test_local_hardship starts, because they die, lose their rights, or mount.

`python local_children.py NAME ARGUMENTS`; each ends with status 0 when what it asserts holds.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pgkeep.store.port  # noqa: F401  (while the account may still read it)
from pgkeep.errors import Fault
from pgkeep.store import files
from pgkeep.store.local import LocalStore

NOBODY = 65534
BIG = 3 << 20


def content_of(key: str) -> bytes:
    """Long enough to be cut in the middle, and different for every key."""
    return key.encode() * (400_000 // len(key))


def code_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Fault as fault:
        assert fault.hint or fault.code in ("object-missing", "object-exists"), fault.message
        return fault.code
    return "done"


def everything_under(root: str) -> list[str]:
    return sorted(name for _, _, names in os.walk(root) for name in names)


def put_for_ever(root: str) -> None:
    """Put objects until killed; a line for each before and after."""
    store = LocalStore(root)
    for number in range(100_000):
        key = f"wal/{number // 4:08d}/{number:08d}"
        content = content_of(key)
        print("begun", key, flush=True)
        store.put(key, [content[:100_000], content[100_000:]])
        print("done", key, flush=True)


def race(root: str, writer: str) -> None:
    """Claim each key as it is named on standard input, and say whether it was won."""
    store = LocalStore(root)
    for line in sys.stdin:
        won = code_of(partial(store.put, line.strip(), [writer.encode() * 50_000]))
        assert won in ("done", "object-exists"), won
        print(won, flush=True)


def die_at_every_system_call(root: str) -> None:
    """Run one put for each system call in it, and end the process instead of making that call."""
    for number in range(1, 100):
        child = os.fork()
        if child == 0:
            _die_at(number)
            LocalStore.create(f"{root}/{number}").put("a/b/c", [content_of("x"), content_of("y")])
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            print(number - 1)
            return
    raise AssertionError("a put does not make a hundred system calls")


def _die_at(number: int) -> None:
    made = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                os._exit(9)
            if call is real_write:
                # Half of it, so that the next call finds the file torn.
                return call(args[0], args[1][: max(1, len(args[1]) // 2)]) if len(args[1]) > 200_000 else call(*args)
            return call(*args, **kwargs)

        return counting

    real_write = os.write
    for name in ("mkdir", "open", "write", "fsync", "link", "unlink", "close"):
        setattr(os, name, counted(getattr(os, name)))


def limited_file_size(root: str) -> None:
    store = LocalStore(root)
    store.put("before", [b"x"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    _has_no_room(store, root)


def full_disk(root: str) -> None:
    """In a private mount namespace."""
    _mount(root, "size=2m")
    store = LocalStore(root)
    store.put("before", [b"x"])
    _has_no_room(store, root)
    while code_of(lambda: store.put(f"fill/{random.getrandbits(64)}", [bytes(60_000)])) == "done":
        pass
    while code_of(lambda: store.put(f"fill/{random.getrandbits(64)}", [b"x"])) == "done":
        pass
    # What is there is answered for on a full disk too, and deleting makes room.
    assert code_of(lambda: store.put("before", [b"x"])) == "object-exists"
    for found in store.list("fill/"):
        store.delete(found.key)
    store.put("after", [bytes(1 << 20)])


def _has_no_room(store: LocalStore, root: str) -> None:
    assert code_of(lambda: store.put("a/b/big", [bytes(BIG)])) == "store-full"
    assert [found.key for found in store.list()] == ["before"]
    assert everything_under(root) == ["before"], "a failed put leaves no file behind"
    store.put("a/b/small", [b"y"])
    store.delete("a/b/small")


def read_only_mount(root: str) -> None:
    """In a private mount namespace."""
    _mount(root, "size=2m")
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
    assert code_of(lambda: store.put("a/c", [b"x"])) == "store-read-only"
    assert code_of(lambda: store.put("new/c", [b"x"])) == "store-read-only"
    assert code_of(lambda: store.delete("a/b")) == "store-read-only"
    assert code_of(lambda: store.put("a/b", [b"x"])) == "object-exists"
    assert store.get("a/b") == b"x"


def unmounted(root: str) -> None:
    """In a private mount namespace: below the mount lies an empty directory of the same name."""
    _mount(root, "size=2m")
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    store.put("c/d", [b"x"])
    listing = store.list()
    next(listing)
    subprocess.run(["umount", root], check=True)
    for call in (
        lambda: store.put("e", [b"x"]),
        lambda: store.get("a/b"),
        lambda: store.stat("a/b"),
        lambda: [*store.list()],
        lambda: [*listing],
        store.list_parts,
        lambda: store.delete("a/b"),
        lambda: store.remove_leftovers(0),
    ):
        assert code_of(call) == "store-unreachable"
    assert os.listdir(root) == []


def unmounted_in_a_put(root: str) -> None:
    """In a private mount namespace: the put has looked at the root, and then the mount goes."""
    _mount(root, "size=2m")
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    real = files.create

    def too_late(path: str) -> int:
        files.create = real
        subprocess.run(["umount", root], check=True)
        return real(path)

    files.create = too_late
    assert code_of(lambda: store.put("a/c", [b"x"])) == "store-unreachable"
    assert os.listdir(root) == [], "nothing may be written below the mount point"


def mounted_anew(root: str) -> None:
    """In a private mount namespace: a second mount in the first one's place has another device number."""
    _mount(root, "size=2m")
    store = LocalStore(root)
    store.put("a/b", [b"x"])
    before = os.stat(root)
    _mount(root, "size=2m")
    after = os.stat(root)
    assert before.st_dev != after.st_dev
    assert before.st_ino == after.st_ino
    store.put("a/b", [b"y"])
    assert store.get("a/b") == b"y"
    subprocess.run(["umount", root], check=True)
    assert store.get("a/b") == b"x"


def _mount(root: str, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=True)


def without_rights(root: str) -> None:
    """As an account without rights on `root`/closed (0700 of root), read rights on `root`/readable only."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    closed = LocalStore(f"{root}/closed")
    for call in (
        lambda: closed.put("a", [b"x"]),
        lambda: closed.get("there"),
        lambda: closed.stat("there"),
        lambda: [*closed.list()],
        closed.list_parts,
        lambda: closed.delete("there"),
    ):
        assert code_of(call) == "store-denied"
    readable = LocalStore(f"{root}/readable")
    assert readable.get("there") == b"x"
    assert code_of(lambda: readable.put("a", [b"x"])) == "store-denied"
    assert code_of(lambda: readable.put("folder/a", [b"x"])) == "store-denied"
    assert code_of(lambda: readable.delete("there")) == "store-denied"
    assert code_of(lambda: readable.get("secret")) == "store-denied"
    assert code_of(lambda: LocalStore.create(f"{root}/readable/new")) == "store-denied"
    # An unreadable folder is said, never passed over: a listing that lacks objects would look complete.
    partly = LocalStore(f"{root}/partly")
    assert code_of(lambda: [*partly.list()]) == "store-denied"
    assert code_of(partly.list_parts) == "store-denied"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
