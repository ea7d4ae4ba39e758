"""Whose days a policy counts."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_HERE: Final = "/etc/localtime"


def zone_of_days(configured: str | None, local: str) -> tzinfo:
    """The configuration's zone, else this machine's, by its name `local` ('' when not known) or its file, else UTC."""
    for name in (configured, local):
        with suppress(ZoneInfoNotFoundError, ValueError, OSError):
            if name:
                return ZoneInfo(name)
    with suppress(ValueError, OSError), open(_HERE, "rb") as file:
        return ZoneInfo.from_file(file)
    return UTC


def zone_name(zone: tzinfo) -> str:
    """For people."""
    return str(getattr(zone, "key", None) or ("this machine's zone" if isinstance(zone, ZoneInfo) else "UTC"))
