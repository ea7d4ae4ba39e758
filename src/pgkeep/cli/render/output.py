"""Output: where a verb's answer, its progress and its failure go, by the global options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from pgkeep.cli.options import Options
from pgkeep.cli.render.progress import Announcer, JsonLines, LogLines, Nothing
from pgkeep.cli.render.stream import Stream
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Event

LOG_WIDTH = 10_000
"""Columns where nobody sees the right edge: no line of a log or of a pipe is wrapped."""


class Output:
    """Made once the global options are known; `close` before the process ends."""

    def __init__(
        self, options: Options, clock: Clock, stdout: TextIO, stderr: TextIO, environment: Mapping[str, str]
    ) -> None:
        self.options = options
        self._stdout = Stream(stdout)
        no_color = options.no_color or bool(environment.get("NO_COLOR"))
        self.answers = _console(self._stdout, environment, no_color=no_color)
        self._stderr = Stream(stderr)
        self.messages = _console(self._stderr, environment, no_color=no_color)
        self._announcer = self._choose_announcer(clock)

    def _choose_announcer(self, clock: Clock) -> Announcer:
        if self.options.quiet:
            return Nothing(self.messages)
        if self.options.json:
            return JsonLines(self._stdout, clock)
        if self.messages.is_terminal:
            from pgkeep.cli.render.live import Live

            return Live(self.messages, clock)
        return LogLines(self.messages, clock)

    @property
    def width(self) -> int:
        """Columns that an answer may take."""
        return self.answers.width

    def announce(self, event: Event) -> None:
        """An Announce for jobs."""
        self._announcer(event)

    def answer(self, verb: str, fields: Mapping[str, Any], text: Callable[[], RenderableType]) -> None:
        """What a verb found or did: the result object with --json, else what `text` makes."""
        self._announcer.close()
        if self.options.json:
            self._json({"result": {"verb": verb, **fields}})
        else:
            self.show(text())

    def show(self, what: RenderableType) -> None:
        """Print on stdout."""
        _print(self.answers, self._stdout, what)

    def tell(self, text: Callable[[], RenderableType]) -> None:
        """Something to read before the work begins; on stderr, and not with --json or --quiet."""
        self._announcer.close()
        if not self.options.json and not self.options.quiet:
            _print(self.messages, self._stderr, text())

    def done(self, verb: str, fields: Mapping[str, Any], text: Callable[[], RenderableType]) -> None:
        """As `answer`, for a verb that nobody asked anything: --quiet silences its text."""
        if self.options.quiet and not self.options.json:
            self._announcer.close()
        else:
            self.answer(verb, fields, text)

    def fail(self, fault: Fault) -> None:
        """error: and hint:, each on its own line; with -v what else is known."""
        self._announcer.close()
        if self.options.json:
            self._json({"error": fault.as_json()})
        else:
            self.complain(fault)

    def complain(self, fault: Fault) -> None:
        """A fault in words, on stderr."""
        self._message("error: ", "bold red", fault.message)
        if fault.hint:
            self._message("hint: ", "bold", fault.hint)
        if self.options.verbose:
            for key, value in fault.context.items():
                self._message(f"{key}: ", "dim", str(value))

    def trace(self, text: str) -> None:
        """A traceback, for -v."""
        self.messages.print(Text(text, style="dim"), soft_wrap=True)

    def close(self) -> None:
        """Flush; Fault `io` when the answer could not be written, although the work was done."""
        self._announcer.close()
        self._stdout.flush()
        if self._stdout.failure:
            raise Fault("io", f"the output could not be written: {self._stdout.failure}")

    def _message(self, word: str, style: str, text: str) -> None:
        self.messages.print(Text.assemble((word, style), text), soft_wrap=True)

    def _json(self, fields: Mapping[str, Any]) -> None:
        self._stdout.write(json.dumps({"schema": 1, **fields}) + "\n")
        self._stdout.flush()


def _print(console: Console, stream: Stream, what: RenderableType) -> None:
    """Print without the blanks that tables put at the ends of lines."""
    with console.capture() as captured:
        console.print(what, soft_wrap=not console.is_terminal)
    for line in captured.get().splitlines():
        stream.write(line.rstrip() + "\n")
    stream.flush()


def _console(stream: Stream, environment: Mapping[str, str], *, no_color: bool) -> Console:
    width = None if stream.isatty() else LOG_WIDTH
    return Console(
        file=stream,  # type: ignore[arg-type]  # all of a text file that rich uses
        width=width, no_color=no_color, highlight=False, markup=False, emoji=False, _environ=environment,
    )  # fmt: skip
