"""Moments for people (the local zone, always with its offset) and for machines (UTC)."""

from __future__ import annotations

from datetime import UTC, datetime

from pgkeep.restore.moment import show_moment
from pgkeep.values.quantity import show_duration


def show_time(moment: datetime) -> str:
    """'2026-05-07 14:29:00+03', to the second in this machine's zone: what --time takes back as it stands."""
    return show_moment(moment.astimezone().replace(microsecond=0))


def json_time(moment: datetime | None) -> str | None:
    """'2026-05-07T11:29:00.123456Z'."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def show_age(seconds: float) -> str:
    """'5 min', '3 h', '12 d': one unit, rounded down."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return show_duration(seconds).split(".")[0] + " s" if seconds >= 1 else "now"
