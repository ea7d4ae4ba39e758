"""MemoryStore passes the contract, and agrees with LocalStore on any sequence of calls."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pgkeep.errors import Fault
from pgkeep.store.local import LocalStore
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from tests.store.clocks import HandClock
from tests.store.contract import StoreContract


class TestMemoryContract(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


def test_time_comes_from_the_clock() -> None:
    clock = HandClock()
    store = MemoryStore(clock)
    store.put("a", [])
    clock.seconds = 60
    store.put("b", [])
    assert store.stat("b").modified - store.stat("a").modified == timedelta(minutes=1)


def test_what_is_put_is_a_copy() -> None:
    buffer = bytearray(b"abc")
    store = MemoryStore()
    store.put("a", [memoryview(buffer)])
    buffer[0] = 0
    assert store.get("a") == b"abc"


PARTS = st.sampled_from(["a", "b", "a.b", "a-b", "a0", "A"])
KEYS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
PREFIXES = st.one_of(st.just(""), KEYS, KEYS.map(lambda key: key + "/"), st.sampled_from(["a/a.", "a-", "a/b/a"]))
FOLDERS = st.one_of(st.just(""), KEYS.map(lambda key: key + "/"))
CONTENTS = st.lists(st.binary(max_size=9), max_size=3)


def outcome(call: Callable[[], Any]) -> Any:
    """What came of a call: its value, or the code of its Fault."""
    try:
        return call()
    except Fault as fault:
        return fault.code


class BothStores(RuleBasedStateMachine):
    """The same calls on both; every answer but the times must be the same."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="pgkeep-model-")
        self.local = LocalStore.create(self.root)
        self.memory = MemoryStore()

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def same(self, call: Callable[[Store], Any]) -> None:
        assert outcome(lambda: call(self.local)) == outcome(lambda: call(self.memory))

    @rule(key=KEYS, parts=CONTENTS)
    def put(self, key: str, parts: list[bytes]) -> None:
        self.same(lambda store: store.put(key, parts))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.same(lambda store: store.delete(key))

    @rule(key=KEYS, start=st.integers(0, 30), length=st.none() | st.integers(0, 30))
    def get(self, key: str, start: int, length: int | None) -> None:
        self.same(lambda store: store.get(key, start, length))

    @rule(key=KEYS)
    def stat(self, key: str) -> None:
        self.same(lambda store: store.stat(key).size)

    @rule(prefix=PREFIXES)
    def list(self, prefix: str) -> None:
        self.same(lambda store: [(found.key, found.size) for found in store.list(prefix)])

    @rule(prefix=FOLDERS)
    def list_parts(self, prefix: str) -> None:
        self.same(lambda store: store.list_parts(prefix))

    @invariant()
    def same_objects(self) -> None:
        self.same(lambda store: [(found.key, found.size) for found in store.list()])


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
