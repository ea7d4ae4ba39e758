"""FaultyStore does what campaigns rely on: it strikes exactly where it was told, and without strikes it is a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.store.local import LocalStore
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from tests.store.contract import StoreContract, in_threads, listed, raises
from tests.store.faulty import Crash, Effect, FaultyStore, Strike
from tests.store.local_children import everything_under


class TestUnstruckContract(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return FaultyStore(MemoryStore())


def test_before_has_no_effect_and_after_has() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, Strike(Effect.BEFORE, "put", nth=1), Strike(Effect.AFTER, "put", nth=2))
    for key, there in (("a", False), ("b", True)):
        with raises("store-unreachable"):
            store.put(key, [b"x"])
        assert (key in listed(inner)) is there
    store.put("c", [b"x"])


def test_a_torn_put_leaves_half_a_file_that_nobody_sees(tmp_path: Path) -> None:
    inner = LocalStore.create(tmp_path)
    store = FaultyStore(inner, Strike(Effect.TORN, "put", key=lambda key: key.startswith("packs/")))
    store.put("other", [b"x"])
    with raises("store-unreachable"):
        store.put("packs/a", [b"0123", b"456789"])
    torn = [name for name in everything_under(str(tmp_path)) if name.startswith(".tmp-")]
    assert [(tmp_path / "packs" / name).read_bytes() for name in torn] == [b"01234"]
    assert listed(store) == ["other"]


def test_a_torn_listing_gives_half() -> None:
    store = FaultyStore(MemoryStore(), Strike(Effect.TORN, "list"))
    for key in "abcd":
        store.put(key, [])
    listing = store.list()
    assert [next(listing).key, next(listing).key] == ["a", "b"]
    with raises("store-unreachable"):
        next(listing)


def test_a_delay_waits_and_works() -> None:
    slept: list[float] = []
    store = FaultyStore(MemoryStore(), Strike(Effect.DELAY, "get", seconds=3), sleep=slept.append)
    store.put("a", [b"x"])
    assert store.get("a") == b"x"
    assert slept == [3]


def test_another_failure_may_be_named() -> None:
    full = Strike(Effect.BEFORE, "put", failure=lambda _, key: Fault("store-full", f"{key}: full"))
    with raises("store-full"):
        FaultyStore(MemoryStore(), full).put("a", [])


def test_calls_are_counted() -> None:
    store = FaultyStore(MemoryStore())
    store.put("a", [])
    store.get("a")
    [*store.list("a")]
    with raises("object-missing"):
        store.stat("b")
    store.list_parts()
    store.delete("a")
    assert [call.operation for call in store.calls] == ["put", "get", "list", "stat", "list_parts", "delete"]
    assert [call.number for call in store.calls] == [1, 2, 3, 4, 5, 6]
    assert store.count() == 6
    assert store.count("put") == 1


def test_calls_are_counted_over_threads() -> None:
    store = FaultyStore(MemoryStore(), Strike(Effect.BEFORE, "put", nth=50))

    def job(name: str) -> None:
        for number in range(20):
            store.put(f"{name}/{number}", [])

    raised = in_threads(*(lambda n=n: job(n) for n in "abcd"))
    assert sum(isinstance(error, Fault) for error in raised) == 1
    # The thread that was struck stopped there; every other put is there.
    assert store.count("put") == len(listed(store)) + 1 >= 61


def some_job(store: Store) -> None:
    """Puts two objects, tidies up whatever happens."""
    try:
        store.put("a", [b"1"])
        store.put("b", [b"2"])
    finally:
        store.delete("a")


def test_one_run_for_each_call() -> None:
    counting = FaultyStore(MemoryStore())
    some_job(counting)
    assert counting.count() == 3
    for number in range(1, 4):
        failing = FaultyStore(MemoryStore(), Strike(Effect.BEFORE, nth=number))
        with raises("store-unreachable"):
            some_job(failing)


def test_after_a_death_nothing_works_and_no_clean_up_has_effect() -> None:
    left = []
    for number in range(1, 4):
        inner = MemoryStore()
        with pytest.raises(Crash):
            some_job(FaultyStore.dying_at(number, inner))
        left.append(listed(inner))
    assert left == [[], ["a"], ["a", "b"]]


def test_a_death_may_come_after_the_effect() -> None:
    inner = MemoryStore()
    with pytest.raises(Crash):
        some_job(FaultyStore.dying_at(2, inner, Effect.AFTER))
    assert listed(inner) == ["a", "b"]
