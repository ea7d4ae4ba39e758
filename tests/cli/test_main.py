"""Exit statuses and error output: what scripts and PostgreSQL rely on."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from tests.cli.conftest import Ran, Run

import pgkeep as pgkeep_package
from pgkeep import __version__
from pgkeep.cli import main
from pgkeep.cli.session import Session, Surroundings
from pgkeep.cli.verb import EXIT_STATUSES, Verb
from pgkeep.clock import SystemClock
from pgkeep.errors import CODES, Fault
from pgkeep.events import Noted, Phase

ENTRY = [sys.executable, "-P", "-m", "pgkeep"]
SOURCE = str(Path(pgkeep_package.__file__).parent.parent)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A verb `probe` whose callback raises or returns what the test puts under 'act'."""
    holder: dict[str, object] = {}

    @click.command("probe", cls=Verb)
    @click.pass_obj
    def command(session: Session) -> object:
        act = holder["act"]
        assert callable(act)
        return act(session)

    known = main.pgkeep.get_command
    monkeypatch.setattr(main.pgkeep, "get_command", lambda ctx, name: command if name == "probe" else known(ctx, name))
    return holder


def raising(error: BaseException) -> object:
    def act(_session: Session) -> None:
        raise error

    return act


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_its_exit_status(code: str, pgkeep: Run, verb: dict[str, object]) -> None:
    verb["act"] = raising(Fault(code, "what was found, what was expected", hint="the way out", key="a/b"))
    ran = pgkeep("probe")
    assert (ran.status, ran.out) == (CODES[code], "")
    assert ran.err == "error: what was found, what was expected\nhint: the way out\n"
    assert CODES[code] in EXIT_STATUSES


def test_a_fault_as_json(pgkeep: Run, verb: dict[str, object]) -> None:
    verb["act"] = raising(Fault("locked", "it is locked", key="a/b"))
    ran = pgkeep("probe", "--json")
    assert ran.err == ""
    error = {"code": "locked", "message": "it is locked", "hint": None, "context": {"key": "a/b"}}
    assert ran.lines == [{"schema": 1, "error": error}]


def test_no_verb_at_all_shows_the_help(pgkeep: Run) -> None:
    ran = pgkeep()
    assert ran.status == 2
    assert ran.err.startswith("Usage: pgkeep")
    assert "error" not in ran.err.splitlines()[0]


def test_verbose_says_where(pgkeep: Run, verb: dict[str, object]) -> None:
    verb["act"] = raising(Fault("locked", "it is locked", key="a/b"))
    assert "key: a/b" in pgkeep("probe", "-v").err
    assert "Traceback" in pgkeep("-v", "probe").err
    assert "Traceback" not in pgkeep("probe").err


def test_an_unexpected_exception_is_an_internal_error(pgkeep: Run, verb: dict[str, object]) -> None:
    verb["act"] = raising(ZeroDivisionError("division by zero"))
    ran = pgkeep("probe")
    assert ran.status == 1
    assert ran.err.startswith("error: internal error: ZeroDivisionError: division by zero\nhint: ")
    assert "Traceback" not in ran.err
    assert "Traceback" in pgkeep("probe", "-v").err
    assert pgkeep("probe", "--json").lines[-1]["error"]["code"] == "internal"


def test_ctrl_c(pgkeep: Run, verb: dict[str, object]) -> None:
    verb["act"] = raising(KeyboardInterrupt())
    ran = pgkeep("probe")
    assert (ran.status, ran.err) == (130, "error: interrupted; earlier backups are as they were\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_unwind(number: signal.Signals, pgkeep: Run, verb: dict[str, object]) -> None:
    cleaned = []

    def act(_session: Session) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            cleaned.append(True)

    verb["act"] = act
    before = signal.getsignal(number)
    assert pgkeep("probe").status == 130
    assert cleaned
    assert signal.getsignal(number) is before


def test_a_status_of_the_verbs_own(pgkeep: Run, verb: dict[str, object]) -> None:
    verb["act"] = lambda _session: 3
    assert pgkeep("probe").status == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lsit"], "no such command 'lsit'"),
        (["list", "--clutser", "x"], "no such option"),
        (["restore"], "missing argument"),
        (["--config"], "requires an argument"),
    ],
)
def test_usage(argv: list[str], message: str, pgkeep: Run) -> None:
    ran = pgkeep(*argv)
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert message in ran.err.lower()
    assert "--help" in ran.err
    assert pgkeep("--json", *argv).lines[-1]["error"]["code"] == "usage"


def test_options_stand_on_either_side(pgkeep: Run, verb: dict[str, object]) -> None:
    seen = []
    verb["act"] = lambda session: seen.append(session.options)
    pgkeep("--config", "a", "--quiet", "-v", "probe", "--config", "b", "-v", "--cluster", "c", "--yes", "--dry-run")
    assert (seen[0].config, seen[0].cluster, seen[0].quiet, seen[0].verbose) == ("b", "c", True, 2)
    assert (seen[0].yes, seen[0].dry_run, seen[0].json, seen[0].repo) == (True, True, False, None)


def test_announcements_by_mode(pgkeep: Run, verb: dict[str, object]) -> None:
    def act(session: Session) -> None:
        session.out.announce(Phase("copy", "copying"))
        session.out.announce(Noted("a fact"))
        session.out.done("probe", {"value": 1}, lambda: "done it")

    verb["act"] = act
    plain = pgkeep("probe")
    assert [line.partition(" ")[2] for line in plain.err.splitlines()] == ["copying", "a fact"]
    assert plain.out == "done it\n"
    quiet = pgkeep("probe", "--quiet")
    assert (quiet.out, quiet.err) == ("", "")
    lines = pgkeep("probe", "--json").lines
    assert [line.get("event", "result") for line in lines] == ["phase", "note", "result"]
    assert lines[-1] == {"schema": 1, "result": {"verb": "probe", "value": 1}}
    assert len(pgkeep("probe", "--json", "--quiet").lines) == 1


def process(*argv: str, cwd: Path, **options: object) -> Ran:
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": SOURCE}
    done = subprocess.run([*ENTRY, *argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]
    return Ran(done.returncode, done.stdout, done.stderr)


def test_help_texts(tmp_path: Path) -> None:
    for path in (
        [],
        ["init"],
        ["list"],
        ["backup"],
        ["restore"],
        ["verify"],
        ["demo"],
        ["wal", "push"],
        ["wal", "get"],
    ):
        ran = process(*path, "--help", cwd=tmp_path)
        assert (ran.status, ran.err) == (0, ""), path
        assert "Example" in ran.out, path
        assert "Exit status: 0 done" in ran.out, path


def test_version(tmp_path: Path) -> None:
    assert process("--version", cwd=tmp_path).out == f"pgkeep {__version__}\n"


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    """The interpreter's own flush at the end must not complain either."""
    (tmp_path / "pgkeep.toml").write_text("[repository\n")
    shell = f"{' '.join(ENTRY)} --json list | true; echo ${{PIPESTATUS[0]}}"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE}
    done = subprocess.run(["/bin/bash", "-c", shell], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_an_answer_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE}
        command = [*ENTRY, "--json", "list"]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env, timeout=60)
    assert ran.returncode != 0
    assert ran.stderr == "error: the output could not be written: No space left on device\n"


def test_a_closed_pipe_is_survived() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as out:
        err = io.StringIO()
        around = Surroundings({}, "/", "/", SystemClock(), out, err)
        assert main.run(["--json", "list"], around) == 2
    assert err.getvalue() == ""
