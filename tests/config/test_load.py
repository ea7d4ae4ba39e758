"""What the file may say, what it means, and how a mistake is placed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.config.generate import configuration
from pgkeep.config.load import line_of, load, parse
from pgkeep.config.settings import ClusterSettings, DumpSettings, RepositorySettings
from pgkeep.errors import Fault
from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.schedule import parse_schedule

SMALLEST = """\
[repository]
url = "file:///mnt/nas/pg"

[cluster.main]
connection = "host=/run/postgresql user=pgkeep"
keep = { daily = 7, weekly = 4, monthly = 12, wal = "7d" }
"""


def complaint(text: str, overrides: dict[str, str] | None = None) -> Fault:
    with pytest.raises(Fault) as caught:
        parse(text, "/etc/pgkeep/pgkeep.toml", overrides)
    assert caught.value.exit_status == 2
    assert caught.value.code == "config-invalid"
    return caught.value


def test_the_smallest_file_of_the_product() -> None:
    settings = parse(SMALLEST, "/p.toml")
    assert settings.repositories == (RepositorySettings("main", "file:///mnt/nas/pg"),)
    keep = KeepPolicy(daily=7, weekly=4, monthly=12, wal=timedelta(days=7))
    assert settings.clusters == (ClusterSettings("main", "host=/run/postgresql user=pgkeep", keep=keep),)


def test_every_key_is_read() -> None:
    settings = parse(
        """
        [[repository]]
        name = "nas"
        url = "/mnt/nas"
        [[repository]]
        name = "disk"
        url = "/disk"
        [cluster."two words"]
        connection = ""
        compression-level = 9
        processes = 2
        checkpoint = "spread"
        archive-timeout = "90s"
        bindir = "/opt/pg/bin"
        timezone = "Australia/Lord_Howe"
        keep = { daily = 1, weekly = 2, monthly = 3, yearly = 4, last = 5, wal = "12h" }
        """,
        "/p.toml",
    )
    assert [known.name for known in settings.repositories] == ["nas", "disk"]
    assert settings.cluster() == ClusterSettings(
        "two words",
        "",
        compression_level=9,
        processes=2,
        checkpoint="spread",
        archive_timeout=timedelta(seconds=90),
        bindir="/opt/pg/bin",
        timezone="Australia/Lord_Howe",
        keep=KeepPolicy(daily=1, weekly=2, monthly=3, yearly=4, last=5, wal=timedelta(hours=12)),
    )


@pytest.mark.parametrize(
    ("line", "wrong", "place", "hint"),
    [
        ('url = "file:///mnt/nas/pg"', 'ulr = "file:///x"', "line 2: [repository] unknown key 'ulr'", "mean 'url'"),
        ("[repository]", "[repositry]", "line 1: unknown key 'repositry'", "mean 'repository'"),
        ("keep =", "kep =", "line 6: [cluster.main] unknown key 'kep'", "mean 'keep'"),
        ("keep =", "compression_level = 3\nkeep =", "line 6: [cluster.main] unknown key", "mean 'compression-level'"),
        ("keep =", "connection_file = 'x'\nkeep =", "'connection_file' is not in this version", "leave it out"),
        ("keep =", "[notify]\nkeep =", "line 6: 'notify' is not in this version", "leave it out"),
        ("keep =", "[cluster.main.schedule]\nkeep =", "line 6: [cluster.main] 'schedule' is not in this", "leave it"),
        ('"7d"', '"7 fortnights"', "line 6: [cluster.main] keep: wal: not a duration", ""),
        ('"7d"', f'"{"9" * 400}d"', "line 6: [cluster.main] keep:", ""),
        ('"7d"', '"-7d"', "line 6: [cluster.main] keep: wal: not a duration", ""),
        ("daily = 7", "daily = -1", "keep: daily: expected a whole number from 0", ""),
        ("daily = 7", "daily = true", "keep: daily: expected a whole number from 0", ""),
        ("daily = 7, weekly = 4, monthly = 12", "daily = 0", "keep: keeps no backup: expected at least one of", ""),
        ("daily = 7, weekly = 4, monthly = 12, ", "", "(without the key keep, nothing is ever deleted)", ""),
        ("keep =", 'timezone = "Europe/Bonn"\nkeep =', "line 6: [cluster.main] timezone: expected the name of", ""),
        ("keep =", 'timezone = "Europe"\nkeep =', "timezone: expected the name of a time zone", ""),
        ("keep =", 'timezone = "../etc/passwd"\nkeep =', "timezone: expected the name of a time zone", ""),
        ("keep =", "timezone = 3\nkeep =", "timezone: expected text in quotes", ""),
        ("daily", "dayly", "keep: unknown key 'dayly'", ""),
        ("keep =", 'processes = "many"\nkeep =', "line 6: [cluster.main] processes: expected a whole number", ""),
        ("keep =", 'checkpoint = "slow"\nkeep =', "checkpoint: expected 'fast' or 'spread', found 'slow'", ""),
        ("connection =", "# connection =", "line 4: [cluster.main] lacks the key 'connection'", "add: connection"),
        ("keep =", 'bindir = "bin"\nkeep =', "bindir: expected an absolute path, found 'bin'", ""),
        ("[cluster.main]", "[cluster]", "line 5: [cluster] expected a table for the cluster", "[cluster.main]"),
        ('"file:///mnt/nas/pg"', '" "', "line 2: [repository] url: expected text, found an empty string", ""),
        ('"file:///mnt/nas/pg"', "", "not TOML: invalid value (at line 2", ""),
        ("[repository]", "[[repository]]\nurl='a'\n[[repository]]", "lacks the key 'name'", ""),
        ("daily = 7", f"daily = {'9' * 5000}", "not TOML", ""),
        ("daily = 7", f"daily = {'[' * 5000}", "not TOML", ""),
    ],
)  # fmt: skip
def test_a_mistake_is_placed(line: str, wrong: str, place: str, hint: str) -> None:
    assert line in SMALLEST
    fault = complaint(SMALLEST.replace(line, wrong))
    assert fault.message.startswith("/etc/pgkeep/pgkeep.toml")
    assert place in fault.message
    assert hint in fault.hint


def test_two_repositories_of_one_name() -> None:
    entry = '[[repository]]\nname = "a"\nurl = "/x"\n'
    assert "two repositories are named 'a'" in complaint(entry * 2 + SMALLEST[SMALLEST.index("[cluster") :]).message


@pytest.mark.parametrize("text", ["", "[repository]\nurl='/x'", "[cluster.main]\nconnection=''", "repository = 3"])
def test_a_table_is_missing(text: str) -> None:
    assert "has no [" in complaint(text).message


def test_the_environment_overrides() -> None:
    overrides = {
        "PGKEEP_REPOSITORY_URL": "/elsewhere",
        "PGKEEP_CLUSTER_MAIN_CONNECTION": "port=1",
        "PGKEEP_CLUSTER_PROCESSES": "5",
        "PGKEEP_CONFIG": "/not/for/this/room",
        "PGPORT": "5433",
    }
    settings = parse(SMALLEST, "/p.toml", overrides)
    assert settings.repository().url == "/elsewhere"
    assert (settings.cluster().connection, settings.cluster().processes) == ("port=1", 5)


def test_the_environment_addresses_one_of_several() -> None:
    text = SMALLEST + '[cluster.second-one]\nconnection = "port=2"\n'
    settings = parse(text, "/p.toml", {"PGKEEP_CLUSTER_SECOND_ONE_CONNECTION": "port=3"})
    assert settings.cluster("second-one").connection == "port=3"
    assert settings.cluster("main").connection == "host=/run/postgresql user=pgkeep"
    assert "overrides nothing" in complaint(text, {"PGKEEP_CLUSTER_CONNECTION": "port=3"}).message


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PGKEEP_REPOSITORY_ULR", "/x", "overrides nothing"),
        ("PGKEEP_CLUSTER_MAIN_PROCESSES", "none", "PGKEEP_CLUSTER_MAIN_PROCESSES: expected a whole number"),
        ("PGKEEP_CLUSTER_MAIN_PROCESSES", "9" * 6000, "expected a whole number"),
        ("PGKEEP_REPOSITORY_URL", "", "empty string"),
    ],
)
def test_a_mistake_in_the_environment(variable: str, value: str, expected: str) -> None:
    assert expected in complaint(SMALLEST, {variable: value}).message


def test_several_of_a_kind_need_a_name() -> None:
    settings = parse(SMALLEST + '[cluster.other]\nconnection = ""\n', "/p.toml")
    assert settings.cluster("other").name == "other"
    for name, expected in ((None, "main, other"), ("mian", "has no cluster named 'mian'")):
        with pytest.raises(Fault, match=expected) as caught:
            settings.cluster(name)
        assert caught.value.code == "usage"


def test_a_password_is_not_shown() -> None:
    settings = parse(SMALLEST.replace("user=pgkeep", "password=swordfish"), "/p.toml")
    assert "swordfish" in settings.cluster().connection
    assert "swordfish" not in repr(settings)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="no such file") as caught:
        load(str(tmp_path / "absent.toml"))
    assert caught.value.code == "config-missing"
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(Fault, match="not UTF-8 at byte 2"):
        load(str(tmp_path / "latin.toml"))
    with pytest.raises(Fault, match="directory"):
        load(str(tmp_path))


@given(
    url=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
    connection=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
def test_a_generated_file_is_read_back(url: str, name: str, connection: str) -> None:
    settings = parse(configuration(url, name, connection), "/p.toml")
    assert settings.repository().url == url
    assert (settings.cluster().name, settings.cluster().connection) == (name, connection)
    assert settings.cluster().keep == KeepPolicy(daily=7, weekly=4, monthly=12, wal=timedelta(days=7))


def test_the_generated_file_has_six_lines_that_count() -> None:
    lines = configuration("/x", "main", "").splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) == 5
    assert max(map(len, lines)) <= 120


def test_line_of_finds_tables_and_keys() -> None:
    assert line_of(SMALLEST, "cluster.main", "keep") == 6
    assert line_of(SMALLEST, "cluster.main", "") == 4
    assert line_of(SMALLEST, "cluster.main", "absent") == 4
    assert line_of(SMALLEST, "cluster.other", "keep") is None


DUMPS = """\
[cluster.main.dumps.shop]
schedule = "daily 02:30"

[cluster.main.dumps."every thing"]
all = true
exclude-tables = ["log.*"]
no-owner = true
no-acl = true
format = "custom"
compress = "zstd:9"
keep = { daily = 3, last = 2 }

[cluster.main.dumps.parts]
database = "shop"
schemas = ["sales", 'Über "x"']
tables = ["app.orders"]
filter = "/etc/pgkeep/filter"
schema-only = true
jobs = 4
"""


def test_sets_of_dumps() -> None:
    shop, everything, parts = parse(SMALLEST + DUMPS, "/p.toml").cluster().dumps
    assert (shop.name, shop.source, shop.keep, shop.format) == ("shop", "shop", None, "directory")
    assert shop.schedule == parse_schedule("daily 02:30")
    assert everything == DumpSettings(
        "every thing", all=True, exclude_tables=("log.*",), no_owner=True, no_acl=True, format="custom",
        compress="zstd:9", keep=KeepPolicy(daily=3, last=2),
    )  # fmt: skip
    assert everything.source is None
    assert parts == DumpSettings(
        "parts", "shop", schemas=("sales", 'Über "x"'), tables=("app.orders",), filter="/etc/pgkeep/filter",
        schema_only=True, jobs=4,
    )  # fmt: skip
    assert parts.source == "shop"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('schedules = "daily 02:30"', "unknown key 'schedules'"),
        ('schedule = "sometimes"', "schedule: not a schedule: 'sometimes'"),
        ('schedule = "0 0 30 2 *"', "never due"),
        ('keep = { wal = "7d" }', "unknown key 'wal'"),
        ("keep = { daily = 0 }", "keeps no dump"),
        ('schemas = "sales"', "schemas: expected a list"),
        ('tables = [""]', "tables: expected text"),
        ("all = 1", "all: expected true or false"),
        ('format = "tar"', "format: expected"),
        ('format = "custom"\njobs = 2', "jobs: only format"),
        ('all = true\ntables = ["a"]', "tables: all = true takes every database"),
        ('all = true\ndatabase = "a"', "database: all = true"),
        ("schema-only = true\ndata-only = true", "nothing is left"),
        ('filter = "here"', "absolute path"),
    ],
)
def test_what_a_set_of_dumps_cannot_say(line: str, wrong: str) -> None:
    fault = complaint(f"{SMALLEST}[cluster.main.dumps.shop]\n{line}\n")
    assert wrong in fault.message
    assert "[cluster.main.dumps.shop]" in fault.message
    assert ", line " in fault.message


@pytest.mark.parametrize("table", ["dumps = 3", "[cluster.main.dumps]\nall = true", '[cluster.main.dumps.""]'])
def test_dumps_have_names(table: str) -> None:
    complaint(f"{SMALLEST}{table}\n")
