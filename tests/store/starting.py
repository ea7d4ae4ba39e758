"""Starting the programs of local_children, and making system calls fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.requirements import need

HERE = Path(__file__).parents[2]


def child(*arguments: str, command: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    """A program of local_children, started but not awaited."""
    return subprocess.Popen(
        [*command, sys.executable, f"{HERE}/tests/store/local_children.py", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([f"{HERE}/src", *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def run_child(*arguments: str, command: tuple[str, ...] = ()) -> str:
    with child(*arguments, command=command, stderr=subprocess.PIPE) as process:
        output, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    return output


def private_mounts() -> tuple[str, ...]:
    """The command that gives a program its own mounts, which end with it."""
    command = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        need("mount-namespace", "there is no unshare(1)")
    if tried.returncode:
        need("mount-namespace", tried.stderr.strip())
    return command


def failing(number: int) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail
