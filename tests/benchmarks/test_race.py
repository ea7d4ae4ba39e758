"""Order of the runs, and the arithmetic that results are quoted from."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.contenders import Contender, PgBackRest, PgBaseBackup, PgKeep, Phases
from benchmarks.measure import Cost, Line
from benchmarks.race import Result, Run, median, paired_ratios, rounds
from benchmarks.server import Site

_SITE = Site(Path("/work"), Path("/bin"), None)


def _run(name: str, wall: float, checkpoint: float | None = None) -> Run:
    return Run(name, Cost(0, wall, 0.0, 0.0, 0, 0.0, ()), Phases(checkpoint), 0.0, 0)


def test_each_round_has_everybody_and_the_order_turns_round() -> None:
    first: Contender = PgBackRest(_SITE, "pgbackrest")
    second: Contender = PgBaseBackup(_SITE)
    order = [[one.name for one in field] for field in rounds([first, second], 3)]
    there, back = ["pgbackrest", "pg_basebackup"], ["pg_basebackup", "pgbackrest"]
    assert order == [back, there, back, there]


def test_ratios_pair_runs_of_the_same_round() -> None:
    runs = (_run("a", 2.0), _run("b", 1.0), _run("b", 6.0), _run("a", 3.0))
    result = Result("backup", runs)
    assert paired_ratios(result, "b", "a", lambda run: run.cost.wall) == [0.5, 2.0]


def test_a_missing_pair_is_an_error_and_not_a_shorter_list() -> None:
    result = Result("backup", (_run("a", 2.0), _run("b", 1.0), _run("a", 3.0)))
    with pytest.raises(ValueError, match="argument 2"):
        paired_ratios(result, "b", "a", lambda run: run.cost.wall)


def test_median_leaves_out_what_was_not_told() -> None:
    runs = [_run("a", 1.0, 0.5), _run("a", 1.0), _run("a", 1.0, 0.1), _run("a", 1.0, 0.2)]
    assert median(runs, lambda run: run.phases.checkpoint) == 0.2
    assert median(runs[1:2], lambda run: run.phases.checkpoint) is None


def test_phases_from_pgbackrests_log() -> None:
    log = (
        (0.04, "P00   INFO: execute backup start: backup begins after the requested immediate checkpoint completes"),
        (0.10, "P00   INFO: backup start archive = 000000010000000000000003, lsn = 0/3000028"),
        (1.30, "P00   INFO: execute backup stop and wait for all WAL segments to archive"),
        (1.34, "P00   INFO: backup stop archive = 000000010000000000000003, lsn = 0/3001958"),
        (1.48, "P00   INFO: new backup label = 20261122-114453F"),
    )
    phases = PgBackRest(_SITE, "pgbackrest").phases([Line(*line) for line in log])
    assert phases.checkpoint == pytest.approx(0.06)
    assert phases.archive == pytest.approx(0.18)


def test_phases_from_pgkeeps_log() -> None:
    log = (
        (0.50, "12:26:22 waiting for the checkpoint that begins the backup"),
        (0.75, "12:26:22 copying the data directory"),
        (3.00, "12:26:25 ending the backup on the server"),
        (3.10, "12:26:26 waiting for the WAL that makes the backup consistent"),
        (3.50, "12:26:26 writing the manifest"),
    )
    assert PgKeep(_SITE, "pgkeep").phases([Line(*line) for line in log]) == Phases(0.25, 0.5)
