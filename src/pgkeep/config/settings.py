"""What the configuration says: frozen values, one class for each table of the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from pgkeep.errors import Fault
from pgkeep.retention.policy import KeepPolicy

if TYPE_CHECKING:
    from pgkeep.values.schedule import Schedule

Checkpoint = Literal["fast", "spread"]
DumpFormat = Literal["directory", "custom", "plain"]


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """[repository]: a name for --repo, and where the objects lie."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class DumpSettings:
    """[cluster.NAME.dumps.NAME]: a set of dumps, its databases, how they are dumped, when, and which stay.

    Its `name` is also the database's where nothing else is said.  `keep` None: as the cluster's `keep` says, but for
    its WAL.  Options are pg_dump's own; `jobs` and `compress` None leave the choice to the dump.
    """

    name: str
    database: str | None = None
    all: bool = False
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    schema_only: bool = False
    data_only: bool = False
    no_owner: bool = False
    no_acl: bool = False
    filter: str | None = None
    """Absolute path of a pg_dump filter file."""
    format: DumpFormat = "directory"
    jobs: int | None = None
    compress: str | None = None
    keep: KeepPolicy | None = None
    schedule: Schedule | None = None
    lock_timeout: timedelta | None = None
    """How long a table's lock is waited for; None: as long as it takes."""

    @property
    def source(self) -> str | None:
        """The database; None when it is all of them."""
        return None if self.all else self.database or self.name


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """[cluster.NAME]: how to reach a cluster, and how it is backed up.

    `connection` is libpq's (a secret: it may hold a password); `compression_level` is zstd's; `processes` None means
    one for each core; `archive_timeout` is how long a backup waits for its last WAL; `bindir` is where PostgreSQL's
    programs are, if not in a usual place; `archive_ahead` is how many files one `wal push` archives beyond its own, and
    `archive_ahead_time` how long it does.  `keep` None: nothing is ever deleted.  `timezone` names the zone whose days
    `keep` counts and whose clocks schedules go by, and is one of the time zone data base; None means this machine's.
    """

    name: str
    connection: str = field(repr=False)
    compression_level: int = 1
    processes: int | None = None
    checkpoint: Checkpoint = "fast"
    bindir: str | None = None
    archive_timeout: timedelta = timedelta(minutes=10)
    keep: KeepPolicy | None = None
    timezone: str | None = None
    archive_ahead: int = 1000
    archive_ahead_time: timedelta = timedelta(minutes=5)
    dumps: tuple[DumpSettings, ...] = ()
    """The sets of dumps, in the order of the file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file; `path` is absolute."""

    path: str
    repositories: tuple[RepositorySettings, ...]
    clusters: tuple[ClusterSettings, ...]

    def repository(self, name: str | None = None) -> RepositorySettings:
        """The repository called `name`, or the only one; Fault `usage` otherwise."""
        for known in self.repositories:
            if known.name == name or (name is None and len(self.repositories) == 1):
                return known
        raise self._no_such("repository", name, [known.name for known in self.repositories], "--repo")

    def cluster(self, name: str | None = None) -> ClusterSettings:
        """The cluster called `name`, or the only one; Fault `usage` otherwise."""
        for known in self.clusters:
            if known.name == name or (name is None and len(self.clusters) == 1):
                return known
        raise self._no_such("cluster", name, [known.name for known in self.clusters], "--cluster")

    def _no_such(self, kind: str, name: str | None, known: list[str], option: str) -> Fault:
        listed = ", ".join(known)
        if name is None:
            return Fault(
                "usage", f"{self.path} has several tables of the kind {kind} ({listed}), expected the name of one",
                hint=f"add {option} NAME",
            )  # fmt: skip
        return Fault(
            "usage",
            f"{self.path} has no {kind} named {name!r}, it has: {listed}",
            hint=f"correct {option}, or the file",
        )
