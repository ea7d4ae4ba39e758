"""Times as people write them: read, refused with every reading, shown."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Fault
from pgkeep.restore.moment import Zone, in_zone, parse_moment, show_moment


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-05-07 14:29:00+03", "2026-05-07 11:29:00+00"),
        ("2026-05-07 14:29:00+03:00", "2026-05-07 11:29:00+00"),
        ("2026-05-07 14:29:00 +0300", "2026-05-07 11:29:00+00"),
        ("2026-05-07T11:29:00Z", "2026-05-07 11:29:00+00"),
        ("2026-05-07t11:29z", "2026-05-07 11:29:00+00"),
        ("  2026-05-07  9:29 -2:30 ", "2026-05-07 11:59:00+00"),
        ("2026-05-07 14:29:00.5+03", "2026-05-07 11:29:00.5+00"),
        ("2026-05-07 14:29:00,123456789 MSK", "2026-05-07 11:29:00.123456+00"),
        ("2026-05-07 14:29:00 MSK", "2026-05-07 11:29:00+00"),
        ("2012-05-07 14:29:00 MSK", "2012-05-07 10:29:00+00"),
        ("2026-05-07 14:29:00 Europe/Moscow", "2026-05-07 11:29:00+00"),
        ("2026-05-07 14:29:00 europe/moscow", "2026-05-07 11:29:00+00"),
        ("2026-05-07 14:29 CEST", "2026-05-07 12:29:00+00"),
        ("2026-01-07 14:29 CET", "2026-01-07 13:29:00+00"),
        ("2026-05-07 14:29 EST5EDT", "2026-05-07 18:29:00+00"),
        ("2026-05-07 14:29 utc", "2026-05-07 14:29:00+00"),
        ("1883-11-18 12:00:00-04:56:02", "1883-11-18 16:56:02+00"),
    ],
)
def test_forms_that_are_one_moment(text: str, utc: str) -> None:
    moment = parse_moment(text)
    assert moment.utcoffset() == timedelta()
    assert show_moment(moment) == utc


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("2026-05-07 14:29 IST", {"+05:30", "+02", "+01"}),
        ("2026-05-07 14:29 CST", {"+08", "-05", "-06"}),
        ("2026-05-07 14:29 PST", {"+08", "-08"}),
        ("2026-03-29 02:30 Europe/Berlin", {"+02", "+01"}),
        ("2026-10-25 02:30 Europe/Berlin", {"+02", "+01"}),
        ("2026-05-07 14:29 UTC+3", {"+03", "-03"}),
        ("2026-05-07 14:29 GMT-3:30", {"+03:30", "-03:30"}),
    ],
)
def test_several_readings_are_refused_and_all_offered(text: str, readings: set[str]) -> None:
    with pytest.raises(Fault) as caught:
        parse_moment(text)
    assert caught.value.code == "time-unreadable"
    assert caught.value.exit_status == 2
    words = shlex.split(caught.value.hint)
    offered = [word for option, word in pairwise(words) if option == "--time"]
    assert {text[len("2026-05-07 14:29:00") :] for text in offered} == readings
    for one in offered:
        parse_moment(one)  # each can be pasted as it is


def test_a_time_without_a_zone_offers_the_servers_and_this_machines() -> None:
    zones = [Zone("the server's zone", "Europe/Moscow"), Zone("UTC", "UTC"), Zone("nowhere", "No/Where")]
    with pytest.raises(Fault) as caught:
        parse_moment("2026-05-07 14:29", zones)
    fault = caught.value
    assert fault.code == "time-without-zone"
    assert '--time "2026-05-07 14:29:00+03" (the server\'s zone, Europe/Moscow)' in fault.hint
    assert '--time "2026-05-07 14:29:00+00" (UTC)' in fault.hint
    assert "nowhere" not in fault.hint


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "yesterday", "2026-05-07", "14:29+03", "2026-05-07 24:00 UTC", "2026-02-30 10:00Z",
        "2026-05-07 14:60Z", "2026-05-07 14:29:60Z", "2026-05-07 14:29 XYZ", "2026-05-07 14:29+16",
        "2026-05-07 14:29+03 MSK", "2026-05-07 14:29 <+03>-03", "2026-05-07 14:29+3:75", "0001-01-01 00:00+03",
        "2026-05-07 14:29 ../../etc/passwd", "2026-05-07 14:29 localtime", "٢٠٢٦-05-07 14:29Z",
    ],
)  # fmt: skip
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(Fault) as caught:
        parse_moment(text)
    assert caught.value.code == "time-unreadable"
    assert "2026-05-07" in caught.value.hint


@given(
    st.datetimes(datetime.fromisoformat("1900-01-01"), datetime.fromisoformat("2200-01-01")),
    st.integers(-15 * 3600, 15 * 3600).map(lambda seconds: timezone(timedelta(seconds=seconds))),
)
def test_what_is_shown_is_read_back(local: datetime, zone: timezone) -> None:
    moment = local.replace(tzinfo=zone)
    assert parse_moment(show_moment(moment)) == moment


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_a_fault(text: str) -> None:
    try:
        assert parse_moment(text).tzinfo is UTC
    except Fault as fault:
        assert fault.code in ("time-unreadable", "time-without-zone")


def test_shown_in_the_servers_zone() -> None:
    moment = datetime(2026, 5, 7, 11, 29, tzinfo=UTC)
    assert show_moment(in_zone(moment, "Europe/Moscow")) == "2026-05-07 14:29:00+03"
    assert show_moment(in_zone(moment, "<+03>-03")) == "2026-05-07 11:29:00+00"
