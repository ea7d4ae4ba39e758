"""Child: a client program that runs beside pgkeep: pg_dump, pg_restore, pg_dumpall, psql.

1. It has a process group of its own: Ctrl-C reaches pgkeep alone, which ends the program; workers of `--jobs` go with
   their leader.
2. Its messages are read while it runs, line by line, so it never stands still on a full pipe.
3. Why it failed becomes a Fault with the code that says what to do: the server went away, a right is missing, a disk is
   full, or 'postgres-program' with its last words.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Final, Self

from pgkeep.errors import Fault
from pgkeep.pg.account import child_environment, current_account
from pgkeep.pg.link import Reach

OURS: Final = "pgkeep-"
"""Lines that begin so were written at our wish: no message is made of them."""
_KEPT_LINES: Final = 400
_TAIL_LINES: Final = 5
_PATIENCE: Final = 10.0
"""Seconds between the request to end and the kill."""

_LOST: Final = (
    "server closed the connection unexpectedly", "terminating connection", "no connection to the server",
    "connection not open", "the database system is", "SSL connection has been closed", "could not receive data",
    "SSL SYSCALL error", "connection to server was lost", "could not send data",
)  # fmt: skip
_UNREACHABLE: Final = ("connection to server", "could not translate host name", "password authentication failed")
_FULL: Final = ("No space left on device", "Disk quota exceeded")
_LOCKED: Final = ("canceling statement due to statement timeout", "could not obtain lock on relation")
_DAMAGED: Final = (
    "could not read from input file", "could not find block ID", "could not uncompress data", "could not decompress",
    "found unexpected block ID", "corrupt tar header", "could not close data file",
)  # fmt: skip
_RIGHTS: Final = ("permission denied", "must be superuser", "must be owner", "query would be affected by row-level")


class Child:
    """One running program; use as a context manager: leaving it before `finish` ends the program.

    `on_line` is called with every line of its stderr, in another thread.  `stdin` and `stdout` are as of Popen;
    `said` is what it wrote to stderr, as far as it is kept.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        reach: Reach | None = None,
        env: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        cwd: str = "/",
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = os.path.basename(command[0])
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._on_line = on_line
        surroundings = {**(reach.env if reach is not None else {}), **(env or {})}
        inherited = (*(reach.descriptors if reach is not None else ()), *descriptors)
        try:
            self.process = subprocess.Popen(
                list(command),
                stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, cwd=cwd, start_new_session=True, umask=0o077,
                env=child_environment(current_account(), surroundings), pass_fds=inherited,
            )  # fmt: skip
        except OSError as error:
            raise Fault("postgres-program", f"cannot start {command[0]}: {error.strerror}") from error
        self._reader = threading.Thread(target=self._read, name=f"{self.name}-stderr", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> IO[bytes]:
        """Its stdout, when that is a pipe."""
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def stdin(self) -> IO[bytes]:
        """Its stdin, when that is a pipe."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def said(self) -> str:
        return "\n".join(self._lines)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, timeout: float | None = None) -> bool:
        """False when it still runs after `timeout` seconds."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def finish(self) -> None:
        """Wait for its end; the Fault of rule 3 when it failed."""
        self.process.wait()
        self._reader.join()
        if self.process.returncode != 0:
            raise self.fault()

    def fault(self) -> Fault:
        """Why it failed, as a Fault; call after its end."""
        self._reader.join()
        return tool_fault(self.name, self.process.returncode, self.said)

    def pause(self) -> None:
        """Stop the program and its workers where they are, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def ask_to_end(self) -> None:
        """SIGTERM to it and its workers, without waiting; from any thread."""
        self._signal(signal.SIGTERM)

    def end(self) -> None:
        """End it and its workers; harmless when it has ended."""
        if not self.has_ended():
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            if not self.wait(_PATIENCE):
                self._signal(signal.SIGKILL)
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _signal(self, number: int) -> None:
        """To the whole group, which exists as long as its leader was not waited for."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for raw in stream:
                line = raw.rstrip(b"\n").decode(errors="replace")
                self._lines.append(line)
                if self._on_line is not None:
                    self._on_line(line)


def tool_fault(name: str, status: int, said: str) -> Fault:
    """The Fault for a client program that ended with `status` after saying `said` on stderr."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(OURS)]
    telling = [line for line in lines if "error:" in line or "fatal:" in line.lower()] or lines
    tail = " | ".join(line.strip() for line in telling[-_TAIL_LINES:]) or "it said nothing"
    ended = f"exited {status}" if status >= 0 else f"was ended by signal {-status}"
    message = f"{name} {ended}: {tail}"
    code, hint = _meaning(name, said)
    return Fault(code, message, hint=hint, stderr=said, status=status)


def _meaning(name: str, said: str) -> tuple[str, str]:
    """(code, hint); what was lost first explains what failed after it."""
    if any(word in said for word in _LOST):
        return "postgres-lost", "look into the server's log for a restart, a crash or a terminated session"
    if "LOCK TABLE" in said and any(word in said for word in _LOCKED):
        return "lock-timeout", "wait until that transaction has ended, or end it; --lock-timeout says how long to wait"
    if any(word in said for word in _FULL):
        return "target-space", "make room, or write to another place"
    if name == "pg_restore" and any(word in said for word in _DAMAGED):
        return "dump-damaged", "take the archive anew from where it was made; compare its size and checksum there"
    if any(word in said for word in _UNREACHABLE):
        return "postgres-unreachable", "check the host, port, user and password of the connection"
    if any(word in said for word in _RIGHTS):
        hint = "grant the role pg_read_all_data, or connect as a superuser, who alone reads everybody's large objects"
        return "postgres-rights", hint
    return "postgres-program", ""
