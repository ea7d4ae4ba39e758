"""Guard: what must not outlive this process is told to a watchdog first (`watchdog`), which survives its kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pgkeep.errors import Fault
from pgkeep.logical import watchdog
from pgkeep.pg.child import Child

_PATIENCE: Final = 10.0


class Guard:
    """A running watchdog; use as a context manager.  Leaving it calls the watchdog off: whoever leaves has cleaned up.

    Every order raises Fault 'worker-died' when the watchdog is gone: a dump does not go on without it.
    """

    def __init__(self) -> None:
        script = Path(watchdog.__file__)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            start_new_session=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """The watchdog's."""
        return self._process.pid

    def watch(self, child: Child) -> None:
        """End this program, with its group, when this process dies."""
        started = watchdog.start_time(child.pid)
        if started is not None:
            self._order(f"watch {child.pid} {started}")

    def forget(self, child: Child) -> None:
        """It has ended."""
        self._order(f"forget {child.pid}")

    def remove(self, path: str) -> None:
        """Remove this file or tree when this process dies; told before it is made."""
        self._order(f"remove {os.fsencode(path).hex()}")

    def keep(self, path: str) -> None:
        """Not any more: it was removed, or is what was wanted."""
        self._order(f"keep {os.fsencode(path).hex()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Fault):
            self._order("done")
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise Fault(
                "worker-died",
                "the process that cleans up if pgkeep is killed has ended",
                hint="look for an out-of-memory kill in the system's log, then run the command again",
            ) from error
