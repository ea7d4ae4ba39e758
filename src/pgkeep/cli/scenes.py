"""The scenes of `pgkeep demo` in their order; what they do is in `app.demo`, how they look in `render.story`."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pgkeep.app.demo import (
    BATCH_ROWS,
    Fingerprint,
    Moment,
    Shop,
    Stage,
    build_stage,
    production,
    restored_server,
    result_of,
)
from pgkeep.cli.render.story import Story
from pgkeep.cli.render.times import json_time
from pgkeep.cli.session import Session
from pgkeep.errors import EXIT_OK, EXIT_VERIFY, Fault
from pgkeep.pg.programs import Output
from pgkeep.restore.moment import show_moment
from pgkeep.values.quantity import show_duration

BATCHES = 3


class Play:
    """One performance; servers end with `stack`."""

    def __init__(self, session: Session, story: Story, home: Path, stack: ExitStack, *, keep: bool) -> None:
        self._session = session
        self._story = story
        self._home = home
        self._stack = stack
        self._keep = keep
        self._clock = session.around.clock

    def run(self) -> int:
        """The exit status: done, or verification failed."""
        self._story.title(f"An accident and its recovery, on a throwaway server in {self._home}")
        shop, stage = self._a_shop()
        self._protected(shop, stage)
        expected, moment = self._business(shop)
        self._accident(shop)
        found = self._recovery(stage, moment)
        return self.end(expected, found, moment)

    def _a_shop(self) -> tuple[Shop, Stage]:
        with self._story.scene("server", "A server with an orders table"):
            stage = build_stage(self._home)
            server = self._stack.enter_context(production(stage))
            self._story.tell(f"PostgreSQL {stage.programs.version} on {server.datadir}, as {stage.account.name}")
            self._story.command(f"pgkeep init --repository {stage.repository}")
            connection = ("--connection", server.conninfo())
            report = result_of(stage.pgkeep("init", "--repository", str(stage.repository), *connection, "--json"))
            shop = self._stack.enter_context(Shop.open(server, self._clock))
            for one in report["statements"]:
                self._story.said(one["sql"])
            self._story.tell("init printed this SQL, and it was run: from now on all WAL goes to the repository")
            shop.settle([one["sql"] for one in report["statements"]])
            orders = shop.open_for_business()
            self._story.tell(f"{orders.rows:,} orders are in the table")
        return shop, stage

    def _protected(self, shop: Shop, stage: Stage) -> None:
        with self._story.scene("backup", "A backup while it runs"):
            self._pgkeep(stage, "backup")

    def _business(self, shop: Shop) -> tuple[Fingerprint, Moment]:
        with self._story.scene("business", "Business goes on; these orders are in no backup, only in the WAL"):
            for number in range(1, BATCHES + 1):
                orders = shop.take_orders()
                self._story.tell(f"batch {number}: {BATCH_ROWS:,} more, now {orders.rows:,} rows, md5 {orders.md5}")
            moment = shop.moment()
        return orders, moment

    def _accident(self, shop: Shop) -> None:
        with self._story.scene("accident", "Friday evening: somebody drops the table"):
            self._story.command('psql -c "DROP TABLE orders"')
            self._story.said("DROP TABLE")
            self._story.command('psql -c "SELECT count(*) FROM orders"')
            self._story.said(f"ERROR:  {shop.lose_the_orders()}")
            shop.archive_everything()

    def _recovery(self, stage: Stage, moment: Moment) -> Fingerprint:
        restored = self._home / "restored"
        arguments = ("restore", str(restored), "--time", show_moment(moment.time))
        with self._story.scene("restore", "Recovery to the moment before, in a new directory; production runs on"):
            self._story.tell(f"the demo wrote down when the table was last whole: {show_moment(moment.time)}")
            self._pgkeep(stage, *arguments, "--dry-run")
            self._pgkeep(stage, *arguments, "--start")
            with restored_server(stage, restored) as session:
                return Shop(session, self._clock).fingerprint()

    def _pgkeep(self, stage: Stage, *arguments: str) -> Output:
        """Run the real program as a user would; its Fault when it fails."""
        self._story.command(shlex.join(["pgkeep", *arguments]))
        output = stage.pgkeep(*arguments)
        said = output.stderr.decode(errors="replace")
        if output.status != EXIT_OK:
            raise Fault("internal", f"pgkeep {arguments[0]} failed in the demo: {said.strip()}")
        self._story.said(output.text())
        return output

    def end(self, expected: Fingerprint, found: Fingerprint, moment: Moment) -> int:
        """Compare, tell, and answer with the exit status."""
        is_same = expected == found
        with self._story.scene("proof", "The proof"):
            self._story.compare([("orders", f"{expected.rows:,}", f"{found.rows:,}"), ("md5", expected.md5, found.md5)])
        seconds = self._clock.monotonic() - self._story.began
        self._story.verdict(
            f"every order is back, in {show_duration(seconds)} from nothing" if is_same else "the tables differ",
            is_good=is_same,
        )
        if self._keep:
            self._story.tell(f"everything is still in {self._home}: pgkeep --config {self._home}/pgkeep.toml list")
        if self._session.options.json:
            fields = self._fields(expected, found, moment, seconds)
            self._session.out.answer("demo", fields, lambda: "")
        return EXIT_OK if is_same else EXIT_VERIFY

    def _fields(self, expected: Fingerprint, found: Fingerprint, moment: Moment, seconds: float) -> dict[str, Any]:
        return {
            "same": expected == found,
            "expected": {"rows": expected.rows, "md5": expected.md5},
            "found": {"rows": found.rows, "md5": found.md5},
            "target_time": json_time(moment.time),
            "scenes": [{"name": name, "seconds": round(took, 3)} for name, took in self._story.scenes],
            "seconds": round(seconds, 3),
        }
