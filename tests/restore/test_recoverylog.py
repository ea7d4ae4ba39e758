"""What servers said: lines of 14 and 18, as they were logged."""

from __future__ import annotations

from datetime import UTC, datetime

from pgkeep.restore.recoverylog import RecoveryLog
from pgkeep.values.lsn import Lsn

_HEAD = "2026-11-22 12:46:04.291 UTC [23034] "
PROMOTED = """\
LOG:  starting point-in-time recovery to 2026-05-07 11:29:00+00
LOG:  restored log file "000000010000000000000002" from archive
LOG:  redo starts at 0/2000028
LOG:  restored log file "000000010000000000000003" from archive
LOG:  consistent recovery state reached at 0/20015A0
LOG:  database system is ready to accept read-only connections
LOG:  recovery stopping after commit of transaction 741, time 2026-05-07 11:28:59.25+00
LOG:  redo done at 0/300CF50 system usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.55 s
LOG:  last completed transaction was at log time 2026-05-07 11:28:59.25+00
LOG:  selected new timeline ID: 2
LOG:  archive recovery complete
LOG:  database system is ready to accept connections
"""


def seen(text: str) -> RecoveryLog:
    log = RecoveryLog()
    for line in text.splitlines():
        log.see(line if line.startswith(("error:", "hint:")) else _HEAD + line)
    return log


def test_a_recovery_that_ends_well() -> None:
    log = seen(PROMOTED)
    assert log.is_ready and not log.is_paused and not log.fatal
    assert (log.segments, log.new_timeline) == (2, 2)
    assert (log.consistent, log.redo_done) == (Lsn(0x20015A0), Lsn(0x300CF50))
    assert log.last_time == datetime(2026, 5, 7, 11, 28, 59, 250000, tzinfo=UTC)
    assert log.stopping.startswith("recovery stopping after commit of transaction 741")


def test_read_only_connections_are_not_the_end() -> None:
    assert not seen("\n".join(PROMOTED.splitlines()[:7])).is_ready


def test_a_pause_at_the_target_and_one_for_want_of_settings() -> None:
    target = seen("LOG:  pausing at the end of recovery\nHINT:  Execute pg_wal_replay_resume() to promote.")
    assert target.is_paused and not target.lacks_settings
    settings = seen("LOG:  recovery has paused\nDETAIL:  If recovery is unpaused, the server will shut down.")
    assert settings.lacks_settings and not settings.is_paused


def test_the_end_of_wal_before_the_target() -> None:
    log = seen(
        "LOG:  redo done at 0/300CF50\nLOG:  last completed transaction was at log time 2026-05-07 11:28:59+00\n"
        "FATAL:  recovery ended before configured recovery target was reached"
    )
    fault = log.fault("/x.log")
    assert fault.code == "target-unreachable" and fault.exit_status == 13
    assert "0/300CF50" in fault.message and "2026-05-07 11:28:59" in fault.message


def test_wal_get_that_refuses() -> None:
    log = seen(
        "error: 000000010000000000000004 is missing from the archive although later segments are there\n"
        "hint: ...\n"
        'FATAL:  could not restore file "000000010000000000000004" from archive: child process exited with code 200'
    )
    fault = log.fault("/x.log")
    assert fault.code == "wal-gap"
    assert "000000010000000000000004 is missing" in fault.message
    outage = seen(
        'error: the file system failed\nFATAL:  could not restore file "00000002.history" from archive: exit code 200'
    )
    assert outage.fault("/x.log").code == "recovery-failed"


def test_the_first_fatal_line_is_the_reason() -> None:
    log = seen('FATAL:  directory "/srv/x" does not exist\nFATAL:  the database system is starting up')
    assert "/srv/x" in log.fault("/x.log").message
    assert "without saying why" in seen("LOG:  shutting down").fault("/x.log").message
