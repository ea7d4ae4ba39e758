"""Crew: real processes, real deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgkeep.crew import Crew
from pgkeep.errors import Damaged, Fault


class Adder:
    """Keeps a sum from task to task."""

    def __init__(self, start: int) -> None:
        self.sum = start

    def run(self, task: int) -> int:
        if task == -1:
            raise Damaged("pack x", "is damaged")
        if task == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == -3:
            raise ZeroDivisionError
        self.sum += task
        return task * 2

    def finish(self) -> int:
        if self.sum < 0:
            raise Fault("io", "cannot finish")
        time.sleep(0.2)
        return self.sum


def test_every_task_is_done_once_and_state_stays_in_the_worker() -> None:
    with Crew[int, int, int](3, Adder, 0) as crew:
        assert sorted(crew.run(range(50))) == [2 * n for n in range(50)]
        assert sum(crew.finish()) == sum(range(50))


class Echo:
    """Hands back what it gets, and again as much."""

    def run(self, task: bytes) -> bytes:
        return task + task

    def finish(self) -> None:
        return None


@pytest.mark.timeout(120)
def test_tasks_and_results_that_no_pipe_holds() -> None:
    """The parent hands out the next task while the worker hands back a result: neither waits for the other."""
    task = bytes(3 << 20)
    with Crew[bytes, bytes, None](2, Echo) as crew:
        assert [len(result) for result in crew.run([task] * 20)] == [2 * len(task)] * 20
        list(crew.finish())


def test_a_task_for_each_worker() -> None:
    with Crew[int, int, int](3, Adder, 0) as crew:
        assert len(list(crew.run(range(10)))) == 10
        assert list(crew.each(100)) == [200, 200, 200]
        assert sorted(crew.run([1, 2])) == [2, 4]
        answers = list(crew.finish())
    assert sum(answers) == sum(range(10)) + 300 + 3
    assert min(answers) >= 100


def test_no_task_at_all() -> None:
    with Crew[int, int, int](2, Adder, 7) as crew:
        assert list(crew.run([])) == []
        assert list(crew.finish()) == [7, 7]


@pytest.mark.parametrize(("task", "code"), [(-1, "format-damaged"), (-2, "worker-died"), (-3, "worker-died")])
def test_a_worker_that_fails_ends_the_run(task: int, code: str) -> None:
    with Crew[int, int, int](2, Adder, 0) as crew, pytest.raises(Fault) as caught:
        list(crew.run([1, 2, task, *range(100)]))
    assert caught.value.code == code


def test_what_others_finished_is_known_before_a_fault_is_raised() -> None:
    answers: list[int] = []
    with Crew[int, int, int](2, Adder, 0) as crew:
        busy = crew.run([5, -9])
        assert sorted(busy) == [-18, 10]
        with pytest.raises(Fault, match="cannot finish"):
            for answer in crew.finish():
                answers.append(answer)
    assert answers == [5]


def test_an_error_in_the_parent_leaves_no_process_behind() -> None:
    pids: list[int] = []
    with pytest.raises(KeyError), Crew[int, int, int](2, Adder, 0) as crew:
        pids += [process.pid or 0 for process in crew._processes.values()]
        raise KeyError
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class Maker:
    """Makes a file a task, and takes them back when nobody wants them."""

    def __init__(self, directory: str) -> None:
        self.made: list[Path] = []
        self.directory = Path(directory)

    def run(self, task: int) -> int:
        if task < 0:
            raise Fault("io", "cannot make")
        self.made.append(self.directory / f"{os.getpid()}-{task}")
        self.made[-1].touch()
        return task

    def finish(self) -> int:
        return len(self.made)

    def abandon(self) -> None:
        for path in self.made:
            path.unlink()


def test_what_nobody_will_use_is_taken_back(tmp_path: Path) -> None:
    with Crew[int, int, int](2, Maker, str(tmp_path)) as crew, pytest.raises(Fault, match="cannot make"):
        for _ in crew.run([1, 2, 3, 4, -1]):
            pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), Crew[int, int, int](2, Maker, str(tmp_path)) as crew:
        assert sorted(crew.run(range(9))) == [*range(9)]
        assert len(list(tmp_path.iterdir())) == 9
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_workers_that_were_asked_to_finish_are_not_asked_twice() -> None:
    with Crew[int, int, int](2, Adder, 1) as crew:
        assert sorted(crew.run([1, 2, 3])) == [2, 4, 6]
        crew.ask_to_finish()
        assert sum(crew.finish()) == 8


def test_what_was_finished_belongs_to_the_parent(tmp_path: Path) -> None:
    with Crew[int, int, int](2, Maker, str(tmp_path)) as crew:
        assert sorted(crew.run(range(9))) == [*range(9)]
        assert sum(crew.finish()) == 9
    assert len(list(tmp_path.iterdir())) == 9


_PARENT = """
import sys, time
from pgkeep.crew import Crew
from tests.test_crew import Adder
if __name__ == "__main__":
    crew = Crew(2, Adder, 0)
    list(crew.run([1, 2, 3, 4]))
    print(*[process.pid for process in crew._processes.values()], flush=True)
    time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    root = Path(__file__).parent.parent
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
