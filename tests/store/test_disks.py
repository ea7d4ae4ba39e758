"""Disks by what this machine's kernel says."""

from __future__ import annotations

import os
from pathlib import Path

from pgkeep.store.disks import disks_of, existing_parent, share_a_disk


def test_a_directory_shares_a_disk_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert share_a_disk(str(tmp_path / "data"), str(tmp_path / "not/yet/there"))


def test_memory_is_another_place(tmp_path: Path) -> None:
    if os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev:
        assert not share_a_disk("/dev/shm/repository", str(tmp_path))
    assert disks_of("/proc") == frozenset()


def test_the_disks_are_the_kernels(tmp_path: Path) -> None:
    assert disks_of(str(tmp_path)) <= set(os.listdir("/sys/block"))


def test_the_nearest_directory_that_is_there(tmp_path: Path) -> None:
    assert existing_parent(str(tmp_path / "a/b")) == str(tmp_path)
    assert existing_parent("/") == "/"
