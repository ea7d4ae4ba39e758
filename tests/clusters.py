"""Real PostgreSQL clusters for tests: made, started, asked and stopped; see the fixtures in conftest.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pgkeep.pg.account import Account, give
from pgkeep.pg.instance import Instance
from pgkeep.pg.programs import Output, Programs, program_fault, run_program

# Small and quick, but honest: fsync stays on where a test says so, full_page_writes and checksums always.
QUICK_SETTINGS = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "20",
    "autovacuum": "off",
    "max_wal_size": "256MB",
    "log_line_prefix": "'%m [%p] '",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass
class Cluster:
    """A cluster on disk and the server on it.  Everything lies under `home`, which `account` owns."""

    instance: Instance
    home: Path

    @property
    def programs(self) -> Programs:
        return self.instance.programs

    @property
    def major(self) -> int:
        return self.programs.major

    @property
    def datadir(self) -> Path:
        return self.instance.datadir

    @property
    def account(self) -> Account:
        return self.instance.account

    @property
    def log(self) -> Path:
        return self.instance.log

    @property
    def conninfo(self) -> str:
        return self.instance.conninfo()

    @property
    def version_file(self) -> str:
        return (self.datadir / "PG_VERSION").read_text().strip()

    def connect(self, dbname: str = "postgres", **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection as the superuser, in UTF-8 whatever the database's encoding."""
        settings = {"client_encoding": "UTF8"} | options
        return psycopg.connect(self.instance.conninfo(dbname), autocommit=True, **settings)

    def sql(self, query: str, params: Sequence[Any] | None = None, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own; its rows, or [] when it returns none."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, params: Sequence[Any] | None = None, dbname: str = "postgres") -> Any:
        """The first column of the first row."""
        return self.sql(query, params, dbname)[0][0]

    def run(self, program: str, *args: str) -> Output:
        """Run a client program of this version against this server, as its account."""
        command = [self.programs.path(program), *args]
        env = {
            "PGHOST": str(self.instance.socket_dir),
            "PGPORT": str(self.instance.port),
            "PGUSER": "postgres",
        }
        output = run_program(command, account=self.account, env=env, timeout=300)
        if output.status != 0:
            raise program_fault(program, output)
        return output

    def configure(self, **settings: str) -> None:
        """Append to postgresql.conf, values as written there ("'on'", "16MB"); restart or reload to apply."""
        with (self.datadir / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self.instance.start()
        self.instance.wait_ready(60)

    def stop(self, *, immediate: bool = False) -> None:
        self.instance.stop("immediate" if immediate else "fast")

    def restart(self, *, immediate: bool = False) -> None:
        self.stop(immediate=immediate)
        self.start()

    def reload(self) -> None:
        self.sql("SELECT pg_reload_conf()")

    def directory(self, name: str) -> Path:
        """A new directory under `home` that the server may write to (a repository, a tablespace)."""
        path = self.home / name
        path.mkdir()
        give(self.account, [path])
        return path

    def switch_wal(self) -> str:
        """Make the present WAL segment complete; its name."""
        return str(self.value("SELECT pg_walfile_name(pg_switch_wal())"))
