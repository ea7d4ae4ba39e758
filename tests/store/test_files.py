"""The system calls behind LocalStore: cut short, answered oddly, or not to be had."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from pgkeep.errors import Fault
from pgkeep.store import files
from pgkeep.store.local import LocalStore
from tests.store.contract import listed, raises
from tests.store.local_children import everything_under
from tests.store.starting import failing


def test_short_writes_and_reads_are_continued(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    monkeypatch.setattr(os, "pread", lambda fd, length, start: pread(fd, min(length, 7), start))
    store = LocalStore(root)
    store.put("a", [bytes(range(100)), b"", bytes(range(100, 200))])
    assert store.get("a") == bytes(range(200))
    assert store.get("a", 150, 20) == bytes(range(150, 170))


def test_short_reads_into_memory_are_continued(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalStore(root).put("a", [bytes(range(200))])
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, start: preadv(fd, [views[0][:7]], start))
    descriptor = os.open(f"{root}/a", os.O_RDONLY)
    found = bytearray(60)
    assert files.read_into(descriptor, 100, memoryview(found)) == 60
    assert found == bytes(range(100, 160))
    assert files.read_into(descriptor, 170, memoryview(found)) == 30
    os.close(descriptor)


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
