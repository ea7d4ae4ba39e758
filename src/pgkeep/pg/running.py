"""Which data directories servers of this machine work on, as far as this account may see.

A server's processes have their data directory as working directory (miscinit.c, ChangeToDataDir).  Where that may not
be read, the answer says so: not knowing must not look like "nobody".
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pgkeep.pg.instance import quoted_value, read_postmaster


@dataclass(frozen=True, slots=True)
class RunningServers:
    """Data directories of running servers (absolute), and how many server processes could not be looked at."""

    directories: frozenset[str]
    unseen: int
    unseen_accounts: frozenset[str] = frozenset()
    """Under whose names the unseen ones run."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server as its postmaster.pid describes it; `socket_directory` is '' when it listens on TCP alone."""

    directory: str
    port: int
    socket_directory: str

    @property
    def conninfo(self) -> str:
        """A libpq connection string, with the role left to libpq."""
        return f"host={quoted_value(self.socket_directory or 'localhost')} port={self.port}"


def running_servers() -> RunningServers:
    """Ask /proc."""
    directories: set[str] = set()
    accounts: set[str] = set()
    unseen = 0
    for name in os.listdir("/proc"):
        if not name.isdecimal() or not _is_server(name):
            continue
        try:
            directories.add(os.readlink(f"/proc/{name}/cwd"))
        except PermissionError:
            unseen += 1
            accounts.update(_account_of(name))
        except OSError:
            continue  # it has ended
    return RunningServers(frozenset(directories), unseen, frozenset(accounts))


def local_servers(servers: RunningServers) -> tuple[LocalServer, ...]:
    """How to reach those servers whose data directory is known, by port."""
    found = []
    for directory in servers.directories:
        try:
            running = read_postmaster(Path(directory))
        except OSError:
            continue
        if running is not None:
            found.append(LocalServer(directory, running.port, running.socket_dir))
    return tuple(sorted(found, key=lambda server: (server.port, server.directory)))


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


def _account_of(pid: str) -> list[str]:
    with suppress(OSError, KeyError):
        return [pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name]
    return []
