"""The files of a directory where pg_restore can open them: out of the repository, or with other owners.

1. What the repository holds is written to the scratch directory, in memory as a rule, and removed at the end.
2. Of a directory of this machine only the table of contents is written anew, where the request changes it; beside it
   stand links to the files that are there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from pathlib import Path

from pgkeep.errors import Fault
from pgkeep.events import Announce, Noted, Phase, Progress
from pgkeep.logical.content import Chunks, Reader
from pgkeep.logical.guard import Guard
from pgkeep.logical.loadplan import LoadPlan
from pgkeep.logical.room import room_in
from pgkeep.logical.scratch import remove_leftovers, scratch_directory
from pgkeep.logical.source import TOC
from pgkeep.pg.toccopy import changed_toc
from pgkeep.values.quantity import show_size


def lay_out(plan: LoadPlan, scratch: str, guard: Guard, stack: ExitStack, announce: Announce) -> str:
    """The directory for pg_restore below `scratch`, which `stack` removes; 'target-space', 'io', and the source's."""
    for left in remove_leftovers(scratch):
        announce(Noted(f"removed {left}, which a killed job had left"))
    content, total, done = plan.source.content, plan.laid_out, 0
    path = Path(stack.enter_context(scratch_directory(scratch, guard)))
    free = room_in(scratch).free
    if free < total:
        raise Fault(
            "target-space",
            f"the dump takes {show_size(total)}, and {scratch} has {show_size(free)} to spare",
            hint="name a directory with room: --scratch DIR; what is laid out there is removed afterwards",
        )
    announce(Phase("lay-out", f"laying out the dump in {scratch}"))
    try:
        for name in content.parts:
            if content.path is not None and name != TOC:
                (path / name).symlink_to(os.path.join(content.path, name))
                continue
            with (path / name).open("xb") as file, closing(_part(plan, name)) as chunks:  # type: ignore[type-var]
                for chunk in chunks:
                    file.write(chunk)
                    done += len(chunk)
                    announce(Progress(min(done, total), total))
    except OSError as error:
        raise Fault(
            "target-space", f"cannot lay out the dump in {scratch}: {error.strerror}",
            hint="name a directory with room with --scratch DIR; it is removed afterwards",
        ) from error  # fmt: skip
    return str(path)


def _part(plan: LoadPlan, name: str) -> Chunks:
    content, request = plan.source.content, plan.request
    with closing(content.read(name)) as chunks:  # type: ignore[type-var]  # all of them are generators
        if name == TOC and request.changes_archive:
            yield changed_toc(Reader(chunks).read, content.shown, request.changed)
        else:
            yield from chunks
