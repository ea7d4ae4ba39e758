"""What may become of a data directory that is there: the decisions, without a server."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.pg.running import RunningServers
from pgkeep.restore.present import (
    Evidence,
    How,
    Present,
    check_movable,
    check_unused,
    in_place_mappings,
    look_at,
    moves,
    owned_targets,
    proof_of,
)
from pgkeep.restore.tablespaces import MappedTablespace

HOME = "/var/lib/postgresql/15/main"
PRESENT = Present(HOME, How.DELTA, (Evidence(7, "pg_control"),), {16400: "/srv/fast"}, False, False)


def test_servers_that_cannot_be_looked_at_use_nothing_of_this_account(tmp_path: Path) -> None:
    unseen = RunningServers(frozenset(), 3, frozenset({"other"}))
    check_unused([str(tmp_path), str(tmp_path / "absent")], unseen)
    foreign = next(path for path in ("/proc/1", "/") if os.stat(path).st_uid != os.geteuid()) if os.geteuid() else ""
    if not foreign:
        os.chown(tmp_path, 65534, 65534)
        foreign = str(tmp_path)
    with pytest.raises(Fault, match="3 server processes cannot be looked at"):
        check_unused([foreign], unseen)


def test_nothing_there() -> None:
    assert look_at("/nowhere/at/all", How.KEEP) is None


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("15\n")
    (tmp_path / "photos").mkdir()
    for how in How:
        with pytest.raises(Fault) as caught:
            look_at(str(tmp_path), how)
        assert caught.value.code == "target-not-empty"
    (tmp_path / "base").mkdir()
    (tmp_path / "pg_wal").mkdir()
    found = look_at(str(tmp_path), How.KEEP)
    assert found is not None and found.evidence == () and not found.unfinished


def test_the_same_cluster() -> None:
    assert proof_of(PRESENT, 7, "main") == "pg_control"
    assert proof_of(replace(PRESENT, evidence=()), 7, "main") == ""
    mixed = replace(PRESENT, evidence=(Evidence(7, "its WAL (A)"), Evidence(8, "its WAL (B)")))
    with pytest.raises(Fault) as caught:
        proof_of(mixed, 7, "main")
    assert caught.value.code == "cluster-mismatch" and "8" in caught.value.message


def test_only_the_original_directory_keeps_its_tablespaces_in_place() -> None:
    spaces = {16400: "/srv/fast", 16401: "/srv/slow"}
    assert in_place_mappings(PRESENT, spaces, HOME, {}) == {"/srv/fast": "/srv/fast"}
    assert in_place_mappings(PRESENT, spaces, HOME, {"/srv/fast": "/x"}) == {"/srv/fast": "/x"}
    copy = replace(PRESENT, directory="/srv/copy")
    assert in_place_mappings(copy, spaces, HOME, {}) == {}, "a copy's links lead to the original's files"


def test_whose_a_tablespaces_directory_is() -> None:
    def space(target: str, explicit: bool = False, oid: int = 16400) -> MappedTablespace:
        return MappedTablespace(oid, "fast", "/srv/fast", target, explicit)

    assert owned_targets(PRESENT, [space("/srv/fast")]) == {"/srv/fast"}
    beside = f"{HOME}-tablespaces/16400"
    assert owned_targets(PRESENT, [space(beside)]) == {beside}
    assert owned_targets(PRESENT, [space("/srv/other", explicit=True)]) == set()
    assert owned_targets(PRESENT, [space("/srv/other", explicit=True, oid=17000)]) == {"/srv/other"}


def test_what_is_kept_gets_another_name(tmp_path: Path) -> None:
    present = replace(PRESENT, directory=str(tmp_path / "data"))
    moved = moves(present, [str(tmp_path / "space")], "T")
    assert moved == (
        (f"{tmp_path}/data", f"{tmp_path}/data.before-T"), (f"{tmp_path}/space", f"{tmp_path}/space.before-T")
    )  # fmt: skip
    check_movable(moved)
    (tmp_path / "space.before-T").mkdir()
    with pytest.raises(Fault) as caught:
        check_movable(moved)
    assert "there already" in caught.value.message
    with pytest.raises(Fault) as caught:
        check_movable([("/proc", "/proc.before-T")])
    assert "mount point" in caught.value.message and "--delta" in caught.value.hint
