from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.pg.relfile import (
    PG_DEFAULT,
    PG_GLOBAL,
    Fork,
    RelationFile,
    is_temporary_relation,
    parse_relation_name,
    relation_of,
)

FORKS = {Fork.MAIN: "", Fork.FSM: "_fsm", Fork.VM: "_vm", Fork.INIT: "_init"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("base/5/16384", RelationFile(PG_DEFAULT, 5, 16384, Fork.MAIN, 0)),
        ("base/5/16384.3", RelationFile(PG_DEFAULT, 5, 16384, Fork.MAIN, 3)),
        ("base/5/16384_vm.1", RelationFile(PG_DEFAULT, 5, 16384, Fork.VM, 1)),
        ("global/1262_fsm", RelationFile(PG_GLOBAL, 0, 1262, Fork.FSM, 0)),
        ("pg_tblspc/16390/PG_17_202406281/5/7_init", RelationFile(16390, 5, 7, Fork.INIT, 0)),
        ("base/5/4294967295", RelationFile(PG_DEFAULT, 5, 4294967295, Fork.MAIN, 0)),
        ("base/5/4294967296", None),
        ("base/5/0", None),
        ("base/5/016384", None),
        ("base/5/16384.0", None),
        ("base/5/16384.01", None),
        ("base/5/16384.32768", None),
        ("base/5/16384_main", None),
        ("base/5/16384_vm_fsm", None),
        ("base/5/16384\n", None),
        ("base/5/١٦٣٨٤", None),
        ("base/5/t3_16384", None),
        ("base/5/PG_VERSION", None),
        ("base/x/16384", None),
        ("base/16384", None),
        ("16384", None),
        ("base/5/sub/16384", None),
        ("pg_tblspc/16390/5/16384", None),
        ("pg_tblspc/16390/other/5/16384", None),
        ("pg_xact/0000", None),
    ],
)
def test_which_relation_a_path_is(path: str, expected: RelationFile | None) -> None:
    assert relation_of(path) == expected


@given(st.integers(1, 2**32 - 1), st.sampled_from(Fork), st.integers(0, 32767))
def test_every_name_that_a_server_gives_is_read(number: int, fork: Fork, segment: int) -> None:
    name = f"{number}{FORKS[fork]}" + (f".{segment}" if segment else "")
    assert parse_relation_name(name) == (number, fork, segment)


@given(st.text())
def test_any_text_is_a_relation_or_none(path: str) -> None:
    found = relation_of(path)
    assert found is None or 0 <= found.first_block() < 2**32


@pytest.mark.parametrize("name", ["t3_16384", "t3_16384_fsm", "t12_16384_vm.1", "t3_16384.2"])
def test_temporary_relations(name: str) -> None:
    assert is_temporary_relation(name)


@pytest.mark.parametrize(
    "name", ["t3", "t_16384", "t3_", "t3_16384_x", "x3_16384", "3_16384", "t3_16384.", "t3_16384\n"]
)
def test_other_names_are_not_temporary(name: str) -> None:
    assert not is_temporary_relation(name)


def test_blocks_of_later_segments_count_on() -> None:
    assert RelationFile(PG_DEFAULT, 5, 16384, Fork.MAIN, 2).first_block() == 262144
    assert RelationFile(PG_DEFAULT, 5, 16384, Fork.MAIN, 2).first_block(16) == 32
