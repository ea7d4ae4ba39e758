"""Verb and Verbs: click commands that take the global options on either side of the verb, and load their file late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from pgkeep.cli.options import parameters, taken_from
from pgkeep.cli.session import Session

EXIT_STATUSES = {
    0: "done",
    1: "failed",
    2: "wrong usage or configuration",
    3: "done in part",
    10: "no such repository or cluster",
    11: "locked",
    12: "key missing",
    13: "the recovery target cannot be reached",
    14: "verification failed",
    20: "PostgreSQL cannot be reached",
    130: "interrupted",
}


def epilog(examples: Sequence[str], statuses: Sequence[int]) -> str:
    """The end of every verb's help: examples and exit statuses (an empty example is a blank line)."""
    shown = [f"{status} {EXIT_STATUSES[status]}" for status in statuses]
    lines = ["\b", "Examples:", *(f"  {example}" for example in examples), "", "Exit status: " + " · ".join(shown)]
    return "\n".join(lines)


class Verb(click.Command):
    """A command whose callback receives the Session (use click.pass_obj)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += parameters(hidden=True)

    def invoke(self, ctx: click.Context) -> Any:
        session: Session = ctx.obj
        session.adopt(taken_from(ctx.params).over(session.options))
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text("Global options (--config, --cluster, --json, --dry-run ...): see pgkeep --help")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The global options are left out of a verb's help, and offered all the same."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            shared = [name for option in parameters(hidden=True) for name in option.opts]
            found += [CompletionItem(name) for name in shared if name.startswith(incomplete) and name not in ctx.args]
        return found


class Verbs(click.Group):
    """A group of verbs, in the order in which people need them; each verb's module is imported when it is called."""

    def __init__(self, *args: Any, modules: Mapping[str, str], is_top: bool = False, **kwargs: Any) -> None:
        """`modules` maps each verb to its module in cli, whose `command` it is, or to 'module:name'."""
        super().__init__(*args, **kwargs)
        self.modules = modules
        self.params += parameters(hidden=not is_top)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.modules]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        module, _, name = self.modules[cmd_name].partition(":")
        command = getattr(import_module(f"pgkeep.cli.{module}"), name or "command")
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        session: Session = ctx.obj
        session.adopt(taken_from(ctx.params).over(session.options))
        return super().invoke(ctx)
