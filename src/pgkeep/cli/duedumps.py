"""`pgkeep dump --due`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgkeep.cli.session import Session
from pgkeep.errors import EXIT_OK, Fault


def refuse_beside_due(given: Mapping[str, Any]) -> None:
    """Fault `usage` when anything else says what is to be dumped: the configuration does."""
    beside = [name for name, value in given.items() if value]
    if beside:
        raise Fault(
            "usage",
            "--due makes what the configuration says, and takes neither a database nor another option of dump",
            hint="write it into [cluster.NAME.dumps.NAME], or leave out --due",
        )


def make_due(session: Session) -> int:
    """Dump what is due; the status of the first fault, 0 when there was none and when nothing is due."""
    from pgkeep.app.duedumps import due_sets, dump_due, one_at_a_time
    from pgkeep.app.place import open_place
    from pgkeep.cli.render.duedumps import due_json, due_text, made_json, made_text
    from pgkeep.cli.restore import local_zone

    clock, out, settings = session.around.clock, session.out, session.settings()
    zone = local_zone(session.around.environment)
    place = open_place(settings, session.selection, clock, out.announce)
    if session.options.dry_run:
        due = due_sets(place, zone, clock)
        out.answer("dump", {"dry_run": True, "due": due_json(due), "dumps": []}, lambda: due_text(due))
        return EXIT_OK
    with one_at_a_time(settings.path):
        due = due_sets(place, zone, clock)
        made = list(dump_due(place, due, clock, out.announce))
    if not session.options.json:
        for one in made:
            if one.fault is not None:
                out.complain(one.fault)
    fields = {"dry_run": False, "due": due_json(due), "dumps": made_json(made)}
    out.done("dump", fields, lambda: made_text(due, made))
    return next((one.fault.exit_status for one in made if one.fault is not None), EXIT_OK)
