"""Incremental backups in a storm: after each, its files against an independent full read of the same moment.

Between backups there are crashes, promotions, snapshots that are put back, checksums that are switched.  Some backups
are restored and started: table by table as the oracle says, pg_amcheck and pg_checksums find nothing.  Where nothing
logs hint bits, they are masked as in access/common/bufmask.c; all else must be equal, PD_ALL_VISIBLE too.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pgkeep.backup.detection import Mode
from tests.adversity.conftest import started
from tests.backup.ground import Ground, Taken
from tests.backup.storm import Storm, shown
from tests.clusters import Cluster
from tests.keeping import Kept
from tests.oracle import witness
from tests.servers import pg_versions

MakeGround = Callable[..., Ground]
DATABASES = ("postgres", "original", "twin")


@dataclass
class Torture:
    """Rounds of storm, event and backup."""

    ground: Ground
    seed: int
    checksums: bool
    masked: bool
    """Nothing logs hint bits."""
    rounds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.storm = Storm(self.ground.server, self.seed)
        self.storm.prepare(self.ground.server.home)

    def run(self, rounds: int, restores: int) -> None:
        self._round("full", event=None)
        restored = set(self.chance.sample(range(rounds), restores))
        events = (None, None, None, None, self.crash, self.restart, self.roll_back, self.promote)
        for number in range(rounds):
            taken = self._round(self.chance.choice(self.modes), event=self.chance.choice(events))
            if number in restored or number == rounds - 1:
                self.restore(taken)
        assert self.ground.verified().is_sound

    @property
    def modes(self) -> list[Mode]:
        more: list[Mode] = ["summaries", "auto"] if self.ground.server.major >= 17 else ["auto"]
        return ["rescan", "lsn", *more]

    def _round(self, mode: Mode, event: Callable[[], None] | None) -> Taken:
        self.storm.steps(self.chance.randint(1, 12))
        if event is not None:
            self.rounds.append(event.__name__)
            event()
        taken = self.ground.backup(mode)
        self.rounds.append(f"{taken.info.backup}: {mode}, {taken.info.method}, {taken.info.method_reason}")
        wrong = self.ground.wrong(taken, masked=self.masked and taken.info.method != "rescan")
        assert not wrong, f"--seed {self.seed}\n{wrong[:5]}\n{shown(self.storm, self.rounds)}"
        return taken

    def restore(self, taken: Taken) -> None:
        """Quiet since the backup: the server restored to its end must hold what this one does."""
        kept, target = self.ground.kept, self.ground.kept.home / "restored"
        expected = {name: witness.hashes(self.ground.server, name) for name in DATABASES}
        with started(kept, target, "--backup", taken.info.backup, "--immediate") as server:
            found = {name: witness.hashes(server, name) for name in DATABASES}
            assert found == expected, f"--seed {self.seed}\n{shown(self.storm, self.rounds)}"
            check(server)
        if self.checksums:
            kept.cluster.programs.run("pg_checksums", "--check", "-D", str(target), account=kept.account, timeout=120)
        shutil.rmtree(target)
        shutil.rmtree(f"{target}-tablespaces", ignore_errors=True)

    # ---- events

    def crash(self) -> None:
        self.storm.steps(3)
        self.ground.server.restart(immediate=True)

    def restart(self) -> None:
        """With checksums off and on again, where there are any."""
        with self.ground.stopped():
            if self.checksums and self.chance.random() < 0.5:
                self._pg_checksums("--disable")
                self._pg_checksums("--enable")

    def _pg_checksums(self, what: str) -> None:
        server = self.ground.server
        server.programs.run("pg_checksums", what, "-D", str(server.datadir), account=server.account, timeout=120)

    def roll_back(self) -> None:
        """A snapshot, a life after it with a backup of its own, and the snapshot again, promoted from where it was."""
        server = self.ground.server
        aside = server.home / "snapshot"
        with self.ground.stopped():
            self._copy(server, aside)
        self.storm.steps(4)
        self.ground.backup(self.chance.choice(self.modes))
        self.storm.steps(2)
        server.stop(immediate=self.chance.random() < 0.5)
        for space in ("fast", "slow"):
            shutil.rmtree(server.home / space)
        shutil.rmtree(server.datadir)
        self._copy_back(aside, server)
        (server.datadir / "recovery.signal").touch()
        shutil.chown(server.datadir / "recovery.signal", server.account.name)
        server.configure(restore_command="'false'", recovery_target_timeline="'current'")
        server.start()
        self._settle(server)

    def promote(self) -> None:
        """A standby's way: recovery of its own WAL, and a new timeline, without anything lost."""
        server = self.ground.server
        server.stop()
        (server.datadir / "standby.signal").touch()
        shutil.chown(server.datadir / "standby.signal", server.account.name)
        server.configure(restore_command="'false'", recovery_target_timeline="'current'")
        server.start()
        server.sql("SELECT pg_promote()")
        self._settle(server)

    def _settle(self, server: Cluster) -> None:
        Kept.wait(lambda: not server.value("SELECT pg_is_in_recovery()"), "the server does not leave recovery")
        server.sql("CHECKPOINT")
        timeline = server.value("SELECT timeline_id FROM pg_control_checkpoint()")
        name = f"{timeline:08X}.history"
        Kept.wait(lambda: any(self.ground.kept.repository.rglob(name)), f"{name} is not archived")

    def _copy(self, server: Cluster, aside: Path) -> None:
        aside.mkdir()
        for name in (server.datadir.name, "fast", "slow"):
            subprocess.run(["cp", "-a", server.home / name, aside / name], check=True)

    def _copy_back(self, aside: Path, server: Cluster) -> None:
        for name in (server.datadir.name, "fast", "slow"):
            (aside / name).rename(server.home / name)
        aside.rmdir()


def check(server: Cluster) -> None:
    """pg_amcheck finds nothing in any database."""
    server.run("pg_amcheck", "--install-missing", "--all", "--heapallindexed")


@pytest.fixture
def torture(own: MakeGround, seed: int) -> Callable[..., Torture]:
    def make(**options: Any) -> Torture:
        checksums: bool = options.get("checksums", True)
        return Torture(own(**options), seed, checksums, not checksums and "wal_log_hints" not in options)

    return make


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("pg_major", "options"),
    [(14, {"checksums": False, "wal_log_hints": "on"}), (18, {}), (18, {"checksums": False})],
    ids=["14, hints", "18, checksums", "18, neither"],
)
def test_a_storm(torture: Callable[..., Torture], options: dict[str, Any]) -> None:
    torture(**options).run(rounds=3, restores=0)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "options",
    [{}, {"checksums": False, "wal_log_hints": "on"}, {"checksums": False}],
    ids=["checksums", "hints", "neither"],
)
@pg_versions(14, 15, 17, 18)
def test_a_long_storm(torture: Callable[..., Torture], options: dict[str, Any]) -> None:
    torture(**options).run(rounds=40, restores=6)


@pytest.mark.timeout(600)
@pg_versions("oldest", "newest")
def test_backups_under_load(own: MakeGround, seed: int) -> None:
    """Nothing is quiet: what recovery makes of each backup is what the oracle saw, and the indexes fit."""
    made = own(track_commit_timestamp="on")
    witness.prepare(made.server)
    made.backup("full")
    taken = []
    with witness.Workload(made.server, seed).running():
        modes: list[Mode] = ["auto", "lsn", "rescan", "auto"]
        for mode in modes:
            made.server.sql("SELECT pg_sleep(1)")
            taken.append(made.backup(mode))
    record = witness.record(made.server, 1)
    made.kept.archive_all()
    for one in taken[-1:]:
        target = made.kept.home / "restored"
        with started(made.kept, target, "--backup", one.info.backup, "--name", record.name) as server:
            assert witness.hashes(server) == record.hashes, f"--seed {seed}: {one.info.method}"
            check(server)
