"""What archive_command's shell answers without the program: only what a marker proves, as `wal.marker` would."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from tests.wal.test_marker import CHANGES
from tests.wal.waiting import ENVIRONMENT, Waiting, make_waiting
from tests.walfiles import Failover

import pgkeep
import pgkeep.wal
from pgkeep.wal import marker
from pgkeep.wal.token import instance_token

SCRIPT = Path(pgkeep.wal.__file__).with_name("archived.sh")
ASKED = 3
"""The exit status of what stands for the program."""


@pytest.fixture
def waiting(failover: Failover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """The first segment has been archived by the `program` beside the data directory."""
    made = make_waiting(failover, tmp_path)
    instance_token(made.datadir)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexit {ASKED}\n")
    program.chmod(0o755)
    monkeypatch.chdir(made.datadir)
    made.archiver(terms=made.terms(command=words(made))).archive(made.path(made.names[0]))
    assert made.marked() == made.names[:1]
    return made


def words(waiting: Waiting) -> list[str]:
    return [str(waiting.config.parent / "program"), "--config", "pgkeep.toml", "wal", "push"]


def status(waiting: Waiting, command: Sequence[str] = (), environment: Mapping[str, str] = ENVIRONMENT) -> int:
    """0: the shell knew; ASKED: it ran the program."""
    called = shlex.join([*(command or words(waiting)), f"pg_wal/{waiting.names[0]}"])
    ran = subprocess.run(
        ["/bin/sh", "-c", f"set -- {called}; . {shlex.quote(str(SCRIPT))}"], timeout=60, capture_output=True, text=True,
        env={"PATH": os.defpath, **environment},
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("", "")
    return ran.returncode


def test_what_is_archived_needs_no_program(waiting: Waiting) -> None:
    assert status(waiting) == 0
    assert status(waiting, environment={**ENVIRONMENT, "LC_ALL": "de_DE.UTF-8", "IFS": ":", "PGDATA": "/x"}) == 0


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_it_rests_on(waiting: Waiting, what: str) -> None:
    CHANGES[what](waiting)
    assert status(waiting) == ASKED


CALLS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "another configuration": lambda w: [w[0], "--config", "./pgkeep.toml", *w[3:]],
    "another repository": lambda w: [*w[:3], "--repo", "other", *w[3:]],
    "other words, which look the same": lambda w: [w[0], " ".join(w[1:3]), *w[3:]],
    "a word less": lambda w: [w[0], *w[3:]],
}


@pytest.mark.parametrize("which", CALLS)
def test_another_call_is_not_answered(waiting: Waiting, which: str) -> None:
    assert status(waiting, CALLS[which](words(waiting))) == ASKED


@pytest.mark.parametrize("change", [{"PGKEEP_REPOSITORY_URL": "/elsewhere"}, {"PGKEEP_X": ""}, {"HOME": "/home/other"}])
def test_another_environment(waiting: Waiting, change: Mapping[str, str]) -> None:
    assert status(waiting, environment={**ENVIRONMENT, **change}) == ASKED


def test_another_working_directory(waiting: Waiting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pg_wal").symlink_to(waiting.folder)
    monkeypatch.chdir(elsewhere)
    assert status(waiting) == ASKED


@pytest.mark.parametrize("made_by", ["a call with a variable", "a call of words with blanks", "another program"])
def test_what_others_have_marked(waiting: Waiting, made_by: str) -> None:
    """The program knows its own calls; the shell only those that it can compare."""
    if made_by == "a call with a variable":
        terms = marker.terms({}, {"PGKEEP_X": "1"}, str(waiting.config), (), words(waiting))
    elif made_by == "a call of words with blanks":
        terms = waiting.terms(command=[*words(waiting), "a b"])
    else:
        terms = waiting.terms()
    waiting.archiver(terms=terms).archive(waiting.path(waiting.names[0]))
    command = [*words(waiting), "a b"] if made_by == "a call of words with blanks" else words(waiting)
    assert status(waiting, command) == ASKED


def test_a_marker_that_was_not_written_whole(waiting: Waiting) -> None:
    path = Path(marker.path_of(waiting.path(waiting.names[0])))
    content = path.read_bytes()
    needed = content.index(b"\n.\n") + 2
    for length in (*range(0, needed, 29), needed - 2, needed - 1):
        path.write_bytes(content[:length])
        assert status(waiting) == ASKED, length
    path.write_bytes(content[:needed])
    assert status(waiting) == 0


def test_a_marker_of_which_a_byte_is_wrong(waiting: Waiting) -> None:
    path = Path(marker.path_of(waiting.path(waiting.names[0])))
    content = path.read_bytes()
    for at in range(0, content.index(b"\n.\n") + 2, 23):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert status(waiting) == ASKED, at


def test_a_path_that_is_no_ascii(waiting: Waiting, tmp_path: Path) -> None:
    """Shells differ in what they do with such bytes."""
    odd = tmp_path / "bücher"
    odd.touch()
    terms = waiting.terms(command=words(waiting)).with_files(str(odd))
    waiting.archiver(terms=terms).archive(waiting.path(waiting.names[0]))
    assert status(waiting) == ASKED
    assert waiting.is_archived(waiting.names[0])


@pytest.mark.parametrize("stat", ["exit 1", "echo '%d %i %s %.9Y %.9Z'", '/usr/bin/stat "$@" | cut -d. -f1', ""])
def test_a_system_of_another_stat(waiting: Waiting, tmp_path: Path, stat: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    if stat:
        (programs / "stat").write_text(f"#!/bin/sh\n{stat}\n")
        (programs / "stat").chmod(0o755)
    assert status(waiting, environment={**ENVIRONMENT, "PATH": str(programs)}) == ASKED


def test_no_program_is_no_success(waiting: Waiting) -> None:
    """`exec` without words succeeds."""
    for command in (f". {SCRIPT}", f"set --; . {SCRIPT}", f"set -- /no/such/program; . {SCRIPT}"):
        ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60)
        assert ran.returncode > 0 and ran.stderr, command


def test_no_marker_is_no_noise(waiting: Waiting) -> None:
    os.unlink(marker.path_of(waiting.path(waiting.names[0])))
    assert status(waiting) == ASKED


def test_after_the_real_program(waiting: Waiting) -> None:
    """The words that it has seen are those that the shell had."""
    first, second = waiting.names[:2]
    os.unlink(marker.path_of(waiting.path(first)))
    main = Path(pgkeep.__file__).with_name("__main__.py")
    program = [sys.executable, "-SP", str(main), "--config", str(waiting.config), "wal", "push"]
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert status(waiting, program, environment) == 0
    waiting.wait_idle()
    broken = {**ENVIRONMENT, "PYTHONHOME": "/nonexistent"}
    assert subprocess.run(program, env=broken, capture_output=True, timeout=60).returncode != 0
    for name in (second, first):  # the second was archived by who worked ahead
        waiting.names.insert(0, name)
        assert status(waiting, program, broken) == 0
