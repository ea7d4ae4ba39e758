"""The keys that each table may have, and what their values become."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.quantity import parse_duration

if TYPE_CHECKING:
    from pgkeep.values.schedule import Schedule

Reader = Callable[[Any], Any]
"""From a TOML value to a setting; ValueError with a sentence for a person otherwise."""


def text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"expected text in quotes, found {value!r}")
    return value


def filled_text(value: Any) -> str:
    if not text(value).strip():
        raise ValueError("expected text, found an empty string")
    return text(value)


def absolute(value: Any) -> str:
    if not text(value).startswith("/"):
        raise ValueError(f"expected an absolute path, found {value!r}")
    return text(value)


def whole(least: int, most: int) -> Reader:
    """Reader of an integer from `least` to `most`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"expected a whole number from {least} to {most}, found {value!r}")
        return value

    return read


def duration(value: Any) -> timedelta:
    return parse_duration(text(value))


def one_of(*words: str) -> Reader:
    """Reader of one of `words`."""

    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"expected {' or '.join(repr(word) for word in words)}, found {value!r}")
        return str(value)

    return read


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {value!r}")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts that are not empty."""
    if not isinstance(value, list):
        raise ValueError(f'expected a list such as ["sales", "app.orders"], found {value!r}')
    return tuple(filled_text(one) for one in value)


def schedule(value: Any) -> Schedule:
    from pgkeep.values.schedule import parse_schedule  # `wal push` reads the file and has no use for it

    return parse_schedule(text(value))


KEEP_DUMPS: Final[dict[str, Reader]] = {
    "daily": whole(0, 100_000),
    "weekly": whole(0, 100_000),
    "monthly": whole(0, 100_000),
    "yearly": whole(0, 100_000),
    "last": whole(0, 100_000),
}
KEEP: Final[dict[str, Reader]] = {**KEEP_DUMPS, "wal": duration}


def keep(value: Any) -> KeepPolicy:
    return _policy(value, KEEP, "backup", '{ daily = 7, wal = "7d" }')


def keep_dumps(value: Any) -> KeepPolicy:
    return _policy(value, KEEP_DUMPS, "dump", "{ daily = 7, monthly = 12 }")


def _policy(value: Any, known: dict[str, Reader], what: str, example: str) -> KeepPolicy:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table such as {example}, found {value!r}")
    unknown = [key for key in value if key not in known]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}, expected one of: {', '.join(known)}")
    policy = KeepPolicy(**{key: _named(key, found) for key, found in value.items()})
    if not policy.keeps_backups:
        raise ValueError(
            f"keeps no {what}: expected at least one of daily, weekly, monthly, yearly and last above 0"
            " (without the key keep, nothing is ever deleted)"
        )
    return policy


def _named(key: str, value: Any) -> Any:
    """A value of `keep`; the ValueError names it, for several stand on the line."""
    try:
        return KEEP[key](value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def timezone(value: Any) -> str:
    """A name of the time zone data base."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    name = filled_text(value)
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected the name of a time zone such as 'Europe/Berlin', found {name!r}") from None
    return name


REPOSITORY: Final[dict[str, Reader]] = {"name": filled_text, "url": filled_text}

CLUSTER: Final[dict[str, Reader]] = {
    "connection": text,  # empty: libpq's own defaults (PGHOST, PGSERVICE ...)
    "compression-level": whole(1, 19),
    "processes": whole(1, 1024),
    "checkpoint": one_of("fast", "spread"),
    "archive-timeout": duration,
    "bindir": absolute,
    "keep": keep,
    "timezone": timezone,
    "archive-ahead": whole(0, 100_000),
    "archive-ahead-time": duration,
}

DUMPS: Final[dict[str, Reader]] = {
    "database": filled_text,
    "all": flag,
    "schemas": texts,
    "tables": texts,
    "exclude-tables": texts,
    "schema-only": flag,
    "data-only": flag,
    "no-owner": flag,
    "no-acl": flag,
    "filter": absolute,
    "format": one_of("directory", "custom", "plain"),
    "jobs": whole(1, 1024),
    "compress": filled_text,
    "keep": keep_dumps,
    "lock-timeout": duration,
    "schedule": schedule,
}
"""Of [cluster.NAME.dumps.NAME]."""

SECRETS: Final = frozenset({"url", "connection"})

# Tables and keys that the product's design names and this version does not have.
LATER_TOP: Final = frozenset({"anonymize", "tenants", "notify", "contacts"})
LATER_REPOSITORY: Final = frozenset({"encryption"})
LATER_CLUSTER: Final = frozenset({"schedule", "objectives", "drill"})


def is_later(key: str, later: frozenset[str]) -> bool:
    """True for a table in `later`, and for a secret read from a file or a command."""
    stem, _, kind = key.rpartition("_")
    return key in later or (kind in {"file", "command"} and stem in SECRETS)
