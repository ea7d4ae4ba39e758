"""Statements of dumps cut apart, and names put into them."""

from __future__ import annotations

import pytest
from tests.clusters import Cluster

from pgkeep.pg.sqltext import name_of, quoted_name, quoted_text, renamed_database, statements, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("a 'x;''y' b; c", ["a 'x;''y' b", "c"]),
        ("a E'x\\';' b; c", ["a E'x\\';' b", "c"]),
        ('a "x;""y" b; c', ['a "x;""y" b', "c"]),
        ("a $$ ; $x$ ; $$ b; c", ["a $$ ; $x$ ; $$ b", "c"]),
        ("a $x$ ; $$ ; $x$ b; c", ["a $x$ ; $$ ; $x$ b", "c"]),
        ("a -- ;\n b; /* ; /* ; */ ; */ c", ["a -- ;\n b", "c"]),
        ("a 10.5::int; b", ["a 10.5::int", "b"]),
        ("\\restrict abc\nSELECT 1;\n\\connect x\nSELECT 2;\n\\unrestrict abc\n", ["SELECT 1", "SELECT 2"]),
        ("a 'never ends; b", ["a 'never ends; b"]),
        ("a $$ never ends; b", ["a $$ never ends; b"]),
        (" -- nothing\n", []),
    ],
)
def test_statements(text: str, expected: list[str]) -> None:
    assert [one.text for one in statements(text)] == expected


def test_names() -> None:
    found = list(tokens('Select "A ""b""" c1'))
    assert [name_of(one) for one in found] == ["select", 'A "b"', "c1"]


@pytest.mark.parametrize("name", ["plain", "select", 'a "quoted" one', "ü;--", "with blank", "Upper"])
@pytest.mark.parametrize("text", ["plain", "it's", "back\\slash", "\\'; DROP TABLE x; --", "$$", "line\nbreak"])
def test_the_server_reads_what_is_quoted(shared_cluster: Cluster, name: str, text: str) -> None:
    for conforming in ("on", "off"):
        with shared_cluster.connect() as connection:
            connection.execute(f"SET standard_conforming_strings = {conforming}".encode())
            cursor = connection.execute(f"SELECT {quoted_text(text)} AS {quoted_name(name)}".encode())
            assert cursor.description is not None
            assert (cursor.description[0].name, cursor.fetchone()) == (name, (text,))


def test_what_is_said_of_a_database_is_said_of_another() -> None:
    script = (
        "ALTER DATABASE \"my db\" SET search_path TO 'DATABASE \"my db\"', 'b';\n"
        "ALTER ROLE database IN DATABASE \"my db\" SET work_mem TO '1MB';\n"
        'COMMENT ON DATABASE "my db" IS \'of DATABASE "my db"; so\';\n'
        'GRANT CONNECT ON DATABASE "my db" TO r;\n'
    )
    assert renamed_database(script, "my db", 'n"w') == [
        'ALTER DATABASE "n""w" SET search_path TO \'DATABASE "my db"\', \'b\'',
        'ALTER ROLE database IN DATABASE "n""w" SET work_mem TO \'1MB\'',
        'COMMENT ON DATABASE "n""w" IS \'of DATABASE "my db"; so\'',
        'GRANT CONNECT ON DATABASE "n""w" TO r',
    ]
    assert renamed_database("ALTER DATABASE other SET x TO 1;", "my db", "new") == ["ALTER DATABASE other SET x TO 1"]
