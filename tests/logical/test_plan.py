"""The plan of a dump: what goes together, what is chosen, what fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.logical.patterns import chosen_tables
from pgkeep.logical.plan import (
    DumpPlan,
    Surveyed,
    choose_compression,
    compress_option,
    plan_dump,
    which_databases,
)
from pgkeep.logical.request import Chosen, DumpRequest
from pgkeep.logical.room import Room
from pgkeep.pg.dumpable import DumpableDatabase, DumpServer, TableSize
from pgkeep.pg.programs import Programs
from pgkeep.pg.tools import ToolChoice

MB = 1 << 20
SERVER = DumpServer("17.11", 170011, 7, in_recovery=False, role="app", is_superuser=False, reads_passwords=True)
DATABASE = DumpableDatabase(
    name="shop", size=900 * MB, allows_connections=True, is_invalid=False, may_connect=True, encoding="UTF8",
    provider="c", collate="C", ctype="C", locale="", icu_rules="", has_settings=False,
)  # fmt: skip
TABLES = (
    TableSize("sales", "orders", 400 * MB),
    TableSize("sales", "Lines", 200 * MB),
    TableSize("public", "customers", 100 * MB),
    TableSize("pg_catalog", "pg_largeobject", 50 * MB),
)
REQUEST = DumpRequest(name="shop", database="shop")
ALL = frozenset({"zstd", "lz4", "gzip"})
MEMORY = Room(free=2000 * MB, in_memory=True, may_swap=False)


def tools(major: int = 17) -> ToolChoice:
    return ToolChoice(Programs(Path("/usr/bin"), f"{major}.1", major), "the newest here")


def plan(request: DumpRequest = REQUEST, room: Room = MEMORY, *, to: str | None = None, major: int = 17) -> DumpPlan:
    return plan_dump(
        request, SERVER, [Surveyed(DATABASE, TABLES)], [], tools(major), ALL, to=to, scratch=("/dev/shm", room),
        processors=2,
    )  # fmt: skip


def test_what_lies_in_memory_at_one_time() -> None:
    made = plan()
    assert (made.jobs, made.databases[0].tables, made.databases[0].chosen) == (2, 3, 750 * MB)
    assert made.scratch is not None and made.scratch.expected == 32 * MB  # files are emptied while they grow
    small = plan(replace(REQUEST, chosen=Chosen(tables=("absent",)), jobs=3))
    assert small.scratch is not None and small.scratch.expected == 0
    assert plan(replace(REQUEST, format="custom")).scratch is None
    assert plan(to="/srv/shop").scratch is None
    schema = plan(replace(REQUEST, chosen=Chosen(part="schema")))
    assert schema.scratch is not None and schema.scratch.expected == 0


def test_a_scratch_directory_that_is_too_small_is_refused_before_anything_is_started() -> None:
    with pytest.raises(Fault, match=r"has 34 MB free .* about 32 MB are expected") as caught:
        plan(room=replace(MEMORY, free=34 * MB))
    assert caught.value.code == "target-space"
    assert all(word in caught.value.hint for word in ("--format custom", "--jobs", "--scratch"))
    assert plan(replace(REQUEST, jobs=1), replace(MEMORY, free=34 * MB)).jobs == 1


def test_what_should_be_known_before() -> None:
    def codes(made: DumpPlan) -> set[str]:
        return {warning.code for warning in made.warnings}

    assert codes(plan()) == set()
    assert codes(plan(room=replace(MEMORY, may_swap=True))) == {"scratch-may-swap"}
    assert codes(plan(room=replace(MEMORY, in_memory=False))) == {"scratch-on-disk"}
    assert codes(plan(replace(REQUEST, inserts=True))) == {"inserts"}
    assert codes(plan(replace(REQUEST, chosen=Chosen(owner=False)))) == {"owners-in-archive"}
    assert codes(plan(replace(REQUEST, format="plain", chosen=Chosen(owner=False)))) == set()


def test_what_does_not_go_together() -> None:
    with pytest.raises(Fault, match="--jobs 4 needs directory format"):
        plan(replace(REQUEST, format="custom", jobs=4))
    with pytest.raises(Fault, match="--filter needs pg_dump 17") as caught:
        plan(replace(REQUEST, chosen=Chosen(filter="/f")), major=16)
    assert caught.value.code == "postgres-version"


def test_the_compression() -> None:
    def choose(compress: str | None, methods: frozenset[str], *, into: bool = True, form: str = "directory") -> str:
        request = replace(REQUEST, compress=compress, format=form)  # type: ignore[arg-type]
        return choose_compression(request, tools(), methods, into_repository=into)

    gzip = frozenset({"gzip"})
    assert choose(None, ALL) == "zstd"
    assert choose(None, gzip) == "none"  # the repository's own zstd is quicker and smaller than gzip
    assert choose(None, gzip, into=False) == "gzip"
    assert choose(None, gzip | {"lz4"}, into=False) == "lz4"
    assert choose(None, ALL, form="plain") == "none"
    assert (choose("zstd:7", ALL), choose("6", gzip), choose("0", gzip)) == ("zstd:7", "gzip:6", "none")
    with pytest.raises(Fault, match="cannot compress with 'zstd'"):
        choose("zstd:7", gzip)
    assert compress_option("zstd:7", 16) == "--compress=zstd:7"
    assert [compress_option(one, 15) for one in ("none", "gzip", "gzip:9", "gzip:level=1")] == [
        "--compress=0", "--compress=6", "--compress=9", "--compress=1",
    ]  # fmt: skip


def test_patterns_choose_as_pg_dump_does() -> None:
    def names(chosen: Chosen) -> list[str]:
        return [table.name for table in chosen_tables(chosen, TABLES)]

    assert names(Chosen()) == ["orders", "Lines", "customers", "pg_largeobject"]
    assert names(Chosen(schemas=("SALES",))) == ["orders", "Lines"]
    assert names(Chosen(tables=("sales.*",), exclude_tables=('"Lines"',))) == ["orders"]
    assert names(Chosen(tables=("o*", "custom?rs"))) == ["orders", "customers"]
    assert names(Chosen(tables=("lines",))) == []
    assert names(Chosen(exclude_schemas=("s*",))) == ["customers", "pg_largeobject"]
    assert names(Chosen(exclude_table_data=("sales.orders",))) == ["Lines", "customers", "pg_largeobject"]
    assert names(Chosen(tables=("(sales",))) == ["orders", "Lines", "customers"]  # what is no pattern chooses all
    assert "orders" in names(Chosen(exclude_tables=("(orders",)))  # and excludes nothing


def test_which_databases_are_taken() -> None:
    def named(name: str, **other: bool) -> DumpableDatabase:
        return replace(DATABASE, name=name, **other)  # type: ignore[arg-type]

    known = [
        named("postgres"), named("template1"), named("template0", allows_connections=False), named("shop"),
        named("dropped", is_invalid=True), named("mail"),
    ]  # fmt: skip
    chosen, skipped = which_databases(known, None, frozenset({"postgres"}))
    assert [one.name for one in chosen] == ["postgres", "shop", "mail"]
    assert {one.name for one in skipped} == {"template0", "dropped", "template1"}
    assert which_databases(known, "template1", frozenset()) == ([known[1]], [])
    for wanted in ("template0", "dropped", "absent"):
        with pytest.raises(Fault) as caught:
            which_databases(known, wanted, frozenset())
        assert caught.value.code == "database-unknown"
    with pytest.raises(Fault, match="may not connect to the database secret") as caught:
        which_databases([*known, named("secret", may_connect=False)], None, frozenset())
    assert caught.value.code == "postgres-rights"
