"""ObservedStore passes the contract, and counts what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgkeep.clock import SystemClock
from pgkeep.store.local import LocalStore
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.store.wrap.observed import Call, ObservedStore, Operation, Tally
from tests.store.clocks import HandClock
from tests.store.contract import StoreContract, fill, in_threads, raises
from tests.store.faulty import Effect, FaultyStore, Strike


class TestObservedContract(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return ObservedStore(MemoryStore(), SystemClock())


class TestObservedLocalContract(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return ObservedStore(LocalStore.create(tmp_path), SystemClock())


def slow(clock: HandClock, *strikes: Strike) -> FaultyStore:
    """Every call takes two seconds of `clock`."""
    return FaultyStore(MemoryStore(), *strikes, Strike(Effect.DELAY, seconds=2), sleep=clock.sleep)


def test_every_call_is_told_with_its_bytes_and_seconds() -> None:
    clock = HandClock()
    calls: list[Call] = []
    store = ObservedStore(slow(clock), clock, calls.append)
    store.put("a/b", [b"xyz", memoryview(b"12345678").cast("I")])
    store.get("a/b", 1, 4)
    store.stat("a/b")
    store.list_parts("a/")
    store.delete("a/b")
    assert calls == [
        Call(Operation.PUT, "a/b", 11, 2.0, ""),
        Call(Operation.GET, "a/b", 4, 2.0, ""),
        Call(Operation.STAT, "a/b", 0, 2.0, ""),
        Call(Operation.LIST_PARTS, "a/", 0, 2.0, ""),
        Call(Operation.DELETE, "a/b", 0, 2.0, ""),
    ]
    assert store.tally(Operation.PUT) == Tally(1, 0, 11, 2.0)


def test_failures_are_counted_and_passed_on() -> None:
    calls: list[Call] = []
    store = ObservedStore(FaultyStore(MemoryStore(), Strike(Effect.BEFORE, "put", nth=2)), HandClock(), calls.append)
    store.put("a", [b"xyz"])
    with raises("store-unreachable"):
        store.put("b", [b"xyz"])
    with raises("object-exists"):
        store.put("a", [b"xyz"])
    with raises("object-missing"):
        store.get("b")
    assert [call.failure for call in calls] == ["", "store-unreachable", "object-exists", "object-missing"]
    assert store.tally(Operation.PUT) == Tally(calls=3, failures=2, size=3)
    assert store.tally(Operation.GET) == Tally(calls=1, failures=1)


def test_a_listing_counts_once_and_without_its_readers_time() -> None:
    clock = HandClock()
    calls: list[Call] = []
    store = ObservedStore(slow(clock), clock, calls.append)
    fill(store, "a", "b", "c")
    calls.clear()
    for _ in store.list():
        clock.sleep(100)
    assert calls == [Call(Operation.LIST, "", 0, 2.0, "")]
    next(store.list("b"))
    assert store.tally(Operation.LIST) == Tally(calls=2, seconds=4.0)


def test_a_broken_listing_is_a_failure() -> None:
    store = ObservedStore(FaultyStore(MemoryStore(), Strike(Effect.TORN, "list")), HandClock())
    fill(store, "a", "b")
    with raises("store-unreachable"):
        [*store.list()]
    assert store.tally(Operation.LIST) == Tally(calls=1, failures=1)


def test_threads_are_counted_together() -> None:
    store = ObservedStore(MemoryStore(), HandClock())

    def job(name: str) -> None:
        for number in range(200):
            store.put(f"{name}/{number}", [b"xy"])

    assert in_threads(*(lambda n=n: job(n) for n in "abcd")) == [None] * 4
    assert store.tally(Operation.PUT) == Tally(calls=800, size=1600)
