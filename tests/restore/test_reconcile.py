"""The merge of what is wanted and what is there, and the order of a walk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.format.manifest import EntryType
from pgkeep.restore.mark import UNFINISHED
from pgkeep.restore.reconcile import Keep, Make, Remove, Step, Wanted, reconcile, walk
from pgkeep.restore.tree import Found, Tree

FILE, DIRECTORY, LINK = EntryType.FILE, EntryType.DIRECTORY, EntryType.LINKED_TABLESPACE
NAMES = st.text("ab./", min_size=1, max_size=5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_bytes(b"12345")
    (tmp_path / "a.b").write_bytes(b"")
    (tmp_path / "a0").write_bytes(b"")
    (tmp_path / "link").symlink_to("/somewhere")
    (tmp_path / os.fsdecode(UNFINISHED)).write_bytes(b"")
    for path in tmp_path.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    return tmp_path


def steps(root: Path, *wanted: Wanted) -> list[Step]:
    tree = Tree(str(root))
    try:
        return list(reconcile(wanted, [walk(tree)]))
    finally:
        tree.close()


def wanted(path: str, type_: EntryType = FILE, mode: int = 0o600, **more: object) -> Wanted:
    return Wanted(0, path.encode(), type_, mode, **more)  # type: ignore[arg-type]


def test_a_walk_goes_by_whole_paths_and_follows_no_link(root: Path) -> None:
    tree = Tree(str(root))
    assert [found.path for found in walk(tree)] == [b"a", b"a.b", b"a/x", b"a0", b"link", UNFINISHED]
    assert [found.path for found in walk(tree, b"a")] == [b"a", b"a/x"]
    tree.close()


def test_what_nobody_wants_goes_but_for_our_mark(root: Path) -> None:
    assert [step.found.path for step in steps(root) if isinstance(step, Remove)] == [
        b"a", b"a.b", b"a/x", b"a0", b"link"
    ]  # fmt: skip


def test_what_is_right_stays(root: Path) -> None:
    found = steps(
        root,
        wanted("a", DIRECTORY, 0o700), wanted("a.b", size=7), wanted("a/x", size=5), wanted("a0", mode=0o640),
        wanted("link", LINK, 0o777, target=b"/somewhere"),
    )  # fmt: skip
    assert [(step.dress, step.cut) for step in found if isinstance(step, Keep)] == [
        (False, False), (False, False), (False, False), (True, False), (False, False)
    ]  # fmt: skip
    assert len(found) == 5
    (cut,) = [step for step in steps(root, wanted("a/x", size=4)) if isinstance(step, Keep)]
    assert cut.cut


@pytest.mark.parametrize(
    "other",
    [wanted("link", LINK, target=b"/elsewhere"), wanted("link"), wanted("a", FILE), wanted("a0", DIRECTORY)],
    ids=["another link", "a file", "a file for a directory", "a directory for a file"],
)
def test_another_kind_goes_first(root: Path, other: Wanted) -> None:
    found = steps(root, other)
    at = found.index(Make(other))
    before = found[at - 1]
    assert isinstance(before, Remove) and before.found.path == other.path


def test_a_second_name_of_a_file_is_not_written_through(root: Path) -> None:
    os.link(root / "a0", root / "zz")
    kinds = [type(step) for step in steps(root, wanted("a0")) if _path(step) == b"a0"]
    assert kinds == [Remove, Make]


def _path(step: Step) -> bytes:
    return step.wanted.path if isinstance(step, Make) else step.found.path


@given(st.sets(NAMES), st.sets(NAMES))
def test_every_path_is_met_once(there: set[str], asked: set[str]) -> None:
    status = os.lstat(__file__)
    present = (Found(path.encode(), status) for path in sorted(there))
    found = list(reconcile([wanted(path) for path in sorted(asked)], [iter(present)]))
    assert {_path(step) for step in found if isinstance(step, Remove)} == {p.encode() for p in there - asked}
    assert {_path(step) for step in found if isinstance(step, Make)} == {p.encode() for p in asked - there}
    assert {_path(step) for step in found if isinstance(step, Keep)} == {p.encode() for p in asked & there}
