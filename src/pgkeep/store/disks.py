"""On which disks a directory lies: a copy beside the original is lost with it.

1. Only what the kernel says counts (stat(2), /proc/self/mountinfo, /sys/dev/block); nothing is guessed from names.
2. Partitions and device-mapper volumes lead to the disks below them, so two partitions of one disk are one disk.
3. What no local disk is known for (a network file system, memory) shares a disk with nothing but itself.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

_MOUNTS = "/proc/self/mountinfo"
_BLOCK = "/sys/dev/block"


def existing_parent(path: str) -> str:
    """`path` (absolute), or the nearest directory above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def share_a_disk(one: str, other: str) -> bool:
    """True when the directories (absolute; they need not exist yet) lie on one file system or on one disk."""
    first, second = existing_parent(one), existing_parent(other)
    if os.stat(first).st_dev == os.stat(second).st_dev:
        return True
    return bool(disks_of(first) & disks_of(second))


def disks_of(path: str) -> frozenset[str]:
    """Kernel names of the disks ('sda', 'nvme0n1') below an existing path; empty when none is known."""
    device = os.stat(path).st_dev
    if os.major(device) == 0:  # btrfs, overlay, NFS: the mount names the device, if there is one
        device = _mounted_device(path)
    return _disks(device) if device else frozenset()


def _mounted_device(path: str) -> int:
    """st_rdev of the block device that is mounted at or above `path`; 0 when it is none."""
    real = os.path.realpath(path)
    best, source = "", ""
    with suppress(OSError), open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            point = fields[4].replace("\\040", " ")
            if len(point) >= len(best) and f"{real}/".startswith(f"{point.rstrip('/')}/"):
                best, source = point, fields[fields.index("-") + 2]
    with suppress(OSError):
        found = os.stat(source)
        if stat.S_ISBLK(found.st_mode):
            return found.st_rdev
    return 0


def _disks(device: int) -> frozenset[str]:
    home = os.path.realpath(f"{_BLOCK}/{os.major(device)}:{os.minor(device)}")
    if not os.path.isdir(home):
        return frozenset()
    if os.path.exists(f"{home}/partition"):
        return frozenset({os.path.basename(os.path.dirname(home))})
    with suppress(OSError):
        below = [_device_number(f"{home}/slaves/{name}/dev") for name in os.listdir(f"{home}/slaves")]
        if below:
            return frozenset().union(*(_disks(number) for number in below))
    return frozenset({os.path.basename(home)})


def _device_number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        major, _, minor = file.read().strip().partition(":")
    return os.makedev(int(major), int(minor))
