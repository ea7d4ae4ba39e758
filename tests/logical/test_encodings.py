"""Text of one encoding into a database of another: converted, or checked, or refused; never broken in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.app.dump import DumpTarget
from pgkeep.logical.request import DumpRequest, Format
from pgkeep.pg.dumptoc import read_toc
from tests.cli.conftest import Ran
from tests.clusters import Cluster
from tests.logical.conftest import Ground
from tests.logical.sides import Load, databases
from tests.servers import pg_versions

FORMS: tuple[Format, ...] = ("directory", "custom", "plain")
MADE = "CREATE DATABASE {} ENCODING '{}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
Into = Callable[..., Ran]


@pytest.fixture
def into(production: Ground, away: Cluster, load: Load, tmp_path: Path) -> Into:
    """`into("source", "UTF8", form)`: a database of production into a new one of that encoding, of the same name."""
    numbers = iter(range(1000))

    def call(source: str, encoding: str, form: Format, *, exists: bool = False) -> Ran:
        path = str(tmp_path / f"dump{next(numbers)}")
        production.dump(DumpRequest(name=source, database=source, format=form), DumpTarget(to=path))
        away.sql(f"DROP DATABASE IF EXISTS {source}")
        if exists:
            away.sql(MADE.format(source, encoding))
        return load(away, path, "--into", source, *([] if exists else ["--encoding", encoding]), "--json")

    return call


def warned(done: Ran) -> list[str]:
    return [str(line["text"]) for line in done.lines if line.get("event") == "warning" and line["code"] == "encoding"]


@pg_versions("oldest", "newest")
def test_latin1(production: Ground, away: Cluster, into: Into) -> None:
    """Names and text are converted, also into a database that exists and through every format."""
    production.server.sql(MADE.format("latin", "LATIN1"))
    production.server.sql('CREATE TABLE "größe" (n text)', dbname="latin")
    production.server.sql("INSERT INTO \"größe\" VALUES ('äöü ß'), ('-')", dbname="latin")
    text = "the dump is in LATIN1, the database in UTF8: characters that it lacks end the load"
    for form, exists in zip(FORMS, (False, True, True), strict=True):
        done = into("latin", "UTF8", form, exists=exists)
        assert done.status == 0 and warned(done) == [text], done.out
        assert away.sql('SELECT n FROM "größe" ORDER BY 1', dbname="latin") == [("-",), ("äöü ß",)]


@pytest.mark.pg("18")
def test_names_in_latin1(production: Ground, away: Cluster, load: Load, tmp_path: Path) -> None:
    """They are read as what they are: chosen by name, and known when they are there already."""
    production.server.sql(MADE.format("latin", "LATIN1"))
    production.server.sql('CREATE TABLE "größe" (n text)', dbname="latin")
    production.server.sql("CREATE TABLE other (n text)", dbname="latin")
    path = tmp_path / "d"
    production.dump(DumpRequest(name="latin", database="latin", format="custom"), DumpTarget(to=str(path)))
    with path.open("rb") as file:
        assert "größe" in [entry.tag for entry in read_toc(file.read, "it").entries]
    done = load(away, str(path), "--into", "part", "--encoding", "UTF8", "--table", "größe", "--json")
    assert done.status == 0, done.out
    assert away.sql("SELECT relname FROM pg_class WHERE relkind = 'r' AND oid >= 16384", dbname="part") == [("größe",)]
    again = load(away, str(path), "--into", "part", "--yes", "--json")
    assert again.lines[-1]["error"]["code"] == "load-refused" and "größe already" in str(again.lines[-1])


@pytest.mark.pg("18")
@pytest.mark.parametrize("form", FORMS)
def test_what_the_other_lacks(production: Ground, away: Cluster, into: Into, form: Format) -> None:
    production.server.sql(MADE.format("euro", "UTF8"))
    production.server.sql("CREATE TABLE t AS SELECT '5 €'::text AS n", dbname="euro")
    done = into("euro", "LATIN1", form)
    error = done.lines[-1]["error"]
    assert (done.status, error["code"]) == (1, "load-failed") and "no equivalent in encoding" in error["message"]
    assert "nothing was left in the server" in error["message"] and "euro" not in databases(away)


@pg_versions("oldest", "newest")
def test_no_encoding(production: Ground, away: Cluster, into: Into) -> None:
    """PostgreSQL's COPY does not check such text: it would break a database in UTF8 in silence."""
    production.server.sql(MADE.format("none", "SQL_ASCII"))
    production.server.sql("CREATE TABLE t (n text)", dbname="none")
    production.server.sql("INSERT INTO t VALUES (E'\\xc3\\xa4')", dbname="none")
    for form in FORMS:
        done = into("none", "UTF8", form)
        assert done.status == 0, done.out
        assert warned(done)[0].startswith("the dump says no encoding (SQL_ASCII): its text is taken for UTF8")
        assert away.value("SELECT n FROM t", dbname="none") == "ä"
    production.server.sql("INSERT INTO t VALUES (E'\\xe4\\xff')", dbname="none")
    for form, exists in zip(FORMS, (True, False, True), strict=True):
        done = into("none", "UTF8", form, exists=exists)
        error = done.lines[-1]["error"]
        assert (done.status, error["code"]) == (1, "load-failed"), done.out
        assert 'invalid byte sequence for encoding "UTF8": 0xe4 0xff' in error["message"]
        assert ("none" in databases(away)) is exists
        if exists:
            assert away.value("SELECT count(*) FROM pg_class WHERE relname = 't'", dbname="none") == 0
    done = into("none", "SQL_ASCII", "custom")
    assert (done.status, warned(done)) == (0, [])
    hexes = [("c3a4",), ("e4ff",)]
    assert away.sql("SELECT encode(n::bytea, 'hex') FROM t ORDER BY 1", dbname="none") == hexes
    done = into("none", "LATIN1", "custom")
    assert done.status == 0
    assert away.sql("SELECT encode(convert_to(n, 'LATIN1'), 'hex') FROM t ORDER BY 1", dbname="none") == hexes


@pytest.mark.pg("18")
def test_into_no_encoding(production: Ground, away: Cluster, into: Into) -> None:
    production.server.sql(MADE.format("uni", "UTF8"))
    production.server.sql("CREATE TABLE t AS SELECT 'ä'::text AS n", dbname="uni")
    done = into("uni", "SQL_ASCII", "directory")
    assert done.status == 0
    assert warned(done) == [
        "the database is in SQL_ASCII: it takes the text in UTF8 as it is, and checks nothing from then on"
    ]
    assert away.value("SELECT encode(n::bytea, 'hex') FROM t", dbname="uni") == "c3a4"


@pytest.mark.pg("18")
def test_an_encoding_that_there_is_not(production: Ground, away: Cluster, into: Into) -> None:
    done = into("shop", "KLINGON", "custom")
    assert done.status == 1 and "not a valid encoding name" in done.lines[-1]["error"]["message"]
    assert "shop" not in databases(away)
