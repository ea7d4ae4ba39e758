"""Another server, which knows nothing of the first; and servers that are left as they were found."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import pytest

from pgkeep.pg.account import Account
from pgkeep.pg.sqltext import quoted_name
from tests.clusters import Cluster
from tests.conftest import _maker, _server_directory


@contextmanager
def left_as_found(server: Cluster) -> Iterator[Cluster]:
    """Whatever databases, tablespaces and roles a test makes are dropped."""
    before = known(server)
    yield server
    for kind, names in zip(KINDS, known(server), strict=True):
        for name in names - before[KINDS.index(kind)]:
            server.sql(f"DROP {kind} {quoted_name(name)}" + (" WITH (FORCE)" if kind == "DATABASE" else ""))


KINDS = ("DATABASE", "TABLESPACE", "ROLE")


def known(server: Cluster) -> list[set[str]]:
    queries = ("SELECT datname FROM pg_database", "SELECT spcname FROM pg_tablespace", "SELECT rolname FROM pg_roles")
    return [{name for (name,) in server.sql(query)} for query in queries]


@pytest.fixture(scope="session")
def _aways(server_user: Account) -> Iterator[Callable[[int], Cluster]]:
    home = _server_directory(server_user)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        yield cache(lambda major: _maker(major, home, server_user, stack)(f"away{major}"))


@pytest.fixture
def away(_aways: Callable[[int], Cluster], pg_major: int) -> Iterator[Cluster]:
    """Another server, which knows nobody."""
    with left_as_found(_aways(pg_major)) as server:
        yield server
