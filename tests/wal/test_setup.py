"""What a server lacks, by its facts; that the statements work is shown in tests/cli/test_init.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.clusters import Cluster

from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.server import connect
from pgkeep.wal.setup import plan_setup

COMMAND = "/opt/pgkeep/bin/pgkeep --config /etc/pgkeep/pgkeep.toml wal push %p"


@pytest.fixture
def archiving(shared_cluster: Cluster) -> ServerFacts:
    """Facts of a real server, as if it archived by COMMAND."""
    with connect(shared_cluster.conninfo) as server:
        facts = server.facts()
    return replace(
        facts,
        wal_level="replica",
        archive_mode="on",
        archive_command=COMMAND,
        archive_library="",
        full_page_writes=True,
    )


def test_nothing_is_missing(archiving: ServerFacts) -> None:
    for mode in ("on", "always"):
        setup = plan_setup(replace(archiving, archive_mode=mode), COMMAND)
        assert setup.is_complete
        assert not setup.warnings


@pytest.mark.parametrize(
    ("change", "sql", "effect"),
    [
        ({"wal_level": "minimal"}, "ALTER SYSTEM SET wal_level = 'replica';", "restart"),
        ({"archive_mode": "off"}, "ALTER SYSTEM SET archive_mode = 'on';", "restart"),
        ({"archive_command": ""}, f"ALTER SYSTEM SET archive_command = '{COMMAND}';", "reload"),
        ({"archive_library": "basic_archive"}, "ALTER SYSTEM SET archive_library = '';", "reload"),
        ({"full_page_writes": False}, "ALTER SYSTEM SET full_page_writes = 'on';", "reload"),
    ],
)
def test_one_thing_is_missing(archiving: ServerFacts, change: dict[str, str], sql: str, effect: str) -> None:
    setup = plan_setup(replace(archiving, **change), COMMAND)  # type: ignore[arg-type]
    assert [(one.sql, one.effect) for one in setup.statements] == [(sql, effect)]
    assert setup.needs_restart == (effect == "restart")


def test_an_archive_that_would_end_is_named(archiving: ServerFacts) -> None:
    other = plan_setup(replace(archiving, archive_command="cp %p /mnt/%f"), COMMAND)
    assert "cp %p /mnt/%f" in other.warnings[0]
    assert plan_setup(replace(archiving, archive_command="(disabled)"), COMMAND).warnings == ()


def test_quotes_are_doubled(archiving: ServerFacts) -> None:
    setup = plan_setup(archiving, "'/srv/o''brien/pgkeep' wal push %p")
    assert setup.statements[0].sql == "ALTER SYSTEM SET archive_command = '''/srv/o''''brien/pgkeep'' wal push %p';"
