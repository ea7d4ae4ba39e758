"""A data directory whose pg_wal holds WAL that waits, and the archiver of its repository, without a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.walfiles import CLOCK, Failover, copy_instance, new_archive

import pgkeep
from pgkeep.repo.repository import Repository, open_repository
from pgkeep.repo.walarchive import WalArchive, archive_of
from pgkeep.store.local import LocalStore
from pgkeep.store.port import Store
from pgkeep.wal import marker
from pgkeep.wal.ahead import Limits
from pgkeep.wal.archiver import Archiver
from pgkeep.wal.push import PushOutcome

OPTIONS: Mapping[str, str] = {"--config": "pgkeep.toml"}
ENVIRONMENT: Mapping[str, str] = {"HOME": "/nonexistent"}
NO_LIMITS = Limits(1000, 60.0, 2)


@dataclass
class Waiting:
    """`datadir` is the working directory of what is tested; `config` any file that stands for a configuration."""

    datadir: Path
    repository: Path
    config: Path
    names: list[str]

    @property
    def folder(self) -> Path:
        return self.datadir / "pg_wal"

    @property
    def markers(self) -> Path:
        return self.folder / marker.FOLDER

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def opened(self) -> Repository:
        return open_repository(LocalStore(self.repository))

    def archive(self) -> WalArchive:
        control_id = int(next(self.repository.glob("*/incarnations/*")).name)
        return archive_of(self.opened(), control_id)

    def terms(self, passed: tuple[str, ...] = (), command: Sequence[str] = ()) -> marker.Terms:
        return marker.terms(OPTIONS, ENVIRONMENT, str(self.config), passed, command)

    def archiver(self, store: Store | None = None, terms: marker.Terms | None = None) -> Archiver:
        opened = self.opened()
        repository = Repository(store or opened.store, opened.id, opened.keys)
        return Archiver(repository, CLOCK, terms or self.terms(), str(self.datadir))

    def serve(self, name: str, limits: Limits = NO_LIMITS, store: Store | None = None) -> PushOutcome:
        """What one call does, and the end of the work ahead that it leaves behind."""
        outcome = self.archiver(store).serve(self.path(name), lambda _: limits)
        self.wait_idle()
        return outcome

    def wait_idle(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while marker._is_somebody_at_work(self.path(self.names[0])):
            assert time.monotonic() < deadline, "the work ahead does not end"
            time.sleep(0.01)

    def is_archived(
        self, name: str, options: Mapping[str, str] = OPTIONS, environment: Mapping[str, str] = ENVIRONMENT
    ) -> bool:
        return marker.is_archived(self.path(name), options, environment)

    def marked(self) -> list[str]:
        """The files whose markers are trusted."""
        return [name for name in self.names if self.is_archived(name)]

    def held(self) -> list[str]:
        """The files that the repository holds, each with the bytes that it has here."""
        archive, found = self.archive(), []
        for name in self.names:
            content = (self.folder / name).read_bytes()
            address = 0 if "." in name else int.from_bytes(content[8:16], "little")
            if archive.holds(name, content, address):
                found.append(name)
        return found

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Python with these arguments, `wal push` of the first file last, as archive_command would be run."""
        command = [sys.executable, *argv, "--config", str(self.config), "wal", "push", f"pg_wal/{self.names[0]}"]
        path = {"PYTHONPATH": str(Path(pgkeep.__file__).parents[1]), "PATH": os.defpath, **ENVIRONMENT}
        return subprocess.run(command, cwd=self.datadir, env=path, capture_output=True, text=True, timeout=60)

    def done(self, name: str) -> None:
        """PostgreSQL has had the answer for this file."""
        status = self.folder / "archive_status"
        (status / f"{name}.ready").rename(status / f"{name}.done")


def make_waiting(failover: Failover, home: Path, *, timeline: int = 1) -> Waiting:
    """All that a server of the failover archived waits anew, for an empty repository."""
    source = failover.primary if timeline == 1 else failover.promoted
    datadir = copy_instance(source, home / "data")
    status = datadir / "pg_wal" / "archive_status"
    status.mkdir()
    names = []
    for path in sorted((failover.old if timeline == 1 else failover.new).iterdir()):
        if path.name.endswith(".partial"):
            continue
        shutil.copy(path, datadir / "pg_wal")
        (status / f"{path.name}.ready").touch()
        names.append(path.name)
    new_archive(LocalStore.create(home / "repository"), failover.control)
    config = home / "pgkeep.toml"
    config.write_text(f'[repository]\nurl = "{home}/repository"\n[cluster.main]\nconnection = ""\n', encoding="utf-8")
    for folder in (datadir, datadir / "pg_wal"):
        os.chmod(folder, 0o700)
    return Waiting(datadir, home / "repository", config, names)
