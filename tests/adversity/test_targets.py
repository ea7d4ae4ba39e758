"""Targets: what can be reached is, what cannot is refused before anything is written, with the nearest that can."""

from __future__ import annotations

import shlex
from datetime import timedelta
from zoneinfo import ZoneInfo

from pgkeep.restore.moment import show_moment
from tests.adversity.conftest import Past, refused, rows, started
from tests.keeping import Kept


def test_a_time_in_moscow(past: Past, aside: Kept) -> None:
    """'MSK' is what the server's own log says."""
    moscow = past.moments["first"].astimezone(ZoneInfo("Europe/Moscow"))
    text = f"{moscow:%Y-%m-%d %H:%M:%S.%f} MSK"
    with started(aside, aside.home / "restored", "--time", text) as server:
        assert rows(server) == [1]


def test_a_time_without_a_zone_is_shown_in_both_readings(past: Past, aside: Kept) -> None:
    text = "2026-05-07 14:29:00"
    answer = aside.run(
        "--json", "restore", str(aside.home / "r"), "--time", text, check=False, env={"TZ": "Asia/Tokyo"}
    )
    assert answer.returncode == 2
    assert "time-without-zone" in answer.stdout
    for reading in (f"{text}+03", "the server's zone, Europe/Moscow", f"{text}+09", "this machine's zone, Asia/Tokyo"):
        assert reading in answer.stdout.replace('\\"', '"')
    assert not (aside.home / "r").exists()


def test_before_the_first_backup(past: Past, aside: Kept) -> None:
    target = aside.home / "restored"
    error = refused(aside, target, "--time", show_moment(past.moments["before"]), code="target-unreachable", status=13)
    nearest = shlex.split(error["hint"].split("--time ", 1)[1].split(";")[0])[0]
    aside.result("restore", str(target), "--time", nearest, "--dry-run")
    error = refused(aside, target, "--lsn", past.lsns["before"], code="target-unreachable", status=13)
    nearest = error["hint"].split("--lsn ", 1)[1].split(";")[0]
    aside.result("restore", str(target), "--lsn", nearest, "--dry-run")


def test_after_the_last_wal(past: Past, aside: Kept) -> None:
    target, late = aside.home / "restored", past.moments["third"] + timedelta(days=1)
    error = refused(aside, target, "--time", show_moment(late), code="target-unreachable", status=13)
    nearest = shlex.split(error["hint"].split("--time ", 1)[1].split(";")[0])[0]
    with started(aside, target, "--time", nearest) as server:
        assert rows(server) == [1, 2, 3]
    for what in (("--xid", str(past.accident + 1000)), ("--timeline", "2")):
        refused(aside, aside.home / "again", *what, code="target-unreachable", status=13)


def test_inside_a_gap(past: Past, aside: Kept) -> None:
    """The WAL between the backups is lost: nothing there can be reached, everything before and behind it can."""
    segment = past.kept.cluster.value("SELECT pg_walfile_name(%s)", [past.lsns["second"]])
    next(path for path in aside.wal() if path.name == segment).unlink()
    target = aside.home / "restored"
    error = refused(aside, target, "--name", "two", code="target-unreachable", status=13)
    error = refused(aside, target, "--time", show_moment(past.moments["second"]), code="target-unreachable", status=13)
    assert segment in error["message"]
    with started(aside, target, "--latest") as server:
        assert rows(server) == [1, 2, 3]
    with started(aside, aside.home / "early", "--backup", past.first, "--immediate") as server:
        assert rows(server) == []
