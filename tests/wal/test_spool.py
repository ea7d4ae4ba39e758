"""The spool: what may be taken from it, by whom, and that nothing unfinished or foreign ever is."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from pgkeep.wal.spool import Spool

NAME = "000000010000000000000007"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(f"{tmp_path}/data/pg_wal/pgkeep.spool.1")
    made.prepare()
    return made


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "data/pg_wal/RECOVERYXLOG"


def test_a_file_is_handed_over_once(spool: Spool, destination: Path) -> None:
    spool.announce(NAME)
    spool.add(NAME, b"wal")
    assert spool.names() == [NAME]
    assert spool.take(NAME, str(destination))
    assert destination.read_bytes() == b"wal"
    assert not spool.take(NAME, str(destination)) and spool.names() == []


def test_what_is_announced_is_waited_for_while_somebody_fetches_it(spool: Spool, destination: Path) -> None:
    lock = spool.lock()
    assert lock is not None and spool.is_being_filled()
    spool.announce(NAME)
    assert spool.names() == []
    later = threading.Timer(0.2, spool.add, (NAME, b"wal"))
    later.start()
    assert spool.take(NAME, str(destination))
    assert destination.read_bytes() == b"wal"
    later.join()


def test_nobody_waits_for_the_dead_or_for_ever(spool: Spool, destination: Path) -> None:
    spool.announce(NAME)  # and nobody holds the lock: who announced it was killed
    began = time.monotonic()
    assert not spool.take(NAME, str(destination))
    assert time.monotonic() - began < 1
    assert spool.lock() is not None
    assert not spool.take(NAME, str(destination), patience=0.1)
    spool.withdraw(NAME)
    assert not spool.take(NAME, str(destination))
    assert not destination.exists()


def test_a_withdrawn_or_torn_file_is_never_seen(spool: Spool, destination: Path) -> None:
    spool.announce(NAME)
    with pytest.raises(FileNotFoundError):
        spool.add("000000010000000000000008", b"never announced")
    spool.withdraw(NAME)
    spool.withdraw(NAME)
    assert spool.names() == [] and not spool.take(NAME, str(destination))


def test_one_at_a_time(spool: Spool) -> None:
    assert not spool.is_being_filled()
    assert spool.lock() is not None
    assert spool.lock() is None


def test_half_a_note_is_none(spool: Spool) -> None:
    assert spool.asked() is None
    spool.note(NAME)
    first = spool.asked()
    assert first is not None and first[0] == NAME
    spool.note(NAME)
    assert spool.asked() not in (None, first)
    for text in ("", NAME, f"{NAME} 1", "\n"):
        Path(spool.path, ".asked").write_text(text)
        assert spool.asked() is None


def test_spools_of_other_restores_are_removed(spool: Spool, tmp_path: Path) -> None:
    spool.announce(NAME)
    spool.add(NAME, b"wal")
    own = Spool(f"{tmp_path}/data/pg_wal/pgkeep.spool.2")
    (tmp_path / "data/pg_wal" / NAME).write_bytes(b"the server's own")
    own.prepare()
    assert sorted(path.name for path in (tmp_path / "data/pg_wal").iterdir()) == [NAME, "pgkeep.spool.2"]
    own.announce(NAME)
    own.prepare()
    own.empty()
    assert own.names() == []


def test_a_copy_of_the_directory_is_another(spool: Spool, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert spool.belongs_to(str(tmp_path / "data"))
    assert not spool.belongs_to(str(tmp_path / "copy"))
    shutil.rmtree(tmp_path / "data")
    assert not spool.belongs_to(str(tmp_path / "copy"))


def test_one_that_is_gone_harms_nobody(spool: Spool, destination: Path) -> None:
    spool.remove()
    spool.remove()
    assert not Path(spool.path).exists()
    assert not spool.take(NAME, str(destination))
