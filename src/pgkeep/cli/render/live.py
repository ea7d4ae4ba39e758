"""The live line of a terminal: imported only where there is one, for that takes a tenth of a short job's start."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from pgkeep.cli.render.progress import describe, say_warning
from pgkeep.clock import Clock
from pgkeep.events import Event, Noted, Phase, Progress, Warned
from pgkeep.values.quantity import show_duration, show_size

LIVE_EVERY = 0.1


class _Amount(ProgressColumn):
    """What is done, how fast, and how long it will take; before that is known, the time that passed."""

    def render(self, task: Task) -> Text:
        progress = task.fields.get("progress")
        seconds = task.elapsed or 0.0
        shown = describe(progress, seconds) if isinstance(progress, Progress) else show_duration(seconds)
        return Text(shown, style="dim")


class Live:
    """One live line on a terminal; a phase that took longer than a second leaves a line behind."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._text = ""
        self._began = self._last = clock.monotonic()
        self._progress: Progress | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Phase(_, text):
                self._end_phase()
                self._begin_phase(text)
            case Progress():
                self._advance(event)
            case Noted(text):
                self._console.print(Text(f"  {text}", style="dim"), soft_wrap=True)
            case Warned():
                say_warning(self._console, event)

    def _begin_phase(self, text: str) -> None:
        self._text, self._progress = text, None
        self._began = self._clock.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), _Amount())
        self._bar = Bar(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task(text, total=None)
        self._bar.start()

    def _advance(self, progress: Progress) -> None:
        self._progress = progress
        now = self._clock.monotonic()
        if self._bar is not None and (now - self._last >= LIVE_EVERY or progress.done == progress.total):
            self._last = now
            self._bar.update(self._task, completed=progress.done, total=progress.total or None, progress=progress)

    def _end_phase(self) -> None:
        if self._bar is None:
            return
        self._bar.stop()
        self._bar = None
        seconds = self._clock.monotonic() - self._began
        if seconds >= 1:
            is_size = self._progress is not None and self._progress.unit == "bytes"
            size = f"{show_size(self._progress.done)} in " if is_size and self._progress is not None else ""
            self._console.print(Text(f"  {self._text}: {size}{show_duration(seconds)}", style="dim"), soft_wrap=True)

    def close(self) -> None:
        self._end_phase()
