"""Servers that pgkeep starts itself: throwaway ones, and restored ones.

1. An Instance stops only the process that it started, by its pid; nothing is ever looked up by name.
2. Its postmaster never runs as root, listens on no TCP port unless told so, and keeps its socket in a
   directory whose path is short enough for a socket address (sun_path, 107 bytes).
3. "Is a server running here?" is answered by the processes that have the directory as their working directory
   (a postmaster and its children chdir into it, src/backend/utils/init/miscinit.c), postmaster.pid being only
   a hint: it may be stale, or tell the pid of another pid namespace.
4. Readiness is the status line of postmaster.pid (src/include/utils/pidfile.h), as pg_ctl reads it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pgkeep.errors import Fault
from pgkeep.pg.account import Account, can_enter, child_environment, credentials, give
from pgkeep.pg.programs import Programs

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_SUN_PATH_MAX = 107
_POLL_SECONDS = 0.03
_PLAIN = frozenset(string.ascii_letters + string.digits + "_-./")
_TAIL_BYTES = 16384


@dataclass(frozen=True, slots=True)
class InitOptions:
    """How initdb makes a cluster; `wal_segsize` is in MiB, `extra` is appended as given."""

    checksums: bool = True
    wal_segsize: int | None = None
    encoding: str = "UTF8"
    locale: str = "C"
    superuser: str = "postgres"
    sync: bool = True
    extra: tuple[str, ...] = ()


def initdb(programs: Programs, datadir: Path, account: Account, options: InitOptions | None = None) -> None:
    """Create a cluster in `datadir` (absent or empty), owned by `account`, trusting its local socket only.

    Raises Fault 'postgres-program' with initdb's own words when it fails.
    """
    chosen = options or InitOptions()
    arguments = [
        f"--pgdata={datadir}", f"--username={chosen.superuser}", f"--encoding={chosen.encoding}",
        f"--locale={chosen.locale}", "--auth-local=trust", "--auth-host=reject", "--no-instructions",
    ]  # fmt: skip
    if chosen.checksums:
        arguments.append("--data-checksums")
    elif programs.major >= 18:
        arguments.append("--no-data-checksums")  # on by default since 18
    if chosen.wal_segsize is not None:
        arguments.append(f"--wal-segsize={chosen.wal_segsize}")
    if not chosen.sync:
        arguments.append("--no-sync")
    programs.run("initdb", *arguments, *chosen.extra, account=account, timeout=600)


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The lines of postmaster.pid; `started` in seconds of the Unix epoch, `status` 'ready', 'standby' ..."""

    pid: int
    datadir: str
    started: int
    port: int
    socket_dir: str
    listen: str
    status: str


def read_postmaster(datadir: Path) -> Postmaster | None:
    """What postmaster.pid says; None when it is absent or not yet complete."""
    try:
        lines = (datadir / "postmaster.pid").read_text(errors="surrogateescape").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) < 8:
        return None
    try:
        pid, started, port = abs(int(lines[0])), int(lines[2]), int(lines[3])
    except ValueError:
        return None
    return Postmaster(pid, lines[1], started, port, lines[4], lines[5], lines[7].strip())


def server_pids(datadir: Path) -> tuple[int, ...]:
    """Processes of a running server on `datadir`, ascending; empty when none runs.

    Counts every process that works in the directory and is one of PostgreSQL's, orphaned backends of a dead
    postmaster among them: those still write.  When postmaster.pid names a live process whose working
    directory may not be read, it counts too: not knowing must not look like 'stopped'.
    """
    try:
        home = datadir.stat()
    except FileNotFoundError:
        return ()
    found = {pid for pid in _all_pids() if _works_in(pid, home) and _is_postgres(pid)}
    hint = _pid_in_file(datadir)
    if hint is not None and _is_alive(hint) and _works_in(hint, home) is None:
        found.add(hint)
    return tuple(sorted(found))


def is_server_running(datadir: Path) -> bool:
    """True while any process of a server works on `datadir`."""
    return bool(server_pids(datadir))


def _pid_in_file(datadir: Path) -> int | None:
    try:
        return abs(int((datadir / "postmaster.pid").read_text(errors="replace").split("\n")[0]))
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError):
        return None


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _works_in(pid: int, directory: os.stat_result) -> bool | None:
    """Whether the process's working directory is `directory`; None when that may not be read."""
    try:
        found = os.stat(f"/proc/{pid}/cwd")
    except PermissionError:
        return None
    except OSError:
        return False
    return os.path.samestat(found, directory)


def _is_postgres(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in {"postgres", "postmaster"}
    except OSError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def socket_conninfo(directory: str, port: int, dbname: str = "postgres", user: str = "postgres") -> str:
    """A libpq connection string to the server whose socket is in `directory`."""
    return f"host={quoted_value(directory)} port={port} dbname={quoted_value(dbname)} user={quoted_value(user)}"


def quoted_value(value: str) -> str:
    """A value of a connection string (libpq-connect.html, 34.1.1.1); plain ones stay as they are."""
    if value and set(value) <= _PLAIN:
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def socket_directory(account: Account) -> Iterator[Path]:
    """A short directory of `account`'s for a server's socket, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="pgk-", dir="/tmp"))
    try:
        give(account, [path])
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class LogFollower:
    """Complete new lines of a growing log file, from the size it has now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def lines(self) -> list[str]:
        """Lines that were completed since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            fresh = file.read()
        self._offset += len(fresh)
        *whole, self._rest = (self._rest + fresh).split(b"\n")
        return [line.decode(errors="replace") for line in whole]


@dataclass
class Instance:
    """One server process on `datadir`: `settings` go to its command line and beat every file.

    `log` receives its stderr; `listen` is '' for the socket alone.
    """

    programs: Programs
    datadir: Path
    account: Account
    socket_dir: Path
    log: Path
    port: int = 5432
    listen: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """The postmaster's pid while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def is_running(self) -> bool:
        return self.pid is not None

    def conninfo(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """A libpq connection string through the socket."""
        return socket_conninfo(str(self.socket_dir), self.port, dbname, user)

    def start(self) -> None:
        """Start the postmaster and return at once (see wait_ready).

        Raises Fault 'target-in-use' when a server works on the directory, 'postgres-program' when the account
        is root, may not enter the directory, or the socket's path is too long.
        """
        self._check_before_start()
        command = [self.programs.path("postgres"), "-D", str(self.datadir)]
        for name, value in self._command_settings().items():
            command += ["-c", f"{name}={value}"]
        who = credentials(self.account)
        with self.log.open("ab") as log:
            give(self.account, [self.log])
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", umask=0o077,
                env=child_environment(self.account, self.env), start_new_session=True,
                user=who.user, group=who.group, extra_groups=who.extra_groups,
            )  # fmt: skip

    def wait_ready(
        self, timeout: float | None = 60.0, on_line: Callable[[str], None] | None = None
    ) -> Literal["ready", "standby"]:
        """Wait until the server takes connections; `on_line` is told each line of its log meanwhile.

        'standby' means that it is in recovery.  Raises Fault 'postgres-program' with the log's last lines
        when it ends first, or after `timeout` seconds (None: no limit).
        """
        follower = LogFollower(self.log) if on_line is not None else None
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            status = self._status()
            ended = self._process is None or self._process.poll() is not None
            if follower is not None and on_line is not None:
                for line in follower.lines():
                    on_line(line)
            if status in {"ready", "standby"}:
                return "ready" if status == "ready" else "standby"
            if ended:
                raise self._fault("ended before it took connections")
            if deadline is not None and time.monotonic() > deadline:
                raise self._fault(f"took no connections within {timeout:.0f} s")
            time.sleep(_POLL_SECONDS)

    def stop(self, mode: StopMode = "fast", timeout: float = 120.0) -> None:
        """End the server that this Instance started, and wait for it; nothing to do when it has ended.

        Raises Fault 'postgres-program' when it still runs after `timeout` seconds.
        """
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(_STOP_SIGNALS[mode])
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._fault(f"did not stop ({mode}) within {timeout:.0f} s") from None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the server to end by itself (recovery_target_action=shutdown); its exit status."""
        if self._process is None:
            raise self._fault("was never started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._fault(f"did not end within {timeout:.0f} s") from None

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _command_settings(self) -> dict[str, str]:
        return {
            "port": str(self.port),
            "listen_addresses": self.listen,
            "unix_socket_directories": str(self.socket_dir),
            **self.settings,
        }

    def _check_before_start(self) -> None:
        if self.account.uid == 0:
            raise Fault(
                "postgres-program",
                "PostgreSQL refuses to run as root",
                hint="name an unprivileged account that owns the data directory",
            )
        pids = server_pids(self.datadir)
        if pids:
            raise Fault("target-in-use", f"a server runs on {self.datadir} already (process {pids[0]})")
        address = f"{self.socket_dir}/.s.PGSQL.{self.port}"
        if len(os.fsencode(address)) > _SUN_PATH_MAX:
            raise Fault(
                "postgres-program",
                f"the socket's path {address} is longer than {_SUN_PATH_MAX} bytes",
                hint="choose a shorter socket directory",
            )
        if not can_enter(self.account, self.datadir):
            raise Fault(
                "postgres-program",
                f"the account {self.account.name} may not enter {self.datadir}",
                hint="a directory above it is closed to that account (chmod o+x), or another one owns it",
            )

    def _status(self) -> str | None:
        """The status in postmaster.pid, when that file is this process's."""
        found = read_postmaster(self.datadir)
        if found is None or self._process is None or found.pid != self._process.pid:
            return None
        return found.status

    def _fault(self, what: str) -> Fault:
        tail = self.log_tail()
        return Fault(
            "postgres-program",
            f"the server on {self.datadir} {what}; its log ends: {tail or '(empty)'}",
            hint=f"the whole log is {self.log}",
            log=str(self.log),
        )
