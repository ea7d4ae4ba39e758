"""A cluster under pgkeep's care, driven through the real program as its own account would: `with keep(...) as kept`.

The repository and the configuration lie beside the data directory; archive_command is the real one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgkeep.pg.account import Account, child_environment, credentials, give
from pgkeep.pg.runtime import shell_command
from pgkeep.repo.repository import Cluster as RepositoryCluster
from pgkeep.repo.repository import cluster_named, open_repository
from pgkeep.store.open import open_store
from tests.clusters import Cluster
from tests.servers import library_path


@dataclass
class Kept:
    """See the module's docstring."""

    cluster: Cluster
    home: Path
    program: tuple[str, ...]
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.home / "pgkeep.toml"

    @property
    def repository(self) -> Path:
        return self.home / "repository"

    @property
    def account(self) -> Account:
        return self.cluster.account

    def command(self, *args: str) -> list[str]:
        return [*self.program, "--config", str(self.config), *args]

    def _environment(self) -> dict[str, str]:
        """The cluster's own programs come first: a restore needs those of its major version."""
        programs = self.cluster.programs
        return {**library_path(programs), "PATH": f"{programs.bindir}:{os.environ['PATH']}"}

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """The program in the background, in a process group of its own; `env` is added to its environment."""
        rights = credentials(self.account)
        process = subprocess.Popen(
            self.command(*args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env=child_environment(self.account, {**self._environment(), **(env or {})}),
            start_new_session=True,
            user=rights.user,
            group=rights.group,
            extra_groups=rights.extra_groups,
        )
        self.running.append(process)
        return process

    def run(
        self, *args: str, check: bool = True, timeout: float = 300, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; with `check` any exit status but 0 fails the test and shows what was said."""
        process = self.start(*args, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert not check or done.returncode == 0, f"{args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, status: int = 0) -> dict[str, Any]:
        """The last JSON object that the command prints (the result or the error)."""
        done = self.run("--json", *args, check=False)
        assert done.returncode == status, f"{args} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        answer: dict[str, Any] = json.loads((done.stdout.strip() or done.stderr.strip()).splitlines()[-1])
        return answer

    def result(self, *args: str, status: int = 0) -> dict[str, Any]:
        """The result object of a verb."""
        result: dict[str, Any] = self.json(*args, status=status)["result"]
        return result

    @staticmethod
    def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
        """Signal the whole process group: what a power cut leaves."""
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        process.wait()

    def backup(self, *args: str) -> str:
        """Take a backup; its id."""
        self.run("backup", *args)
        return self.backups()[-1]

    def backups(self) -> list[str]:
        """What lies in the repository, oldest first."""
        return sorted(path.name for path in self.repository.glob("*/backups/*") if not path.name.startswith("."))

    def packs(self) -> list[Path]:
        return sorted(path for path in self.repository.glob("*/packs/*") if not path.name.startswith("."))

    def wal(self) -> list[Path]:
        """Full segments in the archive."""
        return sorted(path for path in self.repository.glob("*/wal/*/*/*/*") if len(path.name) == 24)

    def archive_all(self) -> None:
        """Switch WAL, and wait until everything written so far is in the archive."""
        self.cluster.sql("SELECT pg_create_restore_point('something to archive')")
        name = self.cluster.switch_wal()
        self.wait(lambda: any(path.name >= name for path in self.wal()), f"{name} was not archived")

    @staticmethod
    def wait(condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.05)

    def catalogue(self) -> RepositoryCluster:
        """The cluster as pgkeep's own rooms see it."""
        return cluster_named(open_repository(open_store(str(self.repository))), "main")


def keep(make: Callable[..., Cluster], home: Path, program: Sequence[str], **options: Any) -> Kept:
    """Make a cluster under `home`, start it, and let `pgkeep init` take it into care.

    `options` are those of the fixture `cluster`.
    """
    config, repository = home / "pgkeep.toml", home / "repository"
    archive = shell_command([*program, "--config", str(config), "wal", "push"]) + " %p"
    settings = {"archive_mode": "on", "archive_command": "'" + archive.replace("'", "''") + "'"}
    cluster = make("main", **(settings | options))
    connection = cluster.instance.conninfo()
    config.write_text(
        f'[repository]\nurl = "file://{repository}"\n\n[cluster.main]\nconnection = "{connection}"\n', encoding="utf-8"
    )
    give(cluster.account, [config])
    kept = Kept(cluster, home, tuple(program))
    kept.run("init", "--no-proof")
    return kept
