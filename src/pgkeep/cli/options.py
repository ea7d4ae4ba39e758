"""The options that every verb has; they may stand before the verb and after it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import click

from pgkeep.cli import completing


@dataclass(frozen=True, slots=True)
class Options:
    """The global options.  `None` and False mean that an option was not given."""

    config: str | None = None
    cluster: str | None = None
    repo: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_color: bool = False
    dry_run: bool = False
    yes: bool = False

    def over(self, outer: Options) -> Options:
        """These options where given, else the outer ones; -v adds up."""
        return Options(
            self.config or outer.config,
            self.cluster or outer.cluster,
            self.repo or outer.repo,
            self.json or outer.json,
            self.quiet or outer.quiet,
            self.verbose + outer.verbose,
            self.no_color or outer.no_color,
            self.dry_run or outer.dry_run,
            self.yes or outer.yes,
        )


NAMES = tuple(field.name for field in fields(Options))


def parameters(*, hidden: bool) -> list[click.Parameter]:
    """The options for click; shown in the help of `pgkeep` itself, and hidden in that of the verbs."""

    def flag(*names: str, text: str) -> click.Option:
        return click.Option(names, is_flag=True, help=text, hidden=hidden)

    return [
        click.Option(
            ["--config"],
            metavar="FILE",
            help="The configuration file.",
            hidden=hidden,
            shell_complete=completing.files,
        ),
        click.Option(
            ["--cluster"],
            metavar="NAME",
            help="Which [cluster.NAME] of the file.",
            hidden=hidden,
            shell_complete=completing.clusters,
        ),
        click.Option(["--repo"], metavar="NAME", help="Which repository of the file.", hidden=hidden),
        flag("--json", text="JSON lines on stdout (docs/json.md)."),
        flag("--quiet", text="No progress; only answers, warnings and errors."),
        click.Option(["-v", "--verbose"], count=True, help="Say more; with an error, where it arose.", hidden=hidden),
        flag("--no-color", text="No colours (NO_COLOR does the same)."),
        flag("--dry-run", text="Show what would be done, and do nothing."),
        flag("--yes", text="Answer every question with yes."),
    ]


def taken_from(params: dict[str, object]) -> Options:
    """Take the global options out of click's parameters."""
    return Options(**{name: params.pop(name) for name in NAMES})  # type: ignore[arg-type]
