"""How running jobs are shown, with a clock that the test moves."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from pgkeep.cli.render.live import Live
from pgkeep.cli.render.progress import JsonLines, LogLines, Nothing, describe
from pgkeep.cli.render.stream import Stream
from pgkeep.events import Event, Noted, Phase, Progress, Warned

MB = 1 << 20


@dataclass
class Hands:
    """A clock that stands still until it is moved."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 5, 7, 11, 29, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize(
    ("progress", "seconds", "expected"),
    [
        (Progress(0, 0), 0, "0 B"),
        (Progress(50 * MB, 200 * MB), 0.1, "50 MB of 200 MB (25 %)"),
        (Progress(50 * MB, 200 * MB), 5, "50 MB of 200 MB (25 %), 10 MB/s, 15.0 s left"),
        (Progress(200 * MB, 200 * MB), 5, "200 MB of 200 MB (100 %), 40 MB/s"),
        (Progress(50 * MB, 0), 5, "50 MB, 10 MB/s"),
        (Progress(3, 12, 30 * MB, "objects"), 3, "3 of 12 (25 %), 10 MB/s, 9.0 s left"),
    ],
)
def test_describe(progress: Progress, seconds: float, expected: str) -> None:
    assert describe(progress, seconds) == expected


def console(stream: io.StringIO, *, terminal: bool = False) -> Console:
    return Console(file=stream, force_terminal=terminal, width=100, highlight=False, _environ={})


def copying(total_seconds: int) -> list[tuple[float, Event]]:
    """Ten steps a second over a copy of 100 MB a second."""
    steps: list[tuple[float, Event]] = [(0, Phase("copy", "copying"))]
    total = total_seconds * 100 * MB
    for tenth in range(1, total_seconds * 10 + 1):
        steps.append((tenth / 10, Progress(tenth * 10 * MB, total)))
    return steps


def test_a_log_gets_a_line_every_ten_seconds() -> None:
    out, clock = io.StringIO(), Hands()
    lines = LogLines(console(out), clock)
    for clock.seconds, event in copying(35):
        lines(event)
    lines(Noted("a fact"))
    lines(Warned("code", "take care", "do this"))
    shown = [line.partition(" ")[2] for line in out.getvalue().splitlines()[:-2]]
    assert shown == [
        "copying",
        "copying: 0.977 GB of 3.42 GB (28 %), 100 MB/s, 25.0 s left",
        "copying: 1.95 GB of 3.42 GB (57 %), 100 MB/s, 15.0 s left",
        "copying: 2.93 GB of 3.42 GB (85 %), 100 MB/s, 5.0 s left",
        "a fact",
    ]
    assert out.getvalue().splitlines()[-2:] == ["warning: take care", "hint: do this"]


def test_json_lines_at_most_once_a_second_and_the_last_one() -> None:
    out, clock = io.StringIO(), Hands()
    lines = JsonLines(Stream(out), clock)
    for clock.seconds, event in copying(3):
        lines(event)
    shown = [json.loads(line) for line in out.getvalue().splitlines()]
    assert all(line["schema"] == 1 for line in shown)
    assert shown[0] == {"schema": 1, "event": "phase", "name": "copy", "text": "copying"}
    assert [line["done"] // MB for line in shown[1:]] == [10, 110, 210, 300]
    clock.seconds += 2
    lines(Progress(5, 0))
    assert json.loads(out.getvalue().splitlines()[-1])["total"] is None


def test_quiet_still_warns() -> None:
    out = io.StringIO()
    quiet = Nothing(console(out))
    for event in (Phase("x", "phase"), Progress(1, 2), Noted("note"), Warned("c", "take care")):
        quiet(event)
    assert out.getvalue() == "warning: take care\n"


def test_a_terminal_keeps_a_line_of_each_long_phase() -> None:
    out, clock = io.StringIO(), Hands()
    live = Live(console(out, terminal=True), clock)
    for clock.seconds, event in copying(3):
        live(event)
    live(Phase("stop", "ending"))
    clock.seconds += 0.2
    live.close()
    live.close()
    lasting = [line for line in out.getvalue().replace("\r", "\n").splitlines() if "copying: 300 MB in 3.0 s" in line]
    assert lasting
    assert "ending: " not in out.getvalue()


class Broken(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        raise io.UnsupportedOperation


def test_a_reader_that_left_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = []
    monkeypatch.setattr("os.dup2", lambda *descriptors: replaced.append(descriptors))
    monkeypatch.setattr(Broken, "fileno", lambda _self: 1)
    lines = JsonLines(Stream(Broken()), Hands())
    for _, event in copying(1):
        lines(event)
    assert len(replaced) == 1
