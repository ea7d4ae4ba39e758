"""Names are read beside the copying, and hold nobody up."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from pgkeep.backup.naming import NameReading
from pgkeep.events import Event, silent
from tests.clusters import Cluster
from tests.keeping import Kept

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgkeep' AND wait_event_type = 'Lock'"


def test_ctrl_c_does_not_wait_for_names_that_wait_for_a_lock(kept: Callable[..., Kept]) -> None:
    made = kept()
    with made.cluster.connect() as locking:
        locking.autocommit = False
        locking.execute("LOCK TABLE pg_collation IN ACCESS EXCLUSIVE MODE")
        process = made.start("backup")
        made.wait(lambda: made.cluster.value(_WAITING) == 1, "the names were not asked for")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert "Traceback" not in err and "not in the backup" not in err
    assert made.backups() == [] and made.packs() == []


def test_a_job_that_fails_waits_for_no_names(shared_cluster: Cluster) -> None:
    seen: list[Event] = []
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), NameReading(shared_cluster.conninfo, seen.append):
        raise ZeroDivisionError
    assert time.monotonic() - began < 10
    assert seen == []


def test_the_names_are_those_of_every_database(shared_cluster: Cluster) -> None:
    shared_cluster.sql("CREATE DATABASE named")
    try:
        shared_cluster.sql('CREATE TABLE "a table" (n int)', dbname="named")
        with NameReading(shared_cluster.conninfo, silent) as reading:
            found = reading.result()
        assert b"a table" in [relation.name for relation in found.relations]
        assert [relation.name for relation in found.relations].count(b"pg_database") == 1
    finally:
        shared_cluster.sql("DROP DATABASE named")
