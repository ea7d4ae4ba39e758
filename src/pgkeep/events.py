"""Typed facts that the jobs announce; whoever shows or counts them subscribes.

A job takes `announce: Announce` and calls it with one of these values.  It never prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all facts."""


@dataclass(frozen=True, slots=True)
class Phase(Event):
    """A job entered a new step: `name` is a permanent word for machines, `text` a sentence for people."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """How far the present step is: done of expected (`total` 0 = unknown), in `unit`, and bytes stored or read."""

    done: int
    total: int
    stored: int = 0
    unit: Literal["bytes", "objects"] = "bytes"


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something a person should know although the job goes on; `code` is permanent."""

    code: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Noted(Event):
    """A fact worth a line in the log (a segment archived, a server started)."""

    text: str


Announce = Callable[[Event], None]


def silent(_event: Event) -> None:
    """An Announce for callers that want no events."""
