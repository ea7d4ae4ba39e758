"""`pgkeep prune`."""

from __future__ import annotations

import click

from pgkeep.cli.ask import confirm
from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog
from pgkeep.errors import EXIT_FAILED, EXIT_OK, EXIT_PARTIAL


@click.command(
    "prune",
    cls=Verb,
    short_help="Delete what the policy does not keep.",
    epilog=epilog(
        [
            "pgkeep prune --dry-run          show what stays and why, and what goes",
            "pgkeep prune --yes --quiet      as cron runs it",
            "pgkeep prune --yes --wait       stay until the last byte is deleted",
        ],
        [0, 1, 2, 3, 10, 14, 130],
    ),
)
@click.option("--wait", is_flag=True, help="Stay until condemned packs may be deleted, a lease later.")
@click.option(
    "--timeline",
    type=click.IntRange(1),
    metavar="N",
    help="Which branch is the cluster's own, where several archive at the same time.",
)
@click.pass_obj
def command(session: Session, wait: bool, timeline: int | None) -> int:
    """Delete backups and dumps that no rule of the configuration's line `keep` keeps, and the WAL that nothing needs.

    The plan is shown with the reasons why each of them stays, and you are asked; --yes answers. Without that line
    nothing is ever deleted. The newest backup and the newest dump of each set always stay, and so does what is held,
    in use, or cannot be read.

    They go at once, and so does WAL. Packs that nothing needs any more are condemned, and deleted by the next prune
    after 70 minutes, because a job that runs now may be about to use them.

    Exits 3 when a manifest that cannot be read forbids to delete packs.
    """
    from pgkeep.app.place import open_place
    from pgkeep.app.prune import PruneChoices, plan, prune, zone_of
    from pgkeep.cli.render.pruning import nothing_goes, plan_json, plan_text, question, result_json, result_text
    from pgkeep.cli.restore import local_zone
    from pgkeep.retention.zone import zone_name

    clock, out = session.around.clock, session.out
    place = open_place(session.settings(), session.selection, clock, out.announce)
    choices = PruneChoices(local_zone(session.around.environment), timeline)
    zone = zone_name(zone_of(place, choices.local_zone))
    planned = plan(place, choices, clock, out.announce)
    shown = {"dry_run": session.options.dry_run, "plan": plan_json(planned, zone)}
    if session.options.dry_run or not planned.lets_go:
        out.answer("prune", {**shown, "result": None}, lambda: plan_text(planned, place.cluster.name, zone, out.width))
        return EXIT_OK
    out.tell(lambda: plan_text(planned, place.cluster.name, zone, out.width))
    if not nothing_goes(planned) and not confirm(session, question(planned)):
        out.tell(lambda: "nothing was deleted")
        return EXIT_FAILED
    result = prune(place, choices, planned, clock, out.announce, wait=wait)
    out.done("prune", {**shown, "result": result_json(result)}, lambda: result_text(result, clock.now()))
    return EXIT_OK if result.is_whole else EXIT_PARTIAL
