"""Condemnations, leases and their like as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged
from pgkeep.format.deletion import CondemnedInfo, LeaseInfo, decode_condemned, encode_condemned
from pgkeep.format.limits import MAX_CONDEMNED, MAX_SMALL_OBJECT
from pgkeep.format.objects import decode_info, encode_object
from pgkeep.format.section import SectionType
from pgkeep.values.ids import ObjectId
from tests.format.forge import reseal
from tests.format.test_header import HEADER

INFO = CondemnedInfo(writer="pgkeep 0.1", created="2026-05-07T11:29:00+00:00", lease=3600, skew=600)
ids = st.builds(ObjectId, st.binary(min_size=16, max_size=16))


@given(st.sets(ids, max_size=50))
def test_condemned_packs_come_back_in_order(packs: set[ObjectId]) -> None:
    info, found = decode_condemned(b"".join(encode_condemned(HEADER, INFO, packs)), "x")
    assert (info, list(found)) == (INFO, sorted(packs))


def test_the_largest_list_is_a_small_object() -> None:
    packs = [ObjectId(number.to_bytes(16)) for number in range(MAX_CONDEMNED)]
    assert sum(map(len, encode_condemned(HEADER, INFO, packs))) <= MAX_SMALL_OBJECT
    with pytest.raises(ValueError, match="limit"):
        encode_condemned(HEADER, INFO, [*packs, ObjectId(b"\xff" * 16)])


@given(st.binary(max_size=100))
def test_any_bytes_for_the_packs_are_packs_or_damage(content: bytes) -> None:
    data = b"".join(encode_condemned(HEADER, INFO, []))
    try:
        _, packs = decode_condemned(reseal(data, SectionType.CONDEMNED_PACKS, content), "the-list")
    except Damaged as damage:
        assert "the-list" in damage.message
    else:
        assert content == len(packs).to_bytes(4, "little") + b"".join(packs)


@pytest.mark.parametrize("order", [(1, 0), (1, 1)])
def test_packs_out_of_order_or_twice_are_damage(order: tuple[int, int]) -> None:
    content = b"\x02\0\0\0" + b"".join(bytes([number]) * 16 for number in order)
    with pytest.raises(Damaged, match="order"):
        decode_condemned(
            reseal(b"".join(encode_condemned(HEADER, INFO, [])), SectionType.CONDEMNED_PACKS, content), "x"
        )


@given(st.text(), st.lists(st.text(), max_size=3), st.integers(0, 2**32 - 1))
def test_leases_come_back(holder: str, bases: list[str], seconds: int) -> None:
    lease = LeaseInfo(holder=holder, purpose="backup", bases=bases, seconds=seconds)
    assert decode_info(b"".join(encode_object(HEADER, lease)), LeaseInfo, "x") == lease
