"""PostgreSQL's programs are found by what they answer, and fail in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests import servers
from tests.requirements import need_root
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.account import Account
from pgkeep.pg.programs import Programs, all_programs, find_programs, inspect, run_program
from pgkeep.pg.runtime import server_programs


@pg_versions("oldest", "newest")
def test_an_explicit_directory(pg_programs: Programs, pg_major: int) -> None:
    found = find_programs(pg_major, bindir=pg_programs.bindir)
    assert (found.major, found.bindir) == (pg_major, pg_programs.bindir)
    assert found.version == servers.WHEELS[pg_major].rsplit(".", 1)[0] or found.version.startswith(f"{pg_major}.")
    with pytest.raises(Fault, match="version 16 is needed") as caught:
        find_programs(16, bindir=pg_programs.bindir)
    assert caught.value.code == "postgres-program"


def test_path_is_searched(pg_programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"/nonexistent:{pg_programs.bindir}")
    assert find_programs(pg_programs.major).major == pg_programs.major
    assert pg_programs.bindir in [programs.bindir for programs in all_programs()]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgkeep.pg.programs.embedded_bindir", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Fault, match="no postgres and initdb of PostgreSQL 13 found") as caught:
        find_programs(13)
    assert "postgresql-13" in caught.value.hint


def test_a_directory_of_two_versions_does_not_count(tmp_path: Path) -> None:
    for name, version in (("postgres", "17.11"), ("initdb", "16.15")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (tmp_path / name).chmod(0o755)
    assert inspect(tmp_path) is None
    assert inspect(tmp_path, ["initdb"]) == Programs(tmp_path, "16.15", 16)


def test_a_failing_program_speaks(pg_programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="pg_controldata exited 1: pg_controldata: error: could not open") as caught:
        pg_programs.run("pg_controldata", str(tmp_path))
    assert caught.value.code == "postgres-program"
    with pytest.raises(Fault, match="is not in"):
        pg_programs.run("pg_nothing")
    with pytest.raises(Fault, match="did not end within"):
        run_program(["/bin/sleep", "10"], timeout=0.1)


def test_lines_give_what_came_before_the_failure(tmp_path: Path) -> None:
    program = tmp_path / "speaker"
    program.write_text("#!/bin/sh\necho one\necho two\necho gone >&2\nexit 3\n")
    program.chmod(0o755)
    lines = Programs(tmp_path, "18.0", 18).lines("speaker")
    assert [next(lines), next(lines)] == ["one", "two"]
    with pytest.raises(Fault, match="speaker exited 3: gone"):
        next(lines)


def test_pg_variables_do_not_reach_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PGHOST", "db.example.org"), ("PGKEEP_CONFIG", "/etc/pgkeep.toml"), ("LC_ALL", "el_GR")):
        monkeypatch.setenv(name, value)
    seen = run_program(["/usr/bin/env"]).text().splitlines()
    assert "LC_ALL=C" in seen and "PGKEEP_CONFIG=/etc/pgkeep.toml" in seen
    assert not [line for line in seen if line.startswith("PGHOST")]


def test_another_account_is_taken_whole(server_user: Account) -> None:
    need_root()
    seen = run_program(["/bin/sh", "-c", "id -un; id -gn; id -Gn; cd && pwd"], account=server_user).text()
    groups = " ".join(run_program(["/usr/bin/id", "-Gn", server_user.name]).text().split())
    assert seen.splitlines()[:3] == [server_user.name, groups.split()[0], groups]
    assert "root" not in seen


def test_programs_out_of_reach_are_copied(
    server_tmp: Path, server_user: Account, pg_programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root()
    package = pg_programs.bindir.parent.parent
    # Programs from a wheel look for their libraries in NAME.libs beside their package.
    closed = server_tmp / "elsewhere" / package.name
    closed.parent.mkdir()
    closed.mkdir(mode=0o700)
    if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
        closed.with_name(libraries.name).symlink_to(libraries)
    tree = closed / "pginstall"
    tree.mkdir()
    os.symlink(pg_programs.bindir.parent / "share", tree / "share")
    (tree / "lib").symlink_to(pg_programs.bindir.parent / "lib")
    (tree / "bin").mkdir()
    for name in ("postgres", "initdb"):
        os.link(pg_programs.path(name), tree / "bin" / name)
    only = [Programs(tree / "bin", pg_programs.version, pg_programs.major)]
    monkeypatch.setattr("pgkeep.pg.runtime.all_programs", lambda major: only)
    found = server_programs(server_user, server_tmp, pg_programs.major)
    assert found.bindir != tree / "bin" and server_tmp in found.bindir.parents
    output = run_program([found.path("postgres"), "--version"], account=server_user)
    assert pg_programs.version in output.text()
