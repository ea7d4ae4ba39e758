"""What a test may need beyond Python, and what happens when this machine has not got it.

A test that needs something calls `need(name, reason)` with the reason why it is missing.  It is then skipped,
and the end of the run lists it; but when $PGKEEP_REQUIRE names it (comma-separated), it fails instead: a
machine that promises a server must not pass its tests by having lost it.  A name that is not in KNOWN is an
error in either place, so that a misspelt promise cannot pass.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NoReturn

import pytest

KNOWN = {
    "pg14": "PostgreSQL 14's programs",
    "pg15": "PostgreSQL 15's programs",
    "pg16": "PostgreSQL 16's programs",
    "pg17": "PostgreSQL 17's programs",
    "pg18": "PostgreSQL 18's programs",
    "root": "to run as root",
    "unprivileged": "to run as an ordinary user",
    "mount-namespace": "to make a private mount namespace",
    "second-filesystem": "a second file system to write to",
    "full-disk": "a file system that can be filled",
    "lz4": "the program lz4",
    "icu": "PostgreSQL built with ICU",
}
_REASON = re.compile(r"needs ([a-z0-9-]+) \([^)]*\): (.*)", re.DOTALL)


class UnknownRequirementError(Exception):
    """A name that KNOWN does not list."""


def required() -> frozenset[str]:
    """The names in $PGKEEP_REQUIRE; UnknownRequirementError for one that KNOWN does not list."""
    names = {name.strip() for name in os.environ.get("PGKEEP_REQUIRE", "").split(",")} - {""}
    if unknown := names - KNOWN.keys():
        raise UnknownRequirementError(
            f"PGKEEP_REQUIRE names {', '.join(sorted(unknown))}, which no test knows; "
            f"known are {', '.join(sorted(KNOWN))}"
        )
    return frozenset(names)


def need(name: str, missing_because: str) -> NoReturn:
    """End the present test because `name` is not to be had: failed when it is required, else skipped."""
    if name not in KNOWN:
        raise UnknownRequirementError(f"a test needs {name!r}, which tests/requirements.py does not list")
    text = f"needs {name} ({KNOWN[name]}): {missing_because}"
    if name in required():
        pytest.fail(f"{text}; PGKEEP_REQUIRE promises it", pytrace=False)
    pytest.skip(text)


def need_root() -> None:
    """For tests that must be root (chown, mount namespaces, servers under another account)."""
    if os.geteuid() != 0:
        need("root", f"the tests run under uid {os.geteuid()}")


def summary(reasons: Iterable[str]) -> list[str]:
    """One line for each reason why tests were skipped, with how many: 'pg16: 12 tests: why'."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for reason in reasons:
        match = _REASON.search(reason)
        key = (match[1], match[2]) if match else ("other", reason)
        counts[key] += 1
    return [f"{name}: {count} test{'s' if count != 1 else ''}: {why}" for (name, why), count in sorted(counts.items())]
