"""Who races, how each is tuned, and what each is asked to do.

A contender turns a race into command lines.  `prepare` is outside the clock: it leaves a fresh, initialised
repository.  `phases` reads from the tool's own log what is the server's pace and not the tool's: the wait for
the start checkpoint, and the wait for the last WAL to be archived.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.measure import Line
from benchmarks.server import PORT, RaceError, Server, Site


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of a backup or a recovery that are a part of the whole; None where nobody tells."""

    checkpoint: float | None = None
    archive: float | None = None
    restoring: float | None = None
    """Of a recovery: the time in which it waits for restore_command."""


class Contender(Protocol):
    """A tool, tuned, with its repository in a folder of its own."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def tuning(self) -> str:
        """For the reader of the results."""
        ...

    @property
    def archive_command(self) -> str:
        """'' for a tool that needs no archive."""
        ...

    def prepare(self, server: Server) -> None:
        """A fresh repository for `server`, ready for its first backup."""
        ...

    def recommended_archive_command(self, server: Server) -> str:
        """What the tool itself says `server` should have, once it is prepared."""
        ...

    def backup(self, server: Server) -> tuple[str, ...]: ...

    def incremental(self, server: Server) -> tuple[str, ...]:
        """What has changed since the last backup, as `backup` made it or an incremental one."""
        ...

    @property
    def repository(self) -> Path:
        """Where everything is stored, the archived WAL included."""
        ...

    @property
    def backups(self) -> tuple[Path, ...]:
        """Where backups are stored, without WAL."""
        ...

    def restore(self, target: Path) -> tuple[str, ...]:
        """The newest backup into `target` (empty, there); () for a tool that has no restore."""
        ...

    def delta(self, target: Path) -> tuple[str, ...]:
        """The same over what is in `target`, changing only what differs; () for a tool that cannot."""
        ...

    def phases(self, lines: Sequence[Line]) -> Phases: ...


@dataclass(frozen=True, slots=True)
class PgBackRest:
    """pgBackRest by its own tuning advice: two processes, zstd 3, bundles, asynchronous archiving."""

    site: Site
    program: str
    name: str = "pgbackrest"
    block: bool = True
    level: int = 3

    @property
    def version(self) -> str:
        return self.site.run(self.program, "version").split()[-1]

    @property
    def tuning(self) -> str:
        block = "y" if self.block else "n"
        speed = f"process-max=2 compress-type=zst compress-level={self.level} start-fast=y archive-async=y"
        return f"{speed} repo1-bundle=y repo1-block={block}"

    @property
    def archive_command(self) -> str:
        return f"{self.program} --config={self.config} --stanza=race archive-push %p"

    @property
    def _home(self) -> Path:
        return self.site.work / self.name

    @property
    def config(self) -> Path:
        return self._home / "pgbackrest.conf"

    def prepare(self, server: Server) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        self.site.folder(self.name)
        keys = ("repo1-path", "spool-path", "lock-path")
        folders = [f"{key}={self.site.folder(self.name, key)}" for key in keys]
        self.config.write_text("\n".join([
            "[global]", *self.tuning.split(), *folders,
            "repo1-retention-full=9", "log-level-console=info", "log-level-file=off",
            "[race]", f"pg1-path={server.data}", f"pg1-socket-path={server.socket}", f"pg1-port={PORT}",
            "pg1-user=postgres", "",
        ]))  # fmt: skip
        self.site.run(*self.command("stanza-create"))

    def recommended_archive_command(self, server: Server) -> str:
        return self.archive_command

    def backup(self, server: Server) -> tuple[str, ...]:
        return self.command("backup", "--type=full")

    def incremental(self, server: Server) -> tuple[str, ...]:
        return self.command("backup", "--type=incr")

    @property
    def backups(self) -> tuple[Path, ...]:
        return (self.repository / "backup",)

    @property
    def repository(self) -> Path:
        return self._home / "repo1-path"

    def restore(self, target: Path) -> tuple[str, ...]:
        return self.command("restore", f"--pg1-path={target}")

    def delta(self, target: Path) -> tuple[str, ...]:
        return self.command("restore", "--delta", f"--pg1-path={target}")

    def phases(self, lines: Sequence[Line]) -> Phases:
        return Phases(
            checkpoint=_between(lines, "backup start: backup begins", "backup start archive ="),
            archive=_between(lines, "backup stop and wait", "new backup label"),
        )

    def command(self, *words: str) -> tuple[str, ...]:
        return (self.program, f"--config={self.config}", "--stanza=race", *words)


@dataclass(frozen=True, slots=True)
class PgBaseBackup:
    """The server's own copy into compressed tar files: no archive, no restore of its own."""

    site: Site
    name: str = "pg_basebackup"

    @property
    def version(self) -> str:
        return self.site.run(self.site.program("pg_basebackup"), "--version").split()[-1]

    @property
    def tuning(self) -> str:
        return "--format=tar --compress=client-zstd:level=3,workers=2 --checkpoint=fast --wal-method=stream"

    @property
    def archive_command(self) -> str:
        return ""

    def prepare(self, server: Server) -> None:
        shutil.rmtree(self.repository, ignore_errors=True)
        self.site.folder(self.name)

    def recommended_archive_command(self, server: Server) -> str:
        return self.archive_command

    def backup(self, server: Server) -> tuple[str, ...]:
        return self._command(server, "full")

    def incremental(self, server: Server) -> tuple[str, ...]:
        before = max(self.repository.iterdir(), key=lambda path: path.stat().st_mtime)
        number = sum(1 for _ in self.repository.iterdir())
        return self._command(server, f"incremental-{number}", f"--incremental={before}/backup_manifest")

    def _command(self, server: Server, folder: str, *more: str) -> tuple[str, ...]:
        words = (*self.tuning.split(), *more, "--verbose", "-D", str(self.repository / folder), "-d", server.conninfo)
        return (self.site.program("pg_basebackup"), *words)

    @property
    def backups(self) -> tuple[Path, ...]:
        return (self.repository,)

    @property
    def repository(self) -> Path:
        return self.site.work / self.name

    def restore(self, target: Path) -> tuple[str, ...]:
        return ()

    def delta(self, target: Path) -> tuple[str, ...]:
        return ()

    def phases(self, lines: Sequence[Line]) -> Phases:
        return Phases(checkpoint=_between(lines, "waiting for checkpoint", "checkpoint completed"))


@dataclass(frozen=True, slots=True)
class PgKeep:
    """pgkeep as `init` leaves it; `level` (zstd's) is set only to race at a peer's level."""

    site: Site
    program: str
    name: str = "pgkeep"
    level: int | None = None
    mode: str = "auto"
    """How incremental backups find what has changed."""

    @property
    def version(self) -> str:
        return self.site.run(self.program, "--version").split()[-1]

    @property
    def tuning(self) -> str:
        return "as installed" if self.level is None else f"compression-level = {self.level}"

    @property
    def archive_command(self) -> str:
        return f"{self.program} --config {self.config} wal push %p"

    @property
    def _home(self) -> Path:
        return self.site.work / self.name

    @property
    def config(self) -> Path:
        return self._home / "pgkeep.toml"

    def prepare(self, server: Server) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        self.site.folder(self.name)
        self.config.write_text(
            f'[repository]\nurl = "file://{self.repository}"\n\n'
            f'[cluster.main]\nconnection = "{server.conninfo}"\n'
            f"{'' if self.level is None else self.tuning}\n"
        )
        self.site.own(self.config)
        self.site.run(self.program, "--config", str(self.config), "init")

    def recommended_archive_command(self, server: Server) -> str:
        answer = json.loads(
            self.site.run(self.program, "--config", str(self.config), "--json", "init").splitlines()[-1]
        )
        sql = next(one["sql"] for one in answer["result"]["statements"] if "archive_command" in one["sql"])
        return str(sql).partition("= '")[2].removesuffix("';").replace("''", "'")

    def backup(self, server: Server) -> tuple[str, ...]:
        return self.command("backup", "--mode", "full", "--checkpoint", "fast")

    def incremental(self, server: Server) -> tuple[str, ...]:
        return self.command("backup", "--mode", self.mode, "--checkpoint", "fast")

    @property
    def backups(self) -> tuple[Path, ...]:
        return tuple(path for kind in ("packs", "backups") for path in self.repository.glob(f"*/{kind}"))

    @property
    def repository(self) -> Path:
        return self._home / "repository"

    def restore(self, target: Path) -> tuple[str, ...]:
        return self.command("restore", str(target), "--latest")

    def delta(self, target: Path) -> tuple[str, ...]:
        return (*self.restore(target), "--delta", "--yes")

    def command(self, *words: str) -> tuple[str, ...]:
        return (self.program, "--config", str(self.config), *words)

    def phases(self, lines: Sequence[Line]) -> Phases:
        return Phases(
            checkpoint=_between(lines, "waiting for the checkpoint", "looking for the backup to build on")
            or _between(lines, "waiting for the checkpoint", "copying the data directory"),
            archive=_between(lines, "ending the backup on the server", "writing the manifest"),
        )


NAMES = (
    "pgkeep", "pgkeep-lsn", "pgkeep-level-3", "pgbackrest", "pgbackrest-level-2", "pgbackrest-no-block",
    "pg_basebackup",
)  # fmt: skip


def contenders(site: Site, names: Sequence[str], pgkeep: str | None, pgbackrest: str | None) -> tuple[Contender, ...]:
    """Those of NAMES that are asked for, in that order.  RaceError when the program of one was not found."""
    return tuple(_contender(site, name, pgkeep, pgbackrest) for name in names)


def _contender(site: Site, name: str, pgkeep: str | None, pgbackrest: str | None) -> Contender:
    match name:
        case "pgkeep" if pgkeep:
            return PgKeep(site, pgkeep)
        case "pgkeep-lsn" if pgkeep:
            return PgKeep(site, pgkeep, name, mode="lsn")
        case "pgkeep-level-3" if pgkeep:
            return PgKeep(site, pgkeep, name, level=3)
        case "pgbackrest" if pgbackrest:
            return PgBackRest(site, pgbackrest)
        case "pgbackrest-level-2" if pgbackrest:
            return PgBackRest(site, pgbackrest, name, level=2)
        case "pgbackrest-no-block" if pgbackrest:
            return PgBackRest(site, pgbackrest, name, block=False)
        case "pg_basebackup":
            return PgBaseBackup(site)
        case _:
            raise RaceError(f"{name}: program not found; name it by option, or leave it out with --contenders")


def _between(lines: Sequence[Line], first: str, second: str) -> float | None:
    """Seconds from the first line that holds `first` to the next that holds `second`."""
    began = next((line.seconds for line in lines if first in line.text), None)
    ended = next((line.seconds for line in lines if second in line.text), None)
    return None if began is None or ended is None else ended - began
