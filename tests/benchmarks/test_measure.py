"""The meter must not miss what a tool does in children, also in those that it leaves behind."""

from __future__ import annotations

import sys

from benchmarks.measure import Cost, measured

_BURN = "import time\nwhile time.process_time() < 0.6: pass"
_HOLD = "import time; held = b'x' * (64 << 20); time.sleep(0.5)"


def _measured(*command: str) -> Cost:
    return measured(command, None, {"PATH": "/usr/bin:/bin"}, "/")


def test_counts_the_cpu_of_detached_descendants() -> None:
    cost = _measured("sh", "-c", f'setsid "{sys.executable}" -c "{_BURN}" >/dev/null 2>&1 & exit 0')
    assert cost.status == 0
    assert cost.user + cost.system >= 0.55


def test_wall_is_the_commands_own() -> None:
    cost = _measured("sh", "-c", "sleep 0.6 & sleep 0.2")
    assert 0.2 <= cost.wall < 0.6


def test_adds_the_memory_of_processes_that_live_together() -> None:
    cost = _measured("sh", "-c", f'"{sys.executable}" -c "{_HOLD}" & "{sys.executable}" -c "{_HOLD}"; wait')
    assert cost.peak_pss >= 128 << 20


def test_keeps_status_and_lines_in_order() -> None:
    cost = _measured("sh", "-c", "echo one; sleep 0.3; echo two >&2; exit 7")
    assert cost.status == 7
    assert [line.text for line in cost.lines] == ["one", "two"]
    assert cost.lines[1].seconds - cost.lines[0].seconds >= 0.25
