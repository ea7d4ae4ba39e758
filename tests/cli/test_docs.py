"""The documents that scripts are written by say what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from pgkeep.cli.main import VERBS
from pgkeep.config import keys
from pgkeep.errors import CODES, EXIT_FAILED

DOCS = Path(__file__).parents[2] / "docs"


def test_exit_statuses_are_documented() -> None:
    text = (DOCS / "exit-status.md").read_text()
    rows = {int(number): rest for number, rest in re.findall(r"^\| (\d+) \| (.*)", text, re.MULTILINE)}
    for code, status in CODES.items():
        if status != EXIT_FAILED:
            assert f"`{code}`" in rows[status], code
    documented = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", text))
    assert {code for code in documented if "-" in code} <= set(CODES)


def test_every_key_is_documented() -> None:
    text = (DOCS / "configuration.md").read_text()
    for key in (*keys.REPOSITORY, *keys.CLUSTER):
        assert f"| `{key}` |" in text


def test_links_lead_somewhere() -> None:
    for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_verb_has_its_results_documented() -> None:
    text = (DOCS / "json.md").read_text()
    for verb in VERBS:
        assert verb == "wal" or f"\n### {verb}\n" in text, verb


def test_the_manual_pages_are_current() -> None:
    """`make man` writes them anew."""
    spec = importlib.util.spec_from_file_location("man", DOCS.parent / "scripts/man.py")
    assert spec is not None and spec.loader is not None
    man = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(man)
    made = dict(man.pages())
    assert sorted(made) == sorted(path.name for path in (DOCS / "man").glob("*"))
    for name, text in made.items():
        assert (DOCS / "man" / name).read_text() == text, f"{name} is not what the help says; run: make man"
