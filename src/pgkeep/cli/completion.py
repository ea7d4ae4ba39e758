"""`pgkeep completion`: the script that teaches a shell pgkeep's verbs, options and backups."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog

VARIABLE: Final = "_PGKEEP_COMPLETE"
"""What click's scripts set when they ask pgkeep itself."""
INSTALLED_AS: Final = {
    "bash": "pgkeep completion bash > ~/.local/share/bash-completion/completions/pgkeep",
    "zsh": "pgkeep completion zsh > ~/.zfunc/_pgkeep       (with ~/.zfunc in fpath, before compinit)",
    "fish": "pgkeep completion fish > ~/.config/fish/completions/pgkeep.fish",
}


@click.command(
    "completion",
    cls=Verb,
    short_help="Teach your shell pgkeep's words.",
    epilog=epilog([*INSTALLED_AS.values(), "source <(pgkeep completion bash)       for this shell alone"], [0, 2]),
)
@click.argument("shell", type=click.Choice(list(INSTALLED_AS)))
@click.pass_obj
def command(session: Session, shell: str) -> None:
    """Print the completion script for SHELL: verbs, options, their values, clusters and backups."""
    from pgkeep.cli.main import pgkeep

    kind = get_completion_class(shell)
    assert kind is not None, "click has the shells that the argument offers"
    script = kind(pgkeep, {}, "pgkeep", VARIABLE).source()
    comment = f"# pgkeep {shell} completion; to install it: {INSTALLED_AS[shell]}"
    # A zsh function file must begin with its #compdef line.
    text = f"{script.strip()}\n{comment}" if shell == "zsh" else f"{comment}\n{script.strip()}"
    session.out.answer("completion", {"shell": shell, "script": text}, lambda: text)
