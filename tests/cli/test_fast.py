"""The short way of `wal push` and `wal get`: what it takes and imports, and that no failure is an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pgkeep
from pgkeep.cli import fast
from pgkeep.wal import get

SOURCE = str(Path(pgkeep.__file__).parent.parent)
ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "HOME": "/nonexistent"}
HEAVY = ("click", "rich", "numpy", "psycopg", "asyncio", "multiprocessing", "pgkeep.cli.main", "pgkeep.catalog.backups")


def test_the_outage_is_the_rooms_own() -> None:
    assert fast.OUTAGE == get.EXIT_FAILED > 125


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("wal push pg_wal/1", ("push", ["pg_wal/1"], {})),
        ("--config /c wal push x", ("push", ["x"], {"--config": "/c"})),
        ("wal --config=/c get a b --lineage l", ("get", ["a", "b"], {"--config": "/c", "--lineage": "l"})),
        ("--json --quiet wal get a b --cluster x --repo y", ("get", ["a", "b"], {"--cluster": "x", "--repo": "y"})),
    ],
)
def test_well_formed_calls(argv: str, expected: tuple[str, list[str], dict[str, str]]) -> None:
    call = fast.parse(argv.split())
    assert call is not None
    assert (call.action, call.operands, call.options) == expected
    assert not call.verbose
    verbose = fast.parse([*argv.split(), "-v"])
    assert verbose is not None and verbose.verbose


@pytest.mark.parametrize(
    "argv",
    [
        "list", "wal", "wal get", "wal get a", "wal get a b c", "wal push", "wal push a b", "wal fetch a",
        "wal get a b --help", "wal get --dry-run a b", "wal get a b --config", "wal get a b --config=", "get wal a b",
        "wal push a --lineage x", "--unknown wal push a",
    ],
)  # fmt: skip
def test_everything_else_is_left_to_click(argv: str) -> None:
    assert fast.parse(argv.split()) is None


@pytest.mark.parametrize("argv", ["wal get a b", "--config x wal get", "wal --config x get a b", "--bad wal -x get"])
def test_postgresql_may_be_waiting(argv: str) -> None:
    assert fast.is_wal_get(argv.split())
    assert not fast.is_wal_get(argv.replace("get", "push").split())


def run(*argv: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *argv]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, cwd=cwd, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("verb", [["push", "x"], ["get", "x", "y"]])
def test_it_imports_neither_click_nor_rich_nor_numpy(verb: list[str], tmp_path: Path) -> None:
    (tmp_path / "pgkeep.toml").write_text(f'[repository]\nurl = "{tmp_path}"\n[cluster.main]\nconnection = ""\n')
    probe = (
        "import sys; from pgkeep.cli import fast; status = fast.serve(fast.parse(sys.argv[1:]));"
        f"print(status, [name for name in {HEAVY} if name in sys.modules])"
    )
    ran = run("-c", probe, "wal", *verb, cwd=tmp_path)
    assert ran.stdout.split(" ", 1)[1] == "[]\n", ran.stderr
    assert "there is no pgkeep repository" in ran.stderr


def test_it_may_be_started_without_site(tmp_path: Path) -> None:
    """As `init` writes it into archive_command: packages are found none the less, when they are needed."""
    main = str(Path(pgkeep.__file__).with_name("__main__.py"))
    assert run("-SP", main, "--version", cwd=tmp_path).stdout == f"pgkeep {pgkeep.__version__}\n"
    assert "Usage" in run("-SP", main, "--help", cwd=tmp_path).stdout
    ran = run("-SP", main, "wal", "push", "x", cwd=tmp_path)
    assert (ran.returncode, "no configuration found" in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    "argv",
    [
        ["wal", "get", "000000010000000000000001", "x"],
        ["wal", "get"],
        ["wal", "get", "--nonsense", "a", "b"],
        ["--nonsense", "wal", "get", "a", "b"],
        ["wal", "--cluster", "x", "get", "a"],
        ["--json", "--dry-run", "wal", "get", "a", "b"],
    ],
)
def test_no_failure_of_wal_get_is_an_answer(argv: list[str], tmp_path: Path) -> None:
    ran = run("-m", "pgkeep", *argv, cwd=tmp_path)
    assert ran.returncode == fast.OUTAGE
    assert "error" in ran.stderr + ran.stdout


def test_a_closed_or_full_stderr_changes_nothing(tmp_path: Path) -> None:
    """Python ends with 120 when its last flush fails, which PostgreSQL would take for the end of WAL."""
    for target in (">&- 2>&-", ">/dev/full 2>/dev/full", "</dev/null >&- 2>/dev/full"):
        for argv in ("wal get a b", "wal get", "wal get --help x"):
            command = f"{sys.executable} -m pgkeep {argv} {target}"
            status = subprocess.run(["/bin/sh", "-c", command], env=ENV, cwd=tmp_path, timeout=60).returncode
            assert status == fast.OUTAGE or (status == 0 and "--help" in argv), (target, argv)


def test_a_broken_installation_is_an_outage(tmp_path: Path) -> None:
    """A module that cannot be imported ends Python with 1: the entry must not let that out."""
    (tmp_path / "msgspec.py").write_text("raise ImportError('half an upgrade')\n")
    (tmp_path / "tomllib.py").write_text("raise MemoryError\n")
    env = ENV | {"PYTHONPATH": f"{tmp_path}:{SOURCE}"}
    command = [sys.executable, "-m", "pgkeep", "--config", "/etc/hostname", "wal", "get", "a", "b"]
    ran = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60)
    assert ran.returncode == fast.OUTAGE
    assert "error" in ran.stderr
