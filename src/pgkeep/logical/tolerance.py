"""What an older server may refuse of a newer dump without anything being lost: named one by one, and reviewed."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Tolerated:
    """An error that a server older than `before` may answer, and why nothing is lost by it."""

    pattern: str
    before: int
    why: str

    def matches(self, line: str, major: int) -> bool:
        return major < self.before and re.search(self.pattern, line) is not None


TOLERATED: Final = (
    Tolerated(
        r'unrecognized configuration parameter "transaction_timeout"', 17,
        "pg_restore 17 and newer switches off a time limit that older servers do not have",
    ),
)  # fmt: skip
"""Reviewed: each one leaves the loaded data and schema as they would be without it."""

IN_HEAD: Final = (("transaction_timeout", 17),)
"""Settings in the head of a script, and the first version that knows them."""


def tolerated(line: str, major: int, among: Collection[Tolerated] = TOLERATED) -> Tolerated | None:
    """The rule that lets this error pass on a server of that version."""
    return next((one for one in among if one.matches(line, major)), None)
