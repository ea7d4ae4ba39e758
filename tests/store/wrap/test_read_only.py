"""ReadOnlyStore reads what is there and changes nothing."""

from __future__ import annotations

import pytest

from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.store.wrap.read_only import ReadOnlyStore
from tests.store.contract import BAD_KEYS, fill, listed, raises


def test_reads_pass() -> None:
    inner = MemoryStore()
    fill(inner, "a/b", "c")
    store: Store = ReadOnlyStore(inner)
    assert store.get("a/b", 1, 1) == b"/"
    assert store.stat("c") == inner.stat("c")
    assert listed(store) == ["a/b", "c"]
    assert listed(store, "a") == ["a/b"]
    assert store.list_parts("a/") == ["b"]
    assert store.url == inner.url
    with raises("object-missing"):
        store.get("d")


def test_writes_are_refused_whatever_is_there() -> None:
    inner = MemoryStore()
    fill(inner, "a")
    store = ReadOnlyStore(inner)
    for key in ("a", "b"):
        with raises("store-read-only"):
            store.put(key, [b"x"])
        with raises("store-read-only"):
            store.delete(key)
    assert listed(inner) == ["a"]
    assert inner.get("a") == b"a"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_key_is_a_mistake_first(key: str) -> None:
    store = ReadOnlyStore(MemoryStore())
    with pytest.raises(ValueError, match="not a key"):
        store.put(key, [])
    with pytest.raises(ValueError, match="not a key"):
        store.delete(key)
