"""Which file counts, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgkeep.config.find import candidates, find, find_or_none
from pgkeep.errors import Fault


def put(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return str(path)


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    cwd, home = tmp_path / "cwd", tmp_path / "home"
    at_home = put(home / ".config" / "pgkeep" / "pgkeep.toml")
    assert find_or_none(None, None, str(cwd), str(home)) == at_home
    here = put(cwd / "pgkeep.toml")
    assert find(None, None, str(cwd), str(home)) == here
    by_environment = put(tmp_path / "by-environment.toml")
    assert find(None, by_environment, str(cwd), str(home)) == by_environment
    named = put(cwd / "named.toml")
    assert find("named.toml", by_environment, str(cwd), str(home)) == named
    assert find("", "", str(cwd), str(home)) == here


@pytest.mark.parametrize(
    ("explicit", "environment", "by"), [("x.toml", None, "--config"), (None, "x", "PGKEEP_CONFIG")]
)
def test_a_named_file_must_exist(tmp_path: Path, explicit: str | None, environment: str | None, by: str) -> None:
    put(tmp_path / "pgkeep.toml")
    with pytest.raises(Fault, match=f"no such file, although {by} names it") as caught:
        find(explicit, environment, str(tmp_path), str(tmp_path))
    assert caught.value.code == "config-missing"


def test_no_file_at_all_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        find(None, None, str(tmp_path / "a"), str(tmp_path / "b"))
    for path in candidates(str(tmp_path / "a"), str(tmp_path / "b")):
        assert path in caught.value.message
    assert "pgkeep init" in caught.value.hint
