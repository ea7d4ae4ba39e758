"""What one command cost: wall, CPU of its whole process tree, peak memory, and when it printed which line.

The command runs under a process of its own that is a *subreaper* (prctl(2)): what it starts and leaves behind
is handed to that process, so that wait4(2) sees the CPU time of every descendant, also of a detached one.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SAMPLE_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that the command printed (either stream), and when: seconds since its start."""

    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, and bytes of memory.

    `peak_pss` is the largest sum of the tree's proportional set sizes (proc(5)), sampled every 50 ms.
    `machine` is the CPU time of everything on the machine meanwhile, kernel threads included.
    """

    status: int
    wall: float
    user: float
    system: float
    peak_pss: int
    machine: float
    lines: tuple[Line, ...]

    @property
    def cpu(self) -> float:
        return self.user + self.system


def measured(command: tuple[str, ...], account: str | None, environment: dict[str, str], directory: str) -> Cost:
    """Run `command` as `account` (None: as the caller) to its end and to that of all its descendants."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_supervise, command, account, environment, directory).result()


def tree_ticks(pid: int) -> float:
    """CPU seconds of `pid`, of its living descendants and of the dead ones that they waited for."""
    total = 0.0
    for process in (pid, *_descendants(pid)):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15]) / _TICKS  # utime stime cutime cstime, proc(5)
    return total


def _supervise(command: tuple[str, ...], account: str | None, environment: dict[str, str], directory: str) -> Cost:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    busy = machine_seconds()
    began = time.monotonic()
    process = subprocess.Popen(
        command, user=account, group=account, extra_groups=None if account is None else [], env=environment,
        cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines: list[Line] = []
    listener = threading.Thread(target=_listen, args=(process, began, lines))
    sampler = _Sampler()
    listener.start()
    sampler.start()
    wall, user, system = _reap(process, began)
    machine = machine_seconds() - busy
    listener.join()
    sampler.stop()
    return Cost(process.returncode, wall, user, system, sampler.peak, machine, tuple(lines))


def _reap(process: subprocess.Popen[bytes], began: float) -> tuple[float, float, float]:
    """Wait for every descendant: wall seconds of the command itself, user and system seconds of all."""
    wall = user = system = 0.0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return wall, user, system
        user += usage.ru_utime
        system += usage.ru_stime
        if pid == process.pid:
            wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)


def _listen(process: subprocess.Popen[bytes], began: float, lines: list[Line]) -> None:
    assert process.stdout is not None
    for raw in process.stdout:
        lines.append(Line(time.monotonic() - began, raw.decode("utf-8", "replace").rstrip()))


class _Sampler(threading.Thread):
    """Keeps the largest memory that this process's descendants had together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(_pss(pid) for pid in _descendants(os.getpid())))

    def stop(self) -> None:
        self._over.set()
        self.join()


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def _pss(pid: int) -> int:
    """Proportional set size in bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def machine_seconds() -> float:
    """CPU seconds spent on anything since the machine booted (proc(5): all but idle, iowait, steal)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) / _TICKS
