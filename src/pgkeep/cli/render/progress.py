"""What is shown while a job runs: log lines, JSON lines for machines; for the live line of a terminal see `live`.

Each class takes the events of `pgkeep.events`; `close` ends what it shows.  None of them can end a job: they write to a
`Stream`.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from pgkeep.cli.render.stream import Stream
from pgkeep.clock import Clock
from pgkeep.events import Event, Noted, Phase, Progress, Warned
from pgkeep.values.quantity import show_duration, show_size

LOG_EVERY = 10.0
JSON_EVERY = 1.0


class Announcer(Protocol):
    """Shows events as they come."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None:
        """The job has ended; may be called twice."""
        ...


def describe(progress: Progress, seconds: float) -> str:
    """'1.2 GB of 2.7 GB (44 %), 310 MB/s, 5.1 s left' after `seconds` of this phase; no rate before half a second."""
    done, total = progress.done, progress.total
    show = show_size if progress.unit == "bytes" else "{:,.0f}".format
    parts = [f"{show(done)} of {show(total)} ({100 * done // total} %)" if total else show(done)]
    if seconds >= 0.5 and done > 0:
        read = done if progress.unit == "bytes" else progress.stored
        parts.append(f"{show_size(read / seconds)}/s")
        if total > done:
            parts.append(f"{show_duration((total - done) * seconds / done)} left")
    return ", ".join(parts)


class Nothing:
    """--quiet: warnings alone are still said."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            say_warning(self._console, event)

    def close(self) -> None:
        """Nothing is shown that could end."""


def say_warning(console: Console, event: Warned) -> None:
    """Two lines at most: the warning and its way out."""
    console.print(Text.assemble(("warning: ", "bold yellow"), event.text), soft_wrap=True)
    if event.hint:
        console.print(Text.assemble(("hint: ", "bold"), event.hint), soft_wrap=True)


class JsonLines:
    """An object a line on stdout; progress at most once a second (docs/json.md)."""

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._last = float("-inf")

    def __call__(self, event: Event) -> None:
        match event:
            case Phase(name, text):
                self._last = float("-inf")
                self._write(event="phase", name=name, text=text)
            case Progress(done, total, stored, unit):
                now = self._clock.monotonic()
                if now - self._last >= JSON_EVERY or done == total:
                    self._last = now
                    self._write(event="progress", done=done, total=total or None, unit=unit, stored=stored)
            case Warned(code, text, hint):
                self._write(event="warning", code=code, text=text, hint=hint or None)
            case Noted(text):
                self._write(event="note", text=text)

    def _write(self, **fields: Any) -> None:
        self._stream.write(json.dumps({"schema": 1, **fields}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Lines need no end."""


class LogLines:
    """Plain lines with the local time, progress at most every ten seconds: for files, journals and mails."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._text = ""
        self._began = self._last = clock.monotonic()

    def __call__(self, event: Event) -> None:
        match event:
            case Phase(_, text):
                self._text = text
                self._began = self._last = self._clock.monotonic()
                self._line(text)
            case Progress():
                now = self._clock.monotonic()
                if now - self._last >= LOG_EVERY:
                    self._last = now
                    self._line(f"{self._text}: {describe(event, now - self._began)}")
            case Noted(text):
                self._line(text)
            case Warned():
                say_warning(self._console, event)

    def _line(self, text: str) -> None:
        self._console.print(f"{self._clock.now().astimezone():%H:%M:%S} {text}", soft_wrap=True)

    def close(self) -> None:
        """Lines need no end."""
