"""Changes: the union of what summaries name, whatever is added in which order, against sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.pg import changes as changes_module
from pgkeep.pg.changes import NO_LIMIT, Changes, RelationKey

keys = st.builds(RelationKey, st.sampled_from([1663, 1664, 70000]), st.sampled_from([0, 5, 6]), st.integers(1, 4))
blocks = st.lists(st.one_of(st.integers(0, 9), st.sampled_from([1 << 31, NO_LIMIT - 1])), max_size=6)
additions = st.lists(st.lists(st.tuples(keys, st.sampled_from([NO_LIMIT, 0, 7, 100]), blocks), max_size=5), max_size=8)


@given(added=additions, step=st.sampled_from([1, 5, 1000]))
def test_the_union_is_that_of_sets(added: list[list[tuple[RelationKey, int, list[int]]]], step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes_module, "_STEP", step)
        changes = Changes()
        limits: dict[RelationKey, int] = {}
        named: dict[RelationKey, set[int]] = {}
        for entries in added:
            flat = [block for _, _, found in entries for block in found]
            columns = np.array([key for key, _, _ in entries], np.uint32).reshape(-1, 3)
            changes.add_all(
                columns[:, 0], columns[:, 1], columns[:, 2],
                limits=np.array([limit for _, limit, _ in entries], np.uint32),
                counts=np.array([len(found) for _, _, found in entries], np.int64), blocks=np.array(flat, np.uint32),
            )  # fmt: skip
            for key, limit, found in entries:
                limits[key] = min(limit, limits.get(key, NO_LIMIT))
                named.setdefault(key, set()).update(found)
        assert set(changes.relations()) == set(named)
        for key, expected in named.items():
            assert changes.of(key).blocks.tolist() == sorted(expected)
            assert changes.of(key).blocks.dtype == np.uint32
            assert changes.of(key).limit == limits[key]
        other = changes.of(RelationKey(1663, 5, 99))
        assert (other.limit, len(other.blocks)) == (NO_LIMIT, 0)


def test_what_is_added_later_counts_too() -> None:
    changes, key, cut = Changes(), RelationKey(1663, 5, 16384), RelationKey(1663, 5, 100)
    changes.add(key, NO_LIMIT, np.array([7, 3], np.uint32))
    assert changes.of(key).blocks.tolist() == [3, 7]
    changes.add(cut, 5, np.zeros(0, np.uint32))
    changes.add(key, 9, np.array([7, 1], np.uint32))
    assert (changes.of(key).limit, changes.of(key).blocks.tolist()) == (9, [1, 3, 7])
    assert (changes.of(cut).limit, changes.of(cut).blocks.tolist()) == (5, [])


def test_a_database_that_was_made_anew_is_changed_all_over() -> None:
    changes, key = Changes(), RelationKey(1663, 5, 16384)
    changes.add(key, NO_LIMIT, np.array([7], np.uint32))
    changes.databases.add((1663, 5))
    assert changes.of(key).limit == changes.of(RelationKey(1663, 5, 1)).limit == 0
    assert changes.of_fork(key).blocks.tolist() == [7]
    assert changes.of(RelationKey(1663, 6, 16384)).limit == NO_LIMIT
