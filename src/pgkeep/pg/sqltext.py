"""SQL as text, as far as pg_dump and pg_dumpall write it: statements cut apart, names quoted and read.

The lexical rules are those of scan.l with standard_conforming_strings on, which every dump sets in its head: '...',
E'...', "...", $tag$...$tag$, -- and nested /* */.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<meta>^\\(?:(?:un)?restrict\ [A-Za-z0-9]+|connect\ .*?)$)
    | (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
    | (?P<number>\d[\w.]*)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<end>;)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*\Z")
_COMMENT_ENDS: Final = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is word, quoted, string, escaped, dollar, number, end, other or open (a quote that never ends)."""

    kind: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its semicolon; the tokens' starts count in `text`."""

    text: str
    tokens: tuple[Token, ...]

    def word(self, at: int) -> str:
        """The key word at that place, in capitals; '' for anything else."""
        return self.tokens[at].text.upper() if at < len(self.tokens) and self.tokens[at].kind == "word" else ""

    def words(self, count: int) -> tuple[str, ...]:
        return tuple(self.word(at) for at in range(count))

    def find(self, keyword: str) -> int:
        """Where this key word stands first; -1 without it."""
        return next((at for at in range(len(self.tokens)) if self.word(at) == keyword), -1)

    def replaced(self, at: int, text: str) -> str:
        """The statement with another text in place of the token at `at`."""
        token = self.tokens[at]
        return self.text[: token.start] + text + self.text[token.start + len(token.text) :]


def tokens(text: str) -> Iterator[Token]:
    """Everything but blanks and comments."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None  # `other` matches anything
        kind, start, at = match.lastgroup or "other", at, match.end()
        if kind == "block":
            at = _end_of_comment(text, at)
            continue
        if kind == "dollar":
            end = text.find(match.group(), at)
            if end < 0:
                yield Token("open", text[start:], start)
                return
            at = end + len(match.group())
        elif kind == "other" and match.group() in "'\"":
            yield Token("open", text[start:], start)
            return
        if kind not in {"space", "comment", "meta"}:
            yield Token(kind, text[start:at], start)


def _end_of_comment(text: str, at: int) -> int:
    depth = 1
    for match in _COMMENT_ENDS.finditer(text, at):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def statements(text: str) -> list[Statement]:
    """The statements of a script of pg_dump or pg_dumpall; psql's own lines are left out."""
    found: list[Statement] = []
    present: list[Token] = []
    for token in (*tokens(text), Token("end", ";", len(text))):
        if token.kind != "end":
            present.append(token)
        elif present:
            start = present[0].start
            moved = tuple(Token(one.kind, one.text, one.start - start) for one in present)
            found.append(Statement(text[start : token.start].rstrip(), moved))
            present = []
    return found


def name_of(token: Token) -> str:
    """The name that a word or a quoted name stands for."""
    return token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text.lower()


def quoted_name(name: str) -> str:
    """A name as SQL, always in quotes: no list of key words has to be right."""
    return '"' + name.replace('"', '""') + '"'


def shown_name(name: str) -> str:
    """A name for people: quotes where they are needed, and nothing that a terminal would obey."""
    return name if _PLAIN_NAME.match(name) else printable(quoted_name(name))


def printable(text: str) -> str:
    """Without what a terminal would obey, or could not show."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def quoted_text(text: str) -> str:
    """A string literal, whatever standard_conforming_strings says."""
    doubled = text.replace("'", "''")
    return " E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"


def renamed_database(text: str, old: str, new: str) -> list[str]:
    """What pg_dump writes about the database `old` (its settings, comment, privileges), said of `new`.

    That is the name behind a DATABASE of each statement: ALTER DATABASE old SET, ALTER ROLE r IN DATABASE old SET,
    COMMENT ON DATABASE old, GRANT ... ON DATABASE old.  A role may be called "database" too.
    """
    found = []
    for statement in statements(text):
        places = [at for at in range(1, len(statement.tokens)) if statement.word(at - 1) == "DATABASE"]
        at = next((at for at in places if name_of(statement.tokens[at]) == old), 0)
        found.append(statement.replaced(at, quoted_name(new)) if at else statement.text)
    return found
