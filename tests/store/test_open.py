"""open_store: which store a URL names, and what is said of one that names none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Fault
from pgkeep.store.local import LocalStore
from pgkeep.store.open import create_store, open_store
from tests.store.contract import raises


def root_of(url: str) -> str:
    store = open_store(url)
    assert isinstance(store, LocalStore)
    return repr(store).removeprefix("LocalStore('").removesuffix("')")


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///mnt/nas/pg", "/mnt/nas/pg"),
        ("file:///mnt/nas/pg/", "/mnt/nas/pg"),
        ("FILE:///mnt", "/mnt"),
        ("file://localhost/mnt/nas", "/mnt/nas"),
        ("file:///mnt/my%20nas", "/mnt/my nas"),
        ("file:///mnt/100%25", "/mnt/100%"),
        ("file:///mnt/a+b", "/mnt/a+b"),
        ("file:///mnt/%3F%23", "/mnt/?#"),
        ("file:///mnt/m%C3%BCll", "/mnt/müll"),
        ("/mnt/nas/pg", "/mnt/nas/pg"),
        ("/mnt/100%25 ?#", "/mnt/100%25 ?#"),
        ("/mnt/s3://x", "/mnt/s3://x"),
    ],
)
def test_a_local_store(url: str, root: str) -> None:
    assert root_of(url) == root


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://bucket/x", "'s3'"),
        ("gs://bucket", "'gs'"),
        ("sftp://host/x", "'sftp'"),
        ("memory:", "'memory'"),
        ("C:\\backups", "'C'"),
        ("", "neither"),
        ("relative/path", "neither"),
        ("./here", "neither"),
        ("~/pg", "neither"),
        ("file:relative", "absolute path"),
        ("file:/one/slash", "absolute path"),
        ("file://", "absolute path"),
        ("file://nas/pg", "absolute path"),
        ("file:///", "root of the file system"),
        ("file:////", "root of the file system"),
        ("/", "root of the file system"),
        ("file:///a?b=c", "query"),
        ("file:///a#b", "query"),
        ("file:///a%2", "'%'"),
        ("file:///a%zz", "'%'"),
        ("file:///100%", "'%'"),
        ("file:///a%00b", "null"),
        ("/a\0b", "null"),
    ],
)
def test_a_url_that_names_no_store(url: str, says: str) -> None:
    for call in (open_store, create_store):
        with pytest.raises(Fault) as caught:
            call(url)
        assert caught.value.code == "config-invalid"
        assert says in caught.value.message
        assert caught.value.hint


def test_an_unknown_scheme_says_which_there_are() -> None:
    with pytest.raises(Fault) as caught:
        open_store("s3://bucket")
    assert "file://" in caught.value.hint


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).filter(lambda path: path.strip("/")))
def test_the_url_of_a_store_opens_the_same_store(path: str) -> None:
    store = open_store(f"/{path}")
    assert repr(open_store(store.url)) == repr(store)
    assert store.url.isascii()


def test_a_path_that_is_not_utf8_survives_the_url() -> None:
    store = LocalStore("/mnt/\udcff")
    assert store.url == "file:///mnt/%FF"
    assert repr(open_store(store.url)) == repr(store)


def test_opening_makes_nothing_and_creating_does(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/deep/store"
    with raises("store-unreachable"):
        open_store(url).put("a", [b"x"])
    create_store(url).put("a", [b"x"])
    assert open_store(url).get("a") == b"x"
