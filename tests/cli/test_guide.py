"""Every command that the user guide shows is run, in its order, by one reader with one server.

`sudo` and `pgkeep` are small scripts; paths, the time and the port of the pages become those of the test.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.cli.test_init import wait_until
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.servers import library_path

from pgkeep.pg.account import Account, credentials
from pgkeep.pg.instance import read_postmaster
from pgkeep.pg.runtime import shell_command

DOCS = Path(__file__).parents[2] / "docs"
TIME = "2026-05-07 14:29:00+03"
NOT_RUN = {
    "python3 -m venv": "installs into /opt",
    "ln -s": "installs into /usr/local",
}
OTHERS = re.compile("same directory|delta|replica", re.IGNORECASE)
"""Sections whose commands are run by the tests of restore."""


def commands(page: str) -> list[str]:
    """The lines of the page's command blocks; a crontab's without its first columns."""
    found: list[str] = []
    for section in re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE):
        if OTHERS.search(section.partition("\n")[0]):
            continue
        for block in re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
            lines = (re.sub(r"^(\S+ ){4}\S+ +postgres +", "", line) for line in block.splitlines())
            found += [line for line in lines if line and not line.startswith("#")]
    return [line for line in found if not any(word in line for word in NOT_RUN)]


class Reader:
    """Somebody at the server's shell, who follows the pages."""

    def __init__(self, server: Cluster, account: Account, home: Path, program: tuple[str, ...]) -> None:
        self.server, self.account, self.home = server, account, home
        self.moment = ""
        self.restored = home / "restored"
        folder = home / "bin"
        folder.mkdir()
        for name, text in (
            ("sudo", 'if [ "$1" = -u ]; then shift 2; fi; exec "$@"'),
            ("pgkeep", f'exec {shell_command(program)} "$@"'),
        ):
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        self.path = f"{folder}:{server.programs.bindir}:{os.environ['PATH']}"

    def follow(self, page: str) -> None:
        for line in commands(page):
            self.run(line)

    def run(self, line: str) -> str:
        running = read_postmaster(self.restored)
        port = str(running.port) if running is not None else "PORT"
        who = credentials(self.account)
        done = subprocess.run(
            ["/bin/bash", "-c", self.here(line).replace("PORT", port)],
            cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
            env=self.environment(),
            user=who.user, group=who.group, extra_groups=who.extra_groups,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def here(self, line: str) -> str:
        """The line with this test's places."""
        for page, test in (
            (TIME, self.moment),
            ("/srv/restored", str(self.restored)),
            ("/mnt/nas", f"{self.home}/nas"),
            ("/var/lib/postgresql", f"{self.home}/lib"),
            ("-o postgres", f"-o {self.account.name}"),
        ):
            line = line.replace(page, test)
        return line

    def environment(self) -> dict[str, str]:
        server = self.server.instance
        names = {"PGHOST": str(server.socket_dir), "PGPORT": str(server.port), "PGUSER": "postgres"}
        return {**library_path(self.server.programs), **names, "PATH": self.path, "HOME": str(self.home)}

    def stop(self) -> None:
        for folder in (self.restored, *self.home.glob("lib/*/main")):
            if read_postmaster(folder) is not None:
                self.server.programs.run("pg_ctl", "stop", "-m", "immediate", "-D", folder, account=self.account)


def test_the_guide_from_its_first_command_to_its_last(
    cluster: MakeCluster, server_tmp: Path, server_user: Account, pgkeep_program: tuple[str, ...],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    server = cluster("main", wal_segsize=1, archive_mode="on")
    reader = Reader(server, server_user, server_tmp, pgkeep_program)
    request.addfinalizer(reader.stop)
    reader.follow("protect-a-server.md")

    server.sql("CREATE DATABASE shop")
    server.sql("CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 1000) AS g", dbname="shop")
    reader.run("pgkeep backup")
    reader.moment = str(server.value("SELECT clock_timestamp()"))
    server.sql("SELECT pg_sleep(0.2)")
    server.sql("DROP TABLE orders", dbname="shop")
    last = server.switch_wal()
    wait_until(lambda: server.value("SELECT last_archived_wal FROM pg_stat_archiver") >= last)
    reader.follow("get-a-table-back.md")
    assert server.value("SELECT count(*) FROM orders", dbname="shop") == 1000
    reader.run("cp .config/pgkeep/pgkeep.toml .")
    reader.follow("get-everything-back.md")


def test_what_is_not_run_is_really_there() -> None:
    text = (DOCS / "protect-a-server.md").read_text()
    assert all(word in text for word in NOT_RUN)
