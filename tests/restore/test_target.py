"""Targets as they are typed and told."""

from __future__ import annotations

import pytest

from pgkeep.errors import Fault
from pgkeep.restore.moment import parse_moment
from pgkeep.restore.target import Target, parse_target_lsn, parse_target_xid
from pgkeep.values.lsn import Lsn


def test_xids_and_lsns() -> None:
    assert parse_target_xid(" 741 ") == 741
    assert parse_target_xid(str((1 << 64) - 1)) == (1 << 64) - 1
    assert parse_target_lsn("0/3000148") == Lsn(0x3000148)
    for wrong in ("", "2", "-5", "0x10", "7.0", "٧٤١", str(1 << 64), "7 4 1"):
        with pytest.raises(Fault) as caught:
            parse_target_xid(wrong)
        assert caught.value.code == "usage"
    for wrong in ("", "3000148", "0/", "0/GG", "0/300014800"):
        with pytest.raises(Fault) as caught:
            parse_target_lsn(wrong)
        assert caught.value.code == "usage"


def test_names_of_restore_points_have_a_length() -> None:
    assert Target.at_name("ü" * 31).name == "ü" * 31
    for wrong in ("", "ü" * 32, "x" * 64):
        with pytest.raises(Fault):
            Target.at_name(wrong)


def test_descriptions() -> None:
    moment = parse_moment("2026-05-07 14:29:00+03")
    assert Target.at_time(moment).describe() == "2026-05-07 11:29:00+00"
    assert Target.at_xid(741, inclusive=False).describe() == "just before transaction 741"
    assert Target.at_name("here").describe() == "restore point 'here'"
    assert Target.latest().describe() == "the end of the archived WAL"
