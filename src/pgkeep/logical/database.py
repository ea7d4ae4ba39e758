"""What plain format leaves out of a database: CREATE DATABASE, its settings and its rights, as SQL."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Final

from pgkeep.logical.commands import properties_command
from pgkeep.logical.guard import Guard
from pgkeep.logical.plan import DumpPlan
from pgkeep.pg.child import Child
from pgkeep.pg.link import Reach
from pgkeep.pg.programs import Programs

_OF_DATABASE: Final = re.compile(rb"\d+; \d+ \d+ (DATABASE|(COMMENT|ACL|SECURITY LABEL) - DATABASE) ")
"""A line of pg_restore --list: '3; 1262 16384 DATABASE - shop postgres', '5; 0 0 ACL - DATABASE shop postgres'."""


def database_script(plan: DumpPlan, reach: Reach, guard: Guard) -> bytes:
    """CREATE DATABASE and its settings as SQL: archives hold them, plain format would lose them."""
    archive = run(properties_command(plan, reach), reach, guard)
    programs = plan.tools.programs
    entries = [
        line for line in _through(programs, archive, "--create", "--list").splitlines() if _OF_DATABASE.match(line)
    ]
    listed = os.memfd_create("pgkeep-entries")
    try:
        os.write(listed, b"".join(entry + b"\n" for entry in entries))
        options = ["--create", "--file=-", f"--use-list=/proc/self/fd/{listed}"]
        if not plan.request.chosen.owner:
            options.append("--no-owner")
        return _through(programs, archive, *options, also=listed)
    finally:
        os.close(listed)


def run(command: list[str], reach: Reach | None, guard: Guard) -> bytes:
    """Everything that a program writes, when it is little."""
    with Child(command, reach=reach, stdout=subprocess.PIPE) as child:
        guard.watch(child)
        output = child.stdout.read()
        child.finish()
    guard.forget(child)
    return output


def _through(programs: Programs, archive: bytes, *options: str, also: int | None = None) -> bytes:
    """What pg_restore makes of an archive in memory."""
    source = os.memfd_create("pgkeep-archive")
    try:
        os.write(source, archive)
        os.lseek(source, 0, os.SEEK_SET)
        command = [programs.path("pg_restore"), *options]
        descriptors = () if also is None else (also,)
        with Child(command, stdin=source, stdout=subprocess.PIPE, descriptors=descriptors) as child:
            output = child.stdout.read()
            child.finish()
        return output
    finally:
        os.close(source)
