"""The demo as it is told: numbered scenes with their timings, the commands that were run, the proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from pgkeep.cli.render.output import Output
from pgkeep.clock import Clock
from pgkeep.events import Noted, Phase
from pgkeep.values.quantity import show_duration

TOLD_FROM = 0.1
"""Seconds: what is quicker has no time worth telling."""


class Story:
    """Tells on stdout; with --json the scenes are events, and with --quiet nothing is told."""

    def __init__(self, out: Output, clock: Clock) -> None:
        self._out = out
        self._clock = clock
        self._number = 0
        self.began = clock.monotonic()
        self.scenes: list[tuple[str, float]] = []

    @property
    def _console(self) -> Console | None:
        options = self._out.options
        return None if options.json or options.quiet else self._out.answers

    def title(self, text: str) -> None:
        """The first line."""
        self._say(Text(text, style="bold"))

    @contextmanager
    def scene(self, name: str, title: str) -> Iterator[None]:
        """A part with a permanent `name` for machines and a title for people; its time is told at its end."""
        self._number += 1
        began = self._clock.monotonic()
        if self._console is None:
            self._out.announce(Phase(name, title))
        else:
            self._say(Text(f"\n{self._number}. {title}", style="bold"))
        yield
        seconds = self._clock.monotonic() - began
        self.scenes.append((name, seconds))
        if seconds >= TOLD_FROM:
            self._say(Text(f"   {show_duration(seconds)}", style="dim"))

    def tell(self, text: str) -> None:
        """A sentence."""
        if self._console is None:
            self._out.announce(Noted(text))
        self._say(Text(f"   {text}"))

    def command(self, words: str) -> None:
        """A command line as a user would type it."""
        if self._console is None:
            self._out.announce(Noted(f"$ {words}"))
        self._say(Text.assemble(("   $ ", "dim"), (words, "bold cyan")))

    def said(self, output: str) -> None:
        """What a command printed."""
        for line in output.splitlines():
            self._say(Padding(Text(line), (0, 0, 0, 5), expand=False))

    def compare(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Name, before the accident, after the recovery."""
        width = 2 + max(len(before) for _, before, _ in rows)
        self._say(Text(f"   {'':8}{'before the accident':{width}}restored", style="dim"))
        for name, before, after in rows:
            same = ("same", "bold green") if before == after else ("DIFFERENT", "bold red")
            self._say(Text.assemble(f"   {name:8}{before:{width}}{after:{width}}", same))

    def verdict(self, text: str, *, is_good: bool) -> None:
        """The last word."""
        self._say(Text(f"\n{text}", style="bold green" if is_good else "bold red"))

    def _say(self, what: RenderableType) -> None:
        if self._console is not None:
            self._out.show(what)
