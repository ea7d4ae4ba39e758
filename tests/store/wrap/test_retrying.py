"""RetryingStore passes the contract over a store that keeps failing, and never takes another's object for its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.events import Event, Warned
from pgkeep.store.local import LocalStore
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.store.wrap.retrying import Patience, RetryingStore, same_content
from tests.store.clocks import HandClock
from tests.store.contract import StoreContract, fill, listed, raises
from tests.store.faulty import Effect, FaultyStore, Strike


def retrying(inner: Store, clock: HandClock | None = None, **options: Any) -> RetryingStore:
    return RetryingStore(inner, clock or HandClock(), lambda: 0.5, **options)


class Flaky(FaultyStore):
    """Fails two calls of three: puts after their effect, listings in the middle, everything else before it."""

    def _begin(self, operation: str, key: str) -> Strike | None:
        effect = {"put": Effect.AFTER, "list": Effect.TORN}.get(operation, Effect.BEFORE)
        self.strikes = [Strike(effect)] if len(self.calls) % 3 else []
        return super()._begin(operation, key)


class TestRetryingContract(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return RetryingStore(MemoryStore(), SystemClock(), random.random)


class TestRetryingFlakyContract(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        # Racing threads share the count of failures, so one of them can meet many in a row.
        flaky = Flaky(LocalStore.create(tmp_path))
        return RetryingStore(flaky, HandClock(), random.random, patience=Patience(attempts=200))


CALLS: dict[str, Callable[[Store], Any]] = {
    "put": lambda store: store.put("new", [b"x"]),
    "get": lambda store: store.get("a", 0, 1),
    "stat": lambda store: store.stat("a"),
    "list": lambda store: [*store.list("a")],
    "list_parts": lambda store: store.list_parts(),
    "delete": lambda store: store.delete("a"),
}


def two_objects() -> MemoryStore:
    inner = MemoryStore(HandClock())
    fill(inner, "a", "b")
    return inner


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_is_repeated_until_it_works(call: Callable[[Store], Any]) -> None:
    faulty = FaultyStore(two_objects(), *(Strike(Effect.BEFORE, nth=n) for n in (1, 2, 3)))
    assert call(retrying(faulty, patience=Patience(attempts=4))) == call(two_objects())
    assert faulty.count() == 4


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_is_not_repeated_for_ever(call: Callable[[Store], Any]) -> None:
    faulty = FaultyStore(two_objects(), Strike(Effect.BEFORE))
    clock = HandClock()
    with raises("store-unreachable"):
        call(retrying(faulty, clock, patience=Patience(attempts=4)))
    assert faulty.count() == 4
    assert len(clock.slept) == 3


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("code", ["store-full", "store-denied", "store-read-only", "object-missing", "object-exists"])
def test_an_answer_is_not_asked_again(call: Callable[[Store], Any], code: str) -> None:
    faulty = FaultyStore(two_objects(), Strike(Effect.BEFORE, failure=lambda _, key: Fault(code, key)))
    with pytest.raises(Fault) as caught:
        call(retrying(faulty))
    assert caught.value.code == code
    assert faulty.count() == 1


def test_pauses_grow_to_a_limit_and_are_half_random() -> None:
    clock = HandClock()
    store = retrying(FaultyStore(MemoryStore(), Strike(Effect.BEFORE)), clock, patience=Patience(7, 1.0, 8.0))
    with raises("store-unreachable"):
        store.get("a")
    assert clock.slept == [0.75, 1.5, 3.0, 6.0, 6.0, 6.0]


@given(st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_no_pause_is_longer_than_the_limit_or_too_short(failures: int, chance: float) -> None:
    patience = Patience(first=0.5, longest=10)
    full = 10 if failures > 5 else 0.5 * 2 ** (failures - 1)
    assert full / 2 <= patience.pause(failures, chance) <= full


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first": -1.0}, {"longest": -1.0}])
def test_no_patience_is_a_mistake(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="patience"):
        Patience(**wrong)


def test_every_pause_is_announced() -> None:
    heard: list[Event] = []
    faulty = FaultyStore(two_objects(), Strike(Effect.BEFORE, nth=1))
    retrying(faulty, announce=heard.append).get("a")
    (warned,) = heard
    assert isinstance(warned, Warned)
    assert warned.code == "store-retry"
    assert "trying again in 0.2 s" in warned.text


# --- puts whose outcome is not known


PARTS: list[bytes | memoryview] = [b"0123", memoryview(b"456789")]


def test_an_ambiguous_put_that_took_effect_succeeds() -> None:
    inner = MemoryStore()
    faulty = FaultyStore(inner, Strike(Effect.AFTER, "put", nth=1))
    retrying(faulty).put("a", PARTS)
    assert inner.get("a") == b"0123456789"
    assert faulty.count("put") == 2


def test_object_exists_at_once_is_an_answer_even_for_equal_bytes() -> None:
    inner = MemoryStore()
    inner.put("a", PARTS)
    faulty = FaultyStore(inner)
    with raises("object-exists"):
        retrying(faulty).put("a", PARTS)
    assert faulty.count() == 1


@pytest.mark.parametrize("content", [b"", b"012345678", b"01234567890", b"012345678X", b"X123456789"])
def test_after_an_outage_anothers_object_is_not_taken_for_ours(content: bytes) -> None:
    inner = MemoryStore()
    inner.put("a", [content])
    with raises("object-exists"):
        retrying(FaultyStore(inner, Strike(Effect.BEFORE, "put", nth=1))).put("a", PARTS)
    assert inner.get("a") == content


def test_after_an_outage_a_folder_in_the_way_is_not_ours() -> None:
    inner = MemoryStore()
    fill(inner, "a/b")
    with raises("object-exists"):
        retrying(FaultyStore(inner, Strike(Effect.BEFORE, "put", nth=1))).put("a", PARTS)


def test_the_comparison_is_repeated_through_outages_too() -> None:
    faulty = FaultyStore(
        MemoryStore(),
        Strike(Effect.AFTER, "put", nth=1),
        Strike(Effect.BEFORE, "stat", nth=1),
        Strike(Effect.BEFORE, "get", nth=1),
    )
    retrying(faulty).put("a", PARTS)
    assert (faulty.count("stat"), faulty.count("get")) == (2, 2 + 1)


def test_a_comparison_that_finds_no_answer_leaves_the_put_unknown() -> None:
    faulty = FaultyStore(MemoryStore(), Strike(Effect.AFTER, "put", nth=1), Strike(Effect.BEFORE, "stat"))
    with raises("store-unreachable"):
        retrying(faulty).put("a", PARTS)


def test_the_caller_may_compare_by_a_header() -> None:
    asked: list[str] = []

    def same_header(store: Store, key: str, parts: Any) -> bool:
        asked.append(key)
        return store.get(key, 0, 4) == bytes(parts[0])

    inner = MemoryStore()
    inner.put("a", [b"0123", b"other nonce"])
    faulty = FaultyStore(inner, Strike(Effect.BEFORE, "put", nth=1))
    retrying(faulty, compare=same_header).put("a", PARTS)
    assert asked == ["a"]


def test_a_retry_sends_the_very_same_parts() -> None:
    sent: list[Any] = []

    class Recording(MemoryStore):
        def put(self, key: str, parts: Any) -> None:
            sent.append(parts)
            super().put(key, parts)

    retrying(FaultyStore(Recording(), Strike(Effect.AFTER, "put", nth=1))).put("a", PARTS)
    assert [parts is PARTS for parts in sent] == [True, True]


def test_big_objects_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgkeep.store.wrap.retrying._COMPARE_BYTES", 10)
    inner = MemoryStore()
    whole = bytes(range(95))
    inner.put("a", [whole])
    assert same_content(inner, "a", [whole[:33], b"", whole[33:]])
    for place in range(95):
        other = whole[:place] + b"\xff" + whole[place + 1 :]
        assert not same_content(inner, "a", [other[:33], other[33:]])


# --- listings


def test_a_broken_listing_goes_on_where_it_stopped() -> None:
    inner = MemoryStore()
    fill(inner, *"abcdefgh")
    # Half of eight, then half of the same eight again: nothing new, and then the rest.
    faulty = FaultyStore(inner, Strike(Effect.TORN, "list", nth=1), Strike(Effect.TORN, "list", nth=2))
    assert listed(retrying(faulty)) == [*"abcdefgh"]
    assert faulty.count("list") == 3


def test_progress_renews_the_patience_of_a_listing_and_standstill_does_not() -> None:
    class OneMore(FaultyStore):
        """Each listing breaks after one more key than the last."""

        def list(self, prefix: str = "") -> Any:
            items = [*super().list(prefix)][: self.count("list")]
            yield from items
            if len(items) < 8:
                raise Fault("store-unreachable", "broken off")

    inner = MemoryStore()
    fill(inner, *"abcdefgh")
    assert listed(retrying(OneMore(inner), patience=Patience(attempts=2))) == [*"abcdefgh"]
    stuck = FaultyStore(inner, Strike(Effect.TORN, "list"))
    with raises("store-unreachable"):
        listed(retrying(stuck, patience=Patience(attempts=3)))
    # The first gained keys, so it began the count; two more gained none.
    assert stuck.count("list") == 3
