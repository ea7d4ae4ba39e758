"""How the owner of a running server restarts it: the command to show, never run here.

1. Debian's clusters have their configuration in /etc/postgresql/VERSION/NAME and are kept by postgresql-common
   (pg_ctlcluster(1)); under systemd each is an instance of the unit postgresql@.service.
2. A server that another systemd unit started is restarted by that unit: pg_ctl would make systemd think that it failed.
3. A server that is process 1 of a container ends with the container.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgkeep.pg.instance import read_postmaster

_DEBIAN: Final = re.compile(r"/etc/postgresql/([0-9.]+)/([^/]+)/postgresql\.conf")
_UNIT: Final = re.compile(r"/system\.slice/(?:[^/]+\.slice/)*([^/]+)\.service$")


@dataclass(frozen=True, slots=True)
class Supervision:
    """What starts a server: facts of this machine and of the postmaster; '' for what is not known."""

    has_systemd: bool
    has_pg_ctlcluster: bool
    pid: int
    unit: str
    """The systemd service in whose control group the postmaster runs."""
    bindir: str


def supervision(data_directory: str) -> Supervision:
    """Look at the server that runs on `data_directory`, as far as this account may."""
    try:
        running = read_postmaster(Path(data_directory))
    except OSError:
        running = None
    pid = running.pid if running else 0
    return Supervision(
        has_systemd=os.path.isdir("/run/systemd/system"),
        has_pg_ctlcluster=os.access("/usr/bin/pg_ctlcluster", os.X_OK),
        pid=pid,
        unit=_unit(pid),
        bindir=_bindir(pid),
    )


def restart_command(config_file: str, data_directory: str, by: Supervision) -> str:
    """The command (or, for a container, the words) that restarts the server; pure."""
    debian = _DEBIAN.fullmatch(config_file)
    if debian is not None and by.has_pg_ctlcluster:
        version, name = debian[1], debian[2]
        if by.has_systemd:
            return f"sudo systemctl restart {shlex.quote(f'postgresql@{version}-{name}')}"
        return f"pg_ctlcluster {version} {shlex.quote(name)} restart"
    if by.has_systemd and by.unit:
        return f"sudo systemctl restart {shlex.quote(by.unit)}"
    if by.pid == 1:
        return "restart this container: the server is its first process"
    program = os.path.join(by.bindir, "pg_ctl")
    return shlex.join([program, "restart", "-D", data_directory])


def _unit(pid: int) -> str:
    """From /proc/PID/cgroup; user sessions and scopes are no services."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            matches = [_UNIT.search(line.rstrip("\n").split(":", 2)[-1]) for line in file]
    except OSError:
        return ""
    return next((match[1] for match in matches if match is not None), "")


def _bindir(pid: int) -> str:
    try:
        return os.path.dirname(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""
