"""The stage of `pgkeep demo`: a throwaway production server with an orders table, and an accident.

Rules of this file:

1. Everything lies below one directory; nothing outside it is written, and only processes started here are ended.
2. The program itself is run as a user would run it, by the account that runs the server, over its real command line.
3. What the proof compares is read from the servers by SQL, before the accident and after the recovery.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pgkeep.app.place import APPLICATION
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.pg.account import Account, give, server_account
from pgkeep.pg.instance import InitOptions, Instance, initdb, read_postmaster, socket_conninfo, socket_directory
from pgkeep.pg.programs import Output, Programs, run_program
from pgkeep.pg.runtime import command_for, server_programs
from pgkeep.pg.session import Session

SEED_ROWS: Final = 100_000
BATCH_ROWS: Final = 5_000
_CONFIGURATION: Final = """
archive_mode = on
archive_command = '/bin/false'
shared_buffers = 32MB
max_connections = 20
log_line_prefix = '%m [%p] '
timezone = UTC
"""
_TABLE: Final = """
CREATE TABLE public.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int NOT NULL,
    placed timestamptz NOT NULL,
    amount numeric(10, 2) NOT NULL,
    note text NOT NULL)
"""
_INSERT: Final = """
INSERT INTO public.orders (customer, placed, amount, note)
SELECT (random() * 9999)::int, clock_timestamp(), (random() * 500)::numeric(10, 2), md5(random()::text)
  FROM generate_series(1, %s)
"""
_FINGERPRINT: Final = (
    "SELECT count(*), coalesce(md5(string_agg(o::text, E'\\n' ORDER BY id)), '') FROM public.orders AS o"
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The whole table in two values: number of rows, and the MD5 of all of them in order."""

    rows: int
    md5: str


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was true, by the server's clock and WAL."""

    time: datetime
    lsn: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays, and who plays."""

    home: Path
    account: Account
    programs: Programs
    command: Sequence[str]
    """This pgkeep, as the account can run it."""

    @property
    def config(self) -> Path:
        return self.home / "pgkeep.toml"

    @property
    def repository(self) -> Path:
        return self.home / "repository"

    def pgkeep(self, *arguments: str) -> Output:
        """Run this pgkeep to its end, with the stage's configuration."""
        path = f"{self.programs.bindir}{os.pathsep}{os.defpath}"  # so that restore finds the very same server
        command = [*self.command, "--config", str(self.config), *arguments]
        return run_program(command, account=self.account, env={"PATH": path})


def build_stage(home: Path) -> Stage:
    """Find a server and make both programs runnable for its account; `home` exists and is empty.

    Faults: postgres-program (no server anywhere, with the ways to get one).
    """
    account = server_account()
    home.chmod(0o755)
    parts = home / "programs"
    parts.mkdir()
    give(account, [home, parts])
    return Stage(home, account, server_programs(account, parts), command_for(account, parts))


@contextmanager
def production(stage: Stage) -> Iterator[Instance]:
    """A new cluster with its server running; stopped at the end."""
    datadir = stage.home / "production"
    initdb(stage.programs, datadir, stage.account, InitOptions())
    with (datadir / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(_CONFIGURATION)
    with running(stage, datadir) as instance:
        yield instance


@contextmanager
def running(stage: Stage, datadir: Path) -> Iterator[Instance]:
    """A server on `datadir`, reached by a socket of its own; stopped at the end."""
    with ExitStack() as stack:
        sockets = stack.enter_context(socket_directory(stage.account))
        log = stage.home / f"{datadir.name}.log"
        instance = Instance(stage.programs, datadir, stage.account, sockets, log)
        stack.callback(instance.stop, "fast")
        instance.start()
        instance.wait_ready()
        yield instance


class Shop:
    """The application: it writes orders, and somebody drops them."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    @classmethod
    @contextmanager
    def open(cls, instance: Instance, clock: Clock) -> Iterator[Shop]:
        with Session.open(instance.conninfo(), f"{APPLICATION} demo") as session:
            yield cls(session, clock)

    def settle(self, statements: Sequence[str]) -> None:
        """Run what `init` printed."""
        for statement in statements:
            self._session.rows(statement)
        self._session.rows("SELECT pg_reload_conf()")

    def open_for_business(self) -> Fingerprint:
        """Create the table with its first orders."""
        self._session.rows(_TABLE)
        self._session.rows("CREATE TABLE public.visits (at timestamptz NOT NULL)")
        return self.take_orders(SEED_ROWS)

    def take_orders(self, count: int = BATCH_ROWS) -> Fingerprint:
        self._session.rows(_INSERT, (count,))
        return self.fingerprint()

    def fingerprint(self) -> Fingerprint:
        """Fault 'postgres-settings' when there is no such table."""
        rows, md5 = self._session.row(_FINGERPRINT)
        return Fingerprint(int(rows), str(md5))

    def moment(self) -> Moment:
        """The present one, and then time passes, so that nothing later carries the same time."""
        time, lsn = self._session.row("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text")
        self._clock.sleep(1.0)
        return Moment(time.astimezone(UTC), str(lsn))

    def lose_the_orders(self) -> str:
        """The accident, and life going on after it; what the next look at the table says."""
        self._session.rows("DROP TABLE public.orders")
        self._session.rows("INSERT INTO public.visits SELECT clock_timestamp() FROM generate_series(1, 1000)")
        try:
            self.fingerprint()
        except Fault as fault:
            return fault.message.removeprefix("the server refused: ").partition(";")[0]
        raise AssertionError("a dropped table cannot be read")

    def archive_everything(self, seconds: float = 60.0) -> None:
        """Complete the present segment and wait until it is archived; Fault 'wal-not-archived'."""
        segment = self._session.value("SELECT pg_walfile_name(pg_switch_wal())")
        deadline = self._clock.monotonic() + seconds
        while not self._session.value("SELECT coalesce(last_archived_wal, '') >= %s FROM pg_stat_archiver", (segment,)):
            if self._clock.monotonic() > deadline:
                raise Fault("wal-not-archived", f"{segment} was not archived within {seconds:.0f} s")
            self._clock.sleep(0.1)


def result_of(output: Output) -> dict[str, Any]:
    """The result object of a run with --json; the Fault that it reported otherwise."""
    lines = output.text().splitlines()
    last = json.loads(lines[-1]) if lines else {}
    if "result" in last:
        result = last["result"]
        assert isinstance(result, dict)
        return result
    error = last.get("error", {"code": "internal", "message": output.stderr.decode(errors="replace")})
    raise Fault(error["code"], error["message"], hint=error.get("hint") or "")


@contextmanager
def restored_server(stage: Stage, datadir: Path) -> Iterator[Session]:
    """A session to the server that `pgkeep restore --start` left running on `datadir`; it is stopped at the end.

    Fault 'recovery-failed' when none runs there.
    """
    found = read_postmaster(datadir)
    if found is None:
        raise Fault("recovery-failed", f"no server runs on {datadir} although it was to be started")
    try:
        with Session.open(socket_conninfo(found.socket_dir, found.port), f"{APPLICATION} demo") as session:
            yield session
    finally:
        stage.programs.run("pg_ctl", "stop", "-D", datadir, "-m", "fast", account=stage.account)
