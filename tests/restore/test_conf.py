"""Configuration text, read as the server reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.restore.conf import ConfigurationFiles, flatten, parse, quote, spell, without
from tests.clusters import Cluster


def values(text: str) -> dict[str, str]:
    return {line.name: line.value for line in parse(text) if line.name}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("port = 5432", "port", "5432"),
        ("port 5432 # comment", "port", "5432"),
        ("port=5432", "port", "5432"),
        ("Log_Directory = 'it''s'", "log_directory", "it's"),
        (r"log_directory = 'a\'b\\c\n\101'", "log_directory", "a'b\\c\nA"),
        ("log_directory='a # no comment' # one", "log_directory", "a # no comment"),
        ("pg_stat_statements.max = 10", "pg_stat_statements.max", "10"),
        ("shared_buffers = 128MB", "shared_buffers", "128MB"),
        ("include_dir 'conf.d'", "include_dir", "conf.d"),
        ("include='x.conf'", "include", "x.conf"),
        ("# port = 5432", "", ""),
        ("", "", ""),
        ("   ", "", ""),
    ],
)
def test_a_line(line: str, name: str, value: str) -> None:
    (found,) = parse(line)
    assert (found.name, found.value) == (name, value)


# What a value may hold: no NUL, and nothing that is not text of a file.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(st.lists(st.tuples(st.from_regex(r"[a-z_]{1,10}", fullmatch=True), texts), max_size=5))
def test_what_is_spelt_is_read_back(settings: list[tuple[str, str]]) -> None:
    assert [(line.name, line.value) for line in parse(spell(settings)) if line.name] == settings


def test_the_server_reads_what_is_quoted(shared_cluster: Cluster) -> None:
    """By its own parser: pg_file_settings shows what a reload would read."""
    awkward = ["plain", "it's", r"back\slash", "new\nline", "tab\t", "# no comment", "%f %p", "ü", "a''b", r"\'", ""]
    path = shared_cluster.datadir / "postgresql.auto.conf"
    before = path.read_text()
    try:
        path.write_text(before + spell((f"awkward.n{number}", text) for number, text in enumerate(awkward)))
        rows = shared_cluster.sql(
            "SELECT name, setting FROM pg_file_settings WHERE name LIKE 'awkward.%' ORDER BY seqno"
        )
        assert [row[1] for row in rows] == awkward
        assert values(path.read_text())["awkward.n3"] == "new\nline"
    finally:
        path.write_text(before)


def test_settings_are_taken_out_whatever_their_form() -> None:
    text = "# keep\nPORT 1\nport='2'\nfoo = 'port = 3'\nrestore_command = 'cp %p' # x"
    assert without(text, frozenset({"port", "restore_command"})) == "# keep\nfoo = 'port = 3'\n"
    assert without("", frozenset()) == ""
    assert without("port = 1", frozenset({"port"})) == ""


def test_includes_are_written_out_in_the_servers_order() -> None:
    files = ConfigurationFiles({
        "/etc/pg/postgresql.conf": "a = 1\ninclude_dir 'conf.d'\ninclude_if_exists 'no'\ninclude 'lost.conf'\nb = 1",
        "/etc/pg/conf.d/20.conf": "a = 3\n",
        "/etc/pg/conf.d/10.conf": "a = 2\ninclude '../more.conf'\n",
        "/etc/pg/conf.d/.hidden.conf": "a = 9\n",
        "/etc/pg/conf.d/readme.txt": "a = 9\n",
        "/etc/pg/more.conf": "c = 'x'",
    })  # fmt: skip
    flat = flatten(files, "/etc/pg/postgresql.conf")
    assert flat.values == {"a": "3", "b": "1", "c": "x"}
    assert values(flat.text) == flat.values
    assert flat.missing == ("/etc/pg/lost.conf",)
    assert flat.includes == ("/etc/pg/conf.d/10.conf", "/etc/pg/more.conf", "/etc/pg/conf.d/20.conf")
    assert not [line for line in parse(flat.text) if line.name.startswith("include")]


def test_files_that_include_each_other_end() -> None:
    files = ConfigurationFiles({"/a.conf": "x = 1\ninclude 'a.conf'\n"})
    assert flatten(files, "/a.conf").values == {"x": "1"}


def test_quote() -> None:
    assert quote("a'b\\c\nd") == r"'a''b\\c\nd'"
