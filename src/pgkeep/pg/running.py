"""Which data directories servers of this machine work on, as far as this account may see.

A server's processes have their data directory as working directory (miscinit.c, ChangeToDataDir).  Where that may not
be read, the answer says so: not knowing must not look like "nobody".
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunningServers:
    """Data directories of running servers (absolute), and how many server processes could not be looked at."""

    directories: frozenset[str]
    unseen: int


def running_servers() -> RunningServers:
    """Ask /proc."""
    directories: set[str] = set()
    unseen = 0
    for name in os.listdir("/proc"):
        if not name.isdecimal() or not _is_server(name):
            continue
        try:
            directories.add(os.readlink(f"/proc/{name}/cwd"))
        except PermissionError:
            unseen += 1
        except OSError:
            continue  # it has ended
    return RunningServers(frozenset(directories), unseen)


def tablespaces_in_use(servers: RunningServers) -> dict[str, str]:
    """Resolved tablespace directories that running servers link: directory -> the server's data directory."""
    found: dict[str, str] = {}
    for directory in servers.directories:
        links = os.path.join(directory, "pg_tblspc")
        try:
            names = os.listdir(links)
        except OSError:
            continue
        found.update((os.path.realpath(os.path.join(links, name)), directory) for name in names)
    return found


def _is_server(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in {"postgres", "postmaster"}
    except OSError:
        return False
