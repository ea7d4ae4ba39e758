"""PostgreSQL programs and throwaway servers for the races, on unix sockets only.

PostgreSQL refuses to run as root (main.c, check_root): root starts everything under `account` instead.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import programs_of

from benchmarks import measure

MAJOR = 17
PORT = 5432
_SETTINGS = """
# the races: nothing works in the background, everything is durable
autovacuum = off
checkpoint_timeout = 1h
max_wal_size = 1GB
shared_buffers = 512MB
listen_addresses = ''
"""


class RaceError(Exception):
    """A tool failed, or restored something else than was backed up."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the races take place: work directory, PostgreSQL's programs, and the account that runs them."""

    work: Path
    programs: Path
    account: str | None

    def program(self, name: str) -> str:
        return str(self.programs / name)

    def folder(self, *parts: str) -> Path:
        """A folder below the work directory that the account owns."""
        path = self.work.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        if self.account is not None:
            shutil.chown(path, self.account, self.account)

    def environment(self) -> dict[str, str]:
        """The caller's, with PostgreSQL's programs on PATH and nothing that points at a server or repository."""
        dropped = re.compile(r"PG|PYTHON|VIRTUAL_ENV|LC_")
        kept = {name: value for name, value in os.environ.items() if not dropped.match(name)}
        path = f"{self.programs}:{os.environ.get('PATH', os.defpath)}"
        return kept | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/", "PATH": path}

    def run(self, *command: str) -> str:
        """Run to the end outside the clock; standard output.  RaceError if it fails."""
        done = subprocess.run(
            command, user=self.account, group=self.account, extra_groups=None if self.account is None else [],
            env=self.environment(), cwd=self.work, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise _failed(command, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def race(self, command: tuple[str, ...]) -> measure.Cost:
        """Run under the clock.  RaceError if it fails."""
        cost = measure.measured(command, self.account, self.environment(), str(self.work))
        if cost.status:
            raise _failed(command, cost.status, "\n".join(line.text for line in cost.lines))
        return cost


def _failed(command: tuple[str, ...], status: int, said: str) -> RaceError:
    return RaceError(f"{' '.join(command)}\nended with status {status}:\n{said}")


@dataclass(frozen=True, slots=True)
class Server:
    """A cluster on disk and the socket folder it listens in."""

    site: Site
    data: Path
    socket: Path

    @property
    def conninfo(self) -> str:
        return f"host={self.socket} port={PORT} user=postgres dbname=postgres"

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def initdb(self) -> None:
        self.site.run(
            self.site.program("initdb"), "-D", str(self.data), "-U", "postgres", "-A", "trust", "-k",
            "-E", "UTF8", "--no-locale", "--no-sync",
        )  # fmt: skip
        self.configure(_SETTINGS)

    def configure(self, settings: str) -> None:
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(settings)

    def start(self, *settings: str) -> None:
        """Wait until it answers.  `settings` (name=value) win over the configuration file."""
        overrides = [f"unix_socket_directories={self.socket}", f"port={PORT}", *settings]
        self.site.run(
            self.site.program("pg_ctl"), "start", "-w", "-t", "3600", "-D", str(self.data),
            "-l", f"{self.data}.log", "-o", " ".join(f"-c {setting}" for setting in overrides),
        )  # fmt: skip

    def stop(self) -> None:
        stop = (self.site.program("pg_ctl"), "stop", "-w", "-t", "3600", "-m", "fast")
        self.site.run(*stop, "-D", str(self.data))

    def sql(self, text: str, dbname: str = "postgres") -> str:
        """The result's values, tab-separated; one statement."""
        psql = (self.site.program("psql"), "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1")
        return self.site.run(*psql, "-d", f"{self.conninfo} dbname={dbname}", "-c", text).strip()


@contextlib.contextmanager
def running(site: Site, data: Path, *settings: str) -> Iterator[Server]:
    """A server that is stopped at the end of the block, in a socket folder short enough for sockaddr_un."""
    with tempfile.TemporaryDirectory(prefix="pgk") as socket:
        site.own(Path(socket))
        server = Server(site, data, Path(socket))
        server.start(*settings)
        try:
            yield server
        finally:
            server.stop()


def find_programs(named: Path | None) -> Path:
    """The folder with PostgreSQL's programs: the one named, or where the tests get version 17 from."""
    if named is not None:
        if not (named / "initdb").exists():
            raise RaceError(f"no initdb in {named}: expected PostgreSQL's bin folder")
        return named
    found = programs_of(MAJOR)
    if isinstance(found, str):
        raise RaceError(f"no PostgreSQL {MAJOR}: {found}")
    return found.bindir
