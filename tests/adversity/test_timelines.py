"""What a plan and `timeline` say beforehand, held against a real server's past."""

from __future__ import annotations

from datetime import datetime

from pgkeep.restore.moment import show_moment
from tests.adversity.conftest import MakeKept, Past, refused
from tests.keeping import Kept


def stop_of(kept: Kept, *target: str) -> dict[str, dict[str, object]]:
    stop: dict[str, dict[str, object]] = kept.result("restore", str(kept.home / "r"), *target, "--dry-run")["plan"][
        "stop"
    ]
    return stop


def test_a_plan_names_the_transactions_around_its_stop(past: Past, aside: Kept) -> None:
    stop = stop_of(aside, "--time", show_moment(past.moments["first"]))
    assert stop["last"]["committed"]
    assert float(str(stop["last"]["seconds_from_target"])) < 0 < float(str(stop["next"]["seconds_from_target"]))
    by_xid = stop_of(aside, "--xid", str(past.accident), "--exclusive")
    assert by_xid["next"]["xid"] == past.accident
    later = stop_of(aside, "--xid", str(past.accident))
    assert (later["previous"], later["last"]["xid"]) == (by_xid["last"], past.accident)
    named = stop_of(aside, "--name", "two")
    by_lsn = stop_of(aside, "--lsn", past.lsns["second"])
    assert named["last"]["xid"] == by_lsn["last"]["xid"] and named["next"]["xid"] == by_lsn["next"]["xid"]
    assert int(str(by_lsn["last"]["bytes_from_target"])) < 0 < int(str(by_lsn["next"]["bytes_from_target"]))
    text = aside.run("restore", str(aside.home / "r"), "--time", show_moment(past.moments["first"]), "--dry-run").stdout
    assert "before the target: will be there" in text and "after the target: will not" in text


def test_the_second_plan_reads_the_index(past: Past, aside: Kept) -> None:
    target = ("--time", show_moment(past.moments["first"]))
    first = stop_of(aside, *target)
    assert list(aside.repository.glob("*/windex/*/*/*"))
    assert stop_of(aside, *target) == first


def test_refusals_name_the_nearest_on_both_sides(past: Past, aside: Kept) -> None:
    target = aside.home / "restored"
    error = refused(aside, target, "--xid", str(past.accident + 1000), code="target-unreachable", status=13)
    assert error["context"]["nearest_before"].startswith("--xid ") and not error["context"]["nearest_after"]
    error = refused(aside, target, "--name", "tow", code="target-unreachable", status=13)
    assert error["context"]["nearest_before"] == "--name two"
    segment = past.kept.cluster.value("SELECT pg_walfile_name(%s)", [past.lsns["second"]])
    next(path for path in aside.wal() if path.name == segment).unlink()
    moment = show_moment(past.moments["second"])
    error = refused(aside, target, "--time", moment, code="target-unreachable", status=13)
    after = error["context"]["nearest_after"].split(" ", 1)[1].strip('"')
    assert datetime.fromisoformat(after) > past.moments["second"]
    aside.result("restore", str(target), "--time", after, "--dry-run")


def test_subtransactions_aborts_prepared_ones_and_a_name_that_comes_twice(make_kept: MakeKept) -> None:
    kept = make_kept(wal_segsize=1, max_prepared_transactions="5")
    server = kept.cluster
    server.sql("CREATE TABLE t (n int)")
    kept.backup()
    with server.connect() as connection, connection.transaction():
        parent = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        connection.execute("SAVEPOINT s")
        child = connection.execute("INSERT INTO t VALUES (1) RETURNING xmin::text::bigint").fetchone()
        connection.execute("RELEASE s")
    server.sql("SELECT pg_create_restore_point('twice')")
    with server.connect() as connection, connection.transaction(force_rollback=True):
        aborted = connection.execute("INSERT INTO t VALUES (2) RETURNING xmin::text::bigint").fetchone()
    server.sql("SELECT pg_create_restore_point('twice')")
    with server.connect() as connection:
        connection.execute("BEGIN")
        prepared = connection.execute("INSERT INTO t VALUES (3) RETURNING xmin::text::bigint").fetchone()
        connection.execute("PREPARE TRANSACTION 'p'")
        server.sql("INSERT INTO t VALUES (4)")
        connection.execute("COMMIT PREPARED 'p'")
    kept.archive_all()
    assert parent and child and aborted and prepared
    for _ in range(2):  # from the WAL, then from its index
        error = refused(kept, kept.home / "r", "--xid", str(child[0]), code="target-unreachable", status=13)
        assert f"--xid {parent[0]}" in error["hint"]
        plan = kept.result("restore", str(kept.home / "r"), "--xid", str(aborted[0]), "--dry-run")["plan"]
        assert not plan["stop"]["last"]["committed"] and "rolled back" in str(plan["warnings"])
        assert stop_of(kept, "--xid", str(prepared[0]))["last"]["xid"] == prepared[0]
        plan = kept.result("restore", str(kept.home / "r"), "--name", "twice", "--dry-run")["plan"]
        assert plan["stop"]["last"]["xid"] == parent[0] and "2 restore points" in str(plan["warnings"])


def test_the_timeline_of_a_past_with_a_gap(past: Past, aside: Kept) -> None:
    whole = aside.result("timeline")
    (one,) = whole["incarnations"]
    (window,) = one["windows"]
    assert window["backups"] == [past.first, past.second] and window["ends"] == "archive-end"
    assert datetime.fromisoformat(window["to_time"]) < past.moments["third"]
    assert whole["server"]["archive_timeout"] == 0
    segment = past.kept.cluster.value("SELECT pg_walfile_name(%s)", [past.lsns["second"]])
    next(path for path in aside.wal() if path.name == segment).unlink()
    (one,) = aside.result("timeline")["incarnations"]
    assert [window["ends"] for window in one["windows"]] == ["gap", "archive-end"]
    assert one["windows"][0]["gap"] == segment
    text = aside.run("timeline", env={"COLUMNS": "80"}).stdout
    assert "." in text.split("timeline 1", 1)[1].splitlines()[0]
    assert f"lacks {segment}" in text and "archive_timeout is not set" in text


def test_a_target_timeline_without_its_history_is_refused(past: Past, aside: Kept) -> None:
    """WAL of a timeline whose history is lost: nothing is guessed, and it is said."""
    folder = next(aside.repository.glob("*/wal/*/00000001"))
    other = folder.parent / "00000002"
    source = aside.wal()[-1]
    place = other / source.parent.name / f"00000002{source.name[8:]}"
    place.parent.mkdir(parents=True)
    place.write_bytes(source.read_bytes())
    refused(aside, aside.home / "r", "--timeline", "2", code="target-unreachable", status=13)
    plan = aside.result("restore", str(aside.home / "r"), "--immediate", "--dry-run")["plan"]
    assert "history-missing" in str(plan["warnings"])
