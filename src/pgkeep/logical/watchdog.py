"""A process of its own that cleans up when its parent dies without a word; the standard library alone (see `guard`).

Orders come line by line on stdin: `watch PID START`, `forget PID`, `remove PATH`, `keep PATH`, `done`.  When stdin ends
without `done`, the parent is dead: the programs still watched are ended, their groups with them, and the paths removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

PATIENCE = 5.0
"""Seconds between the request to end and the kill."""


def start_time(pid: int) -> str | None:
    """What tells a process from a later one with its number: field 22 of /proc/PID/stat; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]


def main() -> None:
    """Read orders until the parent has none."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, str] = {}
    paths: list[str] = []
    for line in sys.stdin.buffer:
        order, _, rest = line.rstrip(b"\n").partition(b" ")
        if order == b"done":
            return
        if order == b"watch":
            pid, _, started = rest.decode().partition(" ")
            watched[int(pid)] = started
        elif order == b"forget":
            watched.pop(int(rest), None)
        elif order == b"remove":
            paths.append(os.fsdecode(bytes.fromhex(rest.decode())))
        elif order == b"keep":
            paths.remove(os.fsdecode(bytes.fromhex(rest.decode())))
    end_all(watched)
    for path in paths:
        remove(path)


def end_all(watched: dict[int, str]) -> None:
    """Ask them to end, go on when they were paused, and kill what remains."""
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal_all(watched, number)
    deadline = time.monotonic() + PATIENCE
    while any(start_time(pid) == started for pid, started in watched.items()) and time.monotonic() < deadline:
        time.sleep(0.02)
    signal_all(watched, signal.SIGKILL)


def signal_all(watched: dict[int, str], number: int) -> None:
    """To the group of each that is still the process that was meant."""
    for pid, started in watched.items():
        if start_time(pid) == started:
            with suppress(OSError):
                os.killpg(pid, number)


def remove(path: str) -> None:
    """A file or a tree, also while somebody who is dying still writes into it."""
    for _ in range(50):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(path)
        if not os.path.lexists(path):
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()
