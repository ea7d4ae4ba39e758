"""How much fits where: the free space of a directory's file system, and of what memory that one is made."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_RESERVE_MAX: Final = 128 << 20
_RESERVE_SHARE: Final = 8
_MEMORY_SHARE: Final = 10


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that may be written below a directory."""

    free: int
    in_memory: bool
    may_swap: bool
    """In memory that this machine may write to a swap area on a disk."""

    @property
    def reserve(self) -> int:
        """Bytes that are left free: a program that meets a full file system fails in its own words."""
        return min(_RESERVE_MAX, self.free // _RESERVE_SHARE)


def room_in(directory: str) -> Room:
    """What is free now.  Of a tmpfs no more than the memory that the machine, and this container, can spare."""
    free = free_on_disk(directory)
    in_memory = file_system(directory) in IN_MEMORY
    if in_memory and (spare := spare_memory()) is not None:
        free = min(free, spare)
    return Room(free, in_memory, in_memory and _has_swap())


def free_on_disk(directory: str) -> int:
    """What the directory's file system itself has free."""
    stat = os.statvfs(directory)
    return stat.f_frsize * stat.f_bavail


def spare_memory() -> int | None:
    """What may be put into memory; None where nothing is known."""
    known = [limit for limit in (_spare_memory(), _spare_in_container()) if limit is not None]
    return min(known) if known else None


def file_system(directory: str) -> str:
    """The type of the file system that the directory lies on ('tmpfs', 'ext4'); '' when nobody knows."""
    try:
        device = os.stat(directory).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""


def _spare_memory() -> int | None:
    """MemAvailable without a tenth of the machine's memory: a full tmpfs must not cost a server its life."""
    found: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name in {"MemTotal", "MemAvailable"}:
                found[name] = int(value.split()[0]) << 10
    if len(found) < 2:
        return None
    return max(0, found["MemAvailable"] - found["MemTotal"] // _MEMORY_SHARE)


def _spare_in_container() -> int | None:
    """What the control group still allows (version 2); pages of a tmpfs count there."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii").strip()
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def _has_swap() -> bool:
    """Whether there is a swap area that is not memory itself (zram)."""
    with suppress(OSError):
        lines = Path("/proc/swaps").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
        return any(not line.startswith("/dev/zram") for line in lines if line.strip())
    return False
