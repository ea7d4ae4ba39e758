"""Rule A, judged without a machine."""

from __future__ import annotations

import pytest

from pgkeep.errors import Fault
from pgkeep.format.manifest import Tablespace
from pgkeep.pg.waldump import TablespaceCreated
from pgkeep.restore.tablespaces import check_created, map_tablespaces, parse_mapping, root_of
from pgkeep.values.lsn import Lsn

SPACES = [
    Tablespace(oid=16400, name=b"fast", location=b"/srv/fast"),
    Tablespace(oid=16401, name=b"cold", location=b"/srv/cold/"),
    Tablespace(oid=16402, name=b"in place", location=b""),
]


def test_every_linked_tablespace_goes_beside_the_directory() -> None:
    mapped = map_tablespaces(SPACES, "/srv/restored", {})
    assert [(s.oid, s.source, s.target, s.explicit) for s in mapped] == [
        (16400, "/srv/fast", "/srv/restored-tablespaces/16400", False),
        (16401, "/srv/cold", "/srv/restored-tablespaces/16401", False),
    ]


def test_a_mapping_is_obeyed_even_to_the_original_path() -> None:
    mapped = map_tablespaces(SPACES, "/srv/restored", {"/srv/fast": "/srv/fast", "/srv/cold": "/mnt/cold"})
    assert [(s.target, s.explicit) for s in mapped] == [("/srv/fast", True), ("/mnt/cold", True)]


def test_the_default_is_never_the_original_path() -> None:
    """A restored server was backed up, and is restored to where it was before."""
    space = [Tablespace(oid=16400, name=b"fast", location=b"/srv/restored-tablespaces/16400")]
    with pytest.raises(Fault) as caught:
        map_tablespaces(space, "/srv/restored", {})
    assert caught.value.code == "tablespace-unsafe"


@pytest.mark.parametrize(
    "mapping",
    [
        {"/srv/fast": "/srv/restored/inside"},
        {"/srv/fast": "/srv/restored"},
        {"/srv/fast": "/srv"},
        {"/srv/fast": "/mnt/x", "/srv/cold": "/mnt/x"},
        {"/srv/fast": "/mnt/x", "/srv/cold": "/mnt/x/y"},
    ],
)
def test_targets_that_overlap_are_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(Fault) as caught:
        map_tablespaces(SPACES, "/srv/restored", mapping)
    assert caught.value.code == "target-unsafe"


def test_a_mapping_of_an_unknown_tablespace_lists_the_known_ones() -> None:
    with pytest.raises(Fault, match="/srv/cold, /srv/fast") as caught:
        map_tablespaces(SPACES, "/srv/restored", {"/srv/slow": "/mnt/slow"})
    assert caught.value.code == "usage"


def test_mappings_as_they_are_typed() -> None:
    assert parse_mapping("/a=/b") == ("/a", "/b")
    assert parse_mapping(r"/a\=1/=/b/../c") == ("/a=1", "/c")
    for wrong in ("/a", "a=/b", "/a=b", "/a=/b=/c", "=", ""):
        with pytest.raises(Fault) as caught:
            parse_mapping(wrong)
        assert caught.value.code == "usage"


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (b"base/5/1", (0, b"base/5/1")),
        (b"pg_tblspc/16400", (0, b"pg_tblspc/16400")),
        (b"pg_tblspc/16400/PG_15/5/1", (1, b"PG_15/5/1")),
        (b"pg_tblspc/16402/PG_15/5/1", (0, b"pg_tblspc/16402/PG_15/5/1")),
    ],
)
def test_which_root_a_path_belongs_to(path: bytes, where: tuple[int, bytes]) -> None:
    assert root_of(path, {16400: 1, 16401: 2}) == where


def test_created_tablespaces_are_refused_where_they_exist() -> None:
    created = [
        TablespaceCreated(lsn=Lsn(1), end=Lsn(2), xid=5, oid=1, path=path)
        for path in ("", "/srv/new", "/srv/new", "/srv/b")
    ]
    assert check_created(created, frozenset()) == ["/srv/new", "/srv/b"]
    with pytest.raises(Fault) as caught:
        check_created(created, frozenset({"/srv/b"}))
    assert caught.value.code == "tablespace-unsafe"
    assert "/srv/b" in caught.value.message
