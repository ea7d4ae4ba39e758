"""Option values that click does not know: what people write, checked while the command line is read."""

from __future__ import annotations

from datetime import timedelta

import click

from pgkeep.values.quantity import parse_duration

PROCESSES = click.IntRange(1, 1024)


def duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    """Callback of an option: '90s', '15min' -> timedelta."""
    if value is None:
        return None
    try:
        return parse_duration(value)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from None
