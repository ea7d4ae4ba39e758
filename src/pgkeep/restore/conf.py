"""postgresql.conf as text: read as the server reads it (guc-file.l), written so that it reads it back (pure).

Text is UTF-8 with surrogateescape: any byte may occur in a value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_NAME: Final = r"[A-Za-z_\u0080-\U0010ffff\udc80-\udcff][A-Za-z0-9_$.\u0080-\U0010ffff\udc80-\udcff]*"
_LINE: Final = re.compile(
    rf"\s*(?P<name>{_NAME})(?:\s*=\s*|\s+|(?='))(?:'(?P<quoted>(?:[^'\\\n]|\\.|'')*)'|(?P<plain>[^\s'#=][^\s'#]*))\s*(?:\#.*)?"
)
_ESCAPE: Final = re.compile(r"\\([0-7]{1,3}|.)|''")
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
INCLUDES: Final = frozenset({"include", "include_if_exists", "include_dir"})
MAX_DEPTH: Final = 10  # CONF_FILE_MAX_DEPTH


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its raw text, and name (lower case) and value when it is a setting or an include; '' otherwise."""

    raw: str
    name: str = ""
    value: str = ""


def parse(text: str) -> Iterator[Line]:
    """Every line, in order.  What the server would refuse comes as a line without a name."""
    for raw in text.split("\n"):
        match = _LINE.fullmatch(raw)
        if match is None:
            yield Line(raw)
        else:
            quoted = match["quoted"]
            yield Line(raw, match["name"].lower(), match["plain"] if quoted is None else _unescape(quoted))


def _unescape(quoted: str) -> str:
    """DeescapeQuotedString."""

    def plain(match: re.Match[str]) -> str:
        escape = match[1]
        if escape is None:
            return "'"
        if escape[0] in "01234567":
            return chr(int(escape, 8) & 0xFF)
        return _ESCAPED.get(escape, escape)

    return _ESCAPE.sub(plain, quoted)


def quote(value: str) -> str:
    """A value for a configuration file, in single quotes."""
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def spell(settings: Iterable[tuple[str, str]]) -> str:
    """Lines `name = 'value'`, in order."""
    return "".join(f"{name} = {quote(value)}\n" for name, value in settings)


def without(text: str, names: frozenset[str]) -> str:
    """The text without the settings `names`; comments and all else stay.  Ends in a line break unless empty."""
    kept = [line.raw for line in parse(text) if line.name not in names]
    joined = "\n".join(kept)
    return joined if not joined or joined.endswith("\n") else joined + "\n"


@dataclass(frozen=True, slots=True)
class ConfigurationFiles:
    """Configuration files by their original absolute, normalised path."""

    contents: Mapping[str, str]

    def in_directory(self, directory: str) -> list[str]:
        """What `include_dir` reads, in its order: names that end in .conf and do not begin with a dot."""
        return sorted(
            path
            for path in self.contents
            if os.path.dirname(path) == directory
            and path.endswith(".conf")
            and not os.path.basename(path).startswith(".")
        )


@dataclass(frozen=True, slots=True)
class Flattened:
    """A configuration with its includes written out: text, last value of each setting, includes that were not found."""

    text: str
    values: Mapping[str, str]
    missing: tuple[str, ...]
    includes: tuple[str, ...]
    """Absolute paths of the files that were written out."""


def flatten(files: ConfigurationFiles, main: str) -> Flattened:
    """`main` (absolute path) with every include replaced by what it names; relative ones are relative to their file."""
    values: dict[str, str] = {}
    missing: list[str] = []
    included: list[str] = []
    lines: list[str] = []

    def take(path: str, depth: int) -> None:
        for line in parse(files.contents[path].rstrip("\n")):
            if line.name in INCLUDES:
                expand(line, path, depth)
            else:
                lines.append(line.raw)
                if line.name:
                    values[line.name] = line.value

    def expand(line: Line, path: str, depth: int) -> None:
        wanted = os.path.normpath(os.path.join(os.path.dirname(path), line.value))
        found = _named(files, line.name, wanted)
        if not found and line.name == "include":
            missing.append(wanted)
        lines.append(f"# {line.raw.strip()}" + ("" if found else "  (not in the backup)"))
        for each in found if depth < MAX_DEPTH else ():
            lines.append(f"# from {each}:")
            included.append(each)
            take(each, depth + 1)
            lines.append(f"# end of {each}")

    take(main, 0)
    return Flattened("\n".join(lines) + "\n", values, tuple(missing), tuple(included))


def _named(files: ConfigurationFiles, directive: str, path: str) -> Sequence[str]:
    if directive == "include_dir":
        return files.in_directory(path)
    return [path] if path in files.contents else []
