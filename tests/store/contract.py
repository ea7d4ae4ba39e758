"""The contract of `pgkeep.store.port`: every store, and every wrapper around one, passes this suite.

A subclass gives two fixtures: `store`, empty, and `other`, a second client of the same objects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.store.port import Store

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/..",
    "../a",
    "a/./b",
    "a/../../b",
    ".tmp-1",
    "a/.hidden",
    "a b",
    "a\nb",
    "a\0b",
    "ä",
    "a\\b",
    "a:b",
    "a" * 256,
    "/".join(["a" * 200] * 6),
]
BAD_PREFIXES = ["/", "/a", "a//", "../", "..", ".", "a/.", "a/../", "a b", "a" * 256]
BAD_FOLDERS = [*BAD_PREFIXES, "a", "a/b"]

# Ascending byte order of whole keys: '-' and '.' come before '/', digits and letters after it.
ORDERED = ["A/z", "a-b", "a.b", "a/0", "a/b-/x", "a/b.c", "a/b/c", "a/b/d/e", "a/b0", "a0", "a_", "aa/b", "b"]


# Of b"0123456789": start, length, and what comes back.
RANGES: list[tuple[int, int | None, bytes]] = [
    (0, None, b"0123456789"),
    (3, None, b"3456789"),
    (3, 4, b"3456"),
    (0, 0, b""),
    (3, 0, b""),
    (9, 1, b"9"),
    (9, 2, b"9"),
    (8, 1 << 40, b"89"),
    (10, None, b""),
    (10, 1, b""),
    (11, 5, b""),
    (1 << 40, None, b""),
    (1 << 40, 1 << 40, b""),
]


@contextmanager
def raises(code: str) -> Iterator[None]:
    """`with raises("object-missing"):` a Fault of that code, with a sentence."""
    with pytest.raises(Fault) as caught:
        yield
    assert caught.value.code == code, caught.value.message
    assert caught.value.message


def fill(store: Store, *keys: str) -> None:
    for key in keys:
        store.put(key, [key.encode()])


def listed(store: Store, prefix: str = "") -> list[str]:
    return [found.key for found in store.list(prefix)]


def in_threads(*jobs: Callable[[], None]) -> list[BaseException | None]:
    """Run the jobs as nearly at once as threads can; what each raised."""
    raised: list[BaseException | None] = [None] * len(jobs)
    barrier = threading.Barrier(len(jobs))

    def run(index: int) -> None:
        barrier.wait()
        try:
            jobs[index]()
        except BaseException as error:
            raised[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


class StoreContract:
    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def other(self, store: Store) -> Store:
        """A store without a second client is its own."""
        return store

    # -- put, get, stat

    def test_reads_back_what_was_put_through_any_client(self, store: Store, other: Store) -> None:
        store.put("packs/ab/cd", [b"hello, ", memoryview(b"world")])
        for client in (store, other):
            assert client.get("packs/ab/cd") == b"hello, world"
            assert client.stat("packs/ab/cd").size == 12
            assert listed(client) == ["packs/ab/cd"]
            assert client.list_parts("packs/") == ["ab/"]

    def test_a_get_returns_bytes(self, store: Store) -> None:
        store.put("a", [memoryview(bytearray(b"xyz"))])
        assert type(store.get("a")) is bytes
        assert type(store.get("a", 1, 1)) is bytes

    def test_stat_and_list_agree_and_know_the_time_in_utc(self, store: Store) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)  # file systems stamp with a coarser clock
        store.put("a", [b"xyz"])
        found = store.stat("a")
        assert [found] == [*store.list("")]
        assert found.modified.utcoffset() == timedelta(0)
        assert before <= found.modified <= datetime.now(UTC) + timedelta(seconds=2)

    def test_an_absent_object_is_missing(self, store: Store) -> None:
        fill(store, "a/b")
        for key in ("b", "a", "a/c", "a/b/c", "x/y/z"):
            with raises("object-missing"):
                store.get(key)
            with raises("object-missing"):
                store.get(key, 3, 0)
            with raises("object-missing"):
                store.stat(key)

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        shapes: list[list[bytes | memoryview]] = [[], [b""], [b"", memoryview(b"")]]
        for number, parts in enumerate(shapes):
            key = f"empty{number}"
            store.put(key, parts)
            assert store.stat(key).size == 0
            assert store.get(key) == b""
            assert store.get(key, 5, 5) == b""
            with raises("object-exists"):
                store.put(key, [b"more"])
        assert listed(store) == ["empty0", "empty1", "empty2"]

    def test_a_big_object_in_many_parts(self, store: Store) -> None:
        piece = bytes(range(256)) * 4096
        parts = [memoryview(piece)[offset:] for offset in range(24)]
        whole = b"".join(parts)
        store.put("big", parts)
        assert store.stat("big").size == len(whole)
        assert store.get("big") == whole
        assert store.get("big", len(piece) - 3, 7) == whole[len(piece) - 3 : len(piece) + 4]

    def test_five_thousand_small_parts(self, store: Store) -> None:
        parts = [number.to_bytes(3, "big") for number in range(5000)]
        store.put("many", parts)
        assert store.get("many") == b"".join(parts)

    def test_parts_count_in_bytes_whatever_their_items(self, store: Store) -> None:
        words = memoryview(bytes(range(64))).cast("I")
        store.put("words", [words, words])
        assert store.get("words") == bytes(range(64)) * 2

    def test_a_range_gives_the_bytes_that_exist(self, store: Store) -> None:
        store.put("digits", [b"01234", b"56789"])
        for start, length, expected in RANGES:
            assert store.get("digits", start, length) == expected, (start, length)

    # -- write-once

    def test_an_object_is_never_changed(self, store: Store, other: Store) -> None:
        store.put("a/b", [b"first"])
        before = store.stat("a/b")
        for content in (b"first", b"second", b""):
            for client in (store, other):
                with raises("object-exists"):
                    client.put("a/b", [content])
        assert store.get("a/b") == b"first"
        assert store.stat("a/b") == before

    def test_of_racing_writers_exactly_one_wins(self, store: Store, other: Store) -> None:
        for race in range(15):
            key = f"race/{race}/claim"
            contents = [bytes([writer]) * (70_000 + writer) for writer in range(6)]

            def job(content: bytes, client: Store, key: str = key) -> Callable[[], None]:
                return lambda: client.put(key, [content])

            raised = in_threads(*(job(c, store if n % 2 else other) for n, c in enumerate(contents)))
            winners = [writer for writer, error in enumerate(raised) if error is None]
            assert len(winners) == 1, raised
            assert {e.code for e in raised if isinstance(e, Fault)} == {"object-exists"}
            assert store.get(key) == contents[winners[0]]

    def test_a_key_is_an_object_or_a_folder(self, store: Store) -> None:
        fill(store, "object", "folder/x")
        with raises("object-exists"):
            store.put("object/x", [b""])
        with raises("object-exists"):
            store.put("object/x/y", [b""])
        with raises("object-exists"):
            store.put("folder", [b""])
        assert listed(store) == ["folder/x", "object"]
        assert store.get("object") == b"object"

    # -- listings

    def test_listings_are_in_byte_order_of_whole_keys(self, store: Store) -> None:
        assert sorted(ORDERED) == ORDERED
        fill(store, *reversed(ORDERED))
        assert listed(store) == ORDERED

    def test_a_prefix_is_any_string(self, store: Store) -> None:
        fill(store, *ORDERED)
        beginnings = {key[:end] for key in ORDERED for end in range(len(key) + 1)}
        for prefix in sorted(beginnings | {"a/b/d/e/", "a/b0/", "c", "x/y/", "a/b/c/d"}):
            assert listed(store, prefix) == [key for key in ORDERED if key.startswith(prefix)], prefix

    def test_the_parts_of_a_folder(self, store: Store) -> None:
        fill(store, *ORDERED)
        assert store.list_parts() == ["A/", "a-b", "a.b", "a/", "a0", "a_", "aa/", "b"]
        assert store.list_parts("a/") == ["0", "b-/", "b.c", "b/", "b0"]
        assert store.list_parts("a/b/") == ["c", "d/"]
        assert store.list_parts("a/b/d/") == ["e"]
        assert store.list_parts("nowhere/") == []
        assert store.list_parts("b/") == []

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert listed(store) == []
        assert store.list_parts() == []

    def test_a_listing_survives_deletes_under_its_feet(self, store: Store, other: Store) -> None:
        keys = [f"d{folder}/{name}" for folder in range(4) for name in range(4)]
        fill(store, *keys)
        listing = store.list()
        seen = [next(listing).key]
        for key in keys[1:]:
            if key not in ("d0/3", "d3/3"):
                other.delete(key)
        seen += [found.key for found in listing]
        assert {"d0/0", "d0/3", "d3/3"} <= set(seen) <= set(keys)
        assert seen == sorted(seen)
        assert listed(store) == ["d0/0", "d0/3", "d3/3"]

    # -- delete

    def test_a_deleted_object_is_gone_for_every_client(self, store: Store, other: Store) -> None:
        fill(store, "a/b/c", "a/d")
        store.delete("a/b/c")
        for client in (store, other):
            with raises("object-missing"):
                client.get("a/b/c")
            with raises("object-missing"):
                client.stat("a/b/c")
            assert listed(client) == ["a/d"]
            assert client.list_parts("a/") == ["d"]

    def test_delete_of_an_absent_object_succeeds(self, store: Store) -> None:
        fill(store, "a/b")
        for key in ("x", "x/y/z", "a/c", "a/b/c", "a"):
            store.delete(key)
            store.delete(key)
        assert listed(store) == ["a/b"]

    def test_a_deleted_key_may_be_written_again(self, store: Store) -> None:
        fill(store, "a/b")
        store.delete("a/b")
        store.delete("a/b")
        store.put("a/b", [b"again"])
        assert store.get("a/b") == b"again"

    def test_a_folder_goes_with_its_last_object(self, store: Store) -> None:
        fill(store, "a/b/c/d")
        store.delete("a/b/c/d")
        assert store.list_parts() == []
        store.put("a/b", [b"now an object"])
        assert store.list_parts("a/") == ["b"]

    def test_a_put_does_not_mind_deletes_that_empty_its_folder(self, store: Store, other: Store) -> None:
        def churn(client: Store, mine: str) -> Callable[[], None]:
            def job() -> None:
                for turn in range(60):
                    client.put(f"leases/x/y/{mine}", [str(turn).encode()])
                    assert client.get(f"leases/x/y/{mine}") == str(turn).encode()
                    client.delete(f"leases/x/y/{mine}")

            return job

        assert in_threads(churn(store, "1"), churn(other, "2"), churn(store, "3")) == [None, None, None]
        assert listed(store) == []

    # -- mistakes of the program

    def test_a_bad_key_is_a_mistake(self, store: Store) -> None:
        for key in BAD_KEYS:
            with pytest.raises(ValueError, match="not a key"):
                store.put(key, [b"x"])
            with pytest.raises(ValueError, match="not a key"):
                store.get(key)
            with pytest.raises(ValueError, match="not a key"):
                store.stat(key)
            with pytest.raises(ValueError, match="not a key"):
                store.delete(key)
        assert listed(store) == []

    def test_a_bad_prefix_is_a_mistake_at_the_call(self, store: Store) -> None:
        for prefix in BAD_PREFIXES:
            with pytest.raises(ValueError, match="not a key"):
                store.list(prefix)
        for prefix in BAD_FOLDERS:
            with pytest.raises(ValueError, match=r"not a (key|folder)"):
                store.list_parts(prefix)

    def test_a_negative_range_is_a_mistake(self, store: Store) -> None:
        store.put("a", [b"abc"])
        for start, length in ((-1, None), (0, -1), (-1, 5)):
            with pytest.raises(ValueError, match="not a range"):
                store.get("a", start, length)

    def test_the_longest_key_works(self, store: Store) -> None:
        key = "/".join(letter * 255 for letter in "klmn")
        store.put(key, [b"x"])
        assert listed(store) == [key]
        assert store.get(key) == b"x"

    def test_an_object_lies_in_its_file(self, store: Store) -> None:
        store.put("folder/object", [b"content"])
        file = store.file_of("folder/object")
        assert file is None or Path(file).read_bytes() == b"content"
        with pytest.raises(ValueError):
            store.file_of("../outside")

    def test_the_url_is_for_people(self, store: Store) -> None:
        assert ":" in store.url
