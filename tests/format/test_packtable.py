"""Columns of pack ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgkeep.format.packtable import ids_of, object_ids, places_in
from pgkeep.values.ids import ObjectId

# Few different bytes, zeros at the end, and equal beginnings: what numpy's strings could stumble over.
ids = st.builds(
    lambda head, tail: ObjectId(head * 8 + tail.ljust(8, b"\0")),
    st.sampled_from([b"\0", b"a", b"\xff"]),
    st.binary(max_size=2),
)


@given(st.lists(ids, unique=True), st.lists(ids))
def test_places_are_those_of_a_list(known: list[ObjectId], wanted: list[ObjectId]) -> None:
    known.sort()
    found = places_in(ids_of(known), ids_of(wanted))
    assert found.tolist() == [known.index(each) if each in known else -1 for each in wanted]


@given(st.lists(st.builds(ObjectId, st.binary(min_size=16, max_size=16))))
def test_ids_come_back_with_their_zeros(known: list[ObjectId]) -> None:
    assert object_ids(ids_of(known)) == known
