"""Session: what one run of the program knows before its verb begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from pgkeep.app.place import Selection
from pgkeep.cli.options import Options
from pgkeep.cli.render.output import Output
from pgkeep.clock import Clock
from pgkeep.config.find import find
from pgkeep.config.load import load
from pgkeep.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything that the program takes from outside: nothing below `main` looks for itself."""

    environment: Mapping[str, str]
    cwd: str
    home: str
    clock: Clock
    stdout: TextIO
    stderr: TextIO


class Session:
    """The surroundings, the global options as far as they are known, and where output goes by them."""

    def __init__(self, around: Surroundings, options: Options) -> None:
        self.around = around
        self.adopt(options)

    def adopt(self, options: Options) -> None:
        """From now on these options count (a verb's own were read)."""
        around = self.around
        self.options = options
        self.out = Output(options, around.clock, around.stdout, around.stderr, around.environment)

    @property
    def selection(self) -> Selection:
        """--cluster and --repo, or PGKEEP_CLUSTER and PGKEEP_REPO."""
        environment = self.around.environment
        return Selection(
            self.options.cluster or environment.get("PGKEEP_CLUSTER") or None,
            self.options.repo or environment.get("PGKEEP_REPO") or None,
        )

    def config_path(self) -> str:
        """Fault `config-missing`."""
        named = self.around.environment.get("PGKEEP_CONFIG")
        return find(self.options.config, named, self.around.cwd, self.around.home)

    def settings(self) -> Settings:
        """Faults `config-missing`, `config-invalid`."""
        return load(self.config_path(), self.around.environment)
