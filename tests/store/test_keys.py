"""Keys: no key can leave a store's root, and prefixes are exactly the beginnings of keys."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.store import keys
from tests.store.contract import BAD_FOLDERS, BAD_KEYS, BAD_PREFIXES

ANY_TEXT = st.one_of(st.text(alphabet="a./-_0~% \\\0é", max_size=12), st.text(max_size=12))


def allowed(check: object, text: str) -> bool:
    assert callable(check)
    try:
        check(text)
    except ValueError:
        return False
    return True


@given(ANY_TEXT)
def test_an_allowed_key_is_a_plain_relative_path(key: str) -> None:
    if allowed(keys.check_key, key):
        assert os.path.normpath(f"/root/{key}") == f"/root/{key}"
        assert key.isascii()
        assert "/." not in f"/{key}"


@given(ANY_TEXT)
def test_every_beginning_of_a_key_is_a_prefix(key: str) -> None:
    if allowed(keys.check_key, key):
        for end in range(len(key) + 1):
            keys.check_prefix(key[:end])
        for folder in keys.folders_of(key):
            assert key.startswith(f"{folder}/")
            keys.check_key(folder)
            keys.check_folder(f"{folder}/")


@given(ANY_TEXT)
def test_every_prefix_begins_a_key(prefix: str) -> None:
    if allowed(keys.check_prefix, prefix):
        assert allowed(keys.check_key, prefix or "0") or allowed(keys.check_key, f"{prefix}0")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_keys(key: str) -> None:
    assert not allowed(keys.check_key, key)


@pytest.mark.parametrize("prefix", BAD_PREFIXES)
def test_bad_prefixes(prefix: str) -> None:
    assert not allowed(keys.check_prefix, prefix)


@pytest.mark.parametrize("prefix", BAD_FOLDERS)
def test_bad_folders(prefix: str) -> None:
    assert not allowed(keys.check_folder, prefix)


@pytest.mark.parametrize("key", ["a", "A-Z_0.9", "a..b", "a.", "-", "_/-", "a" * 255, "/".join(["a" * 255] * 4)])
def test_good_keys(key: str) -> None:
    keys.check_key(key)


def test_the_limits_are_in_characters_of_the_whole_key() -> None:
    longest = "/".join(["a" * 255] * 4)
    assert allowed(keys.check_key, longest + "a") is False
    assert allowed(keys.check_key, "/".join(["a" * 203, *["a" * 204] * 4])) is True
    assert allowed(keys.check_key, "/".join(["a" * 205] * 5)) is False


def test_folders_of() -> None:
    assert keys.folders_of("a") == ()
    assert keys.folders_of("a/b/c") == ("a", "a/b")
