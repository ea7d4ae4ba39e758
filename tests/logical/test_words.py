"""What the configuration and the command line mean together."""

from __future__ import annotations

import pytest

from pgkeep.app.dumpwords import DumpWords, request_for
from pgkeep.config.settings import ClusterSettings, DumpSettings
from pgkeep.errors import Fault
from pgkeep.logical.request import Chosen

SHOP = DumpSettings("shop", jobs=3, compress="zstd:5")
SALES = DumpSettings("sales", database="shop", schemas=("sales",), format="custom")
EVERYTHING = DumpSettings("everything", all=True)


def settings(*dumps: DumpSettings) -> ClusterSettings:
    return ClusterSettings("main", "", dumps=dumps)


def refused(words: DumpWords, *dumps: DumpSettings) -> str:
    with pytest.raises(Fault) as caught:
        request_for(settings(*dumps), words)
    assert caught.value.code == "usage" and caught.value.hint
    return caught.value.message


def test_a_database_belongs_to_the_set_of_its_name() -> None:
    request = request_for(settings(SALES, SHOP), DumpWords(database="shop"))
    assert (request.name, request.database, request.jobs, request.compress) == ("shop", "shop", 3, "zstd:5")
    assert request.chosen.is_whole
    request = request_for(settings(SALES), DumpWords(database="shop"))
    assert (request.name, request.database, request.chosen.is_whole) == ("shop", "shop", True)


def test_a_set_by_its_name() -> None:
    request = request_for(settings(SALES, SHOP), DumpWords(name="sales"))
    assert (request.database, request.chosen.schemas, request.format) == ("shop", ("sales",), "custom")
    assert request_for(settings(SHOP), DumpWords()).name == "shop"
    assert "no set of dumps named 'sale'" in refused(DumpWords(name="sale"), SALES, SHOP)
    assert "several sets of dumps (sales, shop)" in refused(DumpWords(), SALES, SHOP)
    assert "what is to be dumped?" in refused(DumpWords())
    assert request_for(settings(SHOP), DumpWords(database="crm", name="weekly")).name == "weekly"
    assert "is of the database shop" in refused(DumpWords(database="crm", name="sales"), SALES)
    assert "is of the database shop" in refused(DumpWords(every=True, name="sales"), SALES)


def test_a_part_by_the_way_does_not_count_as_a_dump_of_the_database() -> None:
    part = DumpWords(database="shop", chosen=Chosen(tables=("orders",)))
    assert request_for(settings(SHOP), part).name == "shop-part"
    named = DumpWords(database="shop", name="orders", chosen=Chosen(tables=("orders",)))
    assert request_for(settings(SHOP), named).name == "orders"
    without_owners = DumpWords(database="shop", chosen=Chosen(owner=False))
    assert request_for(settings(SHOP), without_owners).name == "shop"


def test_every_database() -> None:
    assert request_for(settings(SHOP, EVERYTHING), DumpWords(every=True)).name == "everything"
    request = request_for(settings(SHOP), DumpWords(every=True))
    assert (request.name, request.database) == ("all", None)
    assert "exclude each other" in refused(DumpWords(every=True, database="shop"))
    assert "takes every database whole" in refused(DumpWords(every=True, chosen=Chosen(schemas=("a",))))


def test_a_format_of_one_process_takes_no_jobs_from_the_set() -> None:
    assert request_for(settings(SHOP), DumpWords(database="shop", format="custom")).jobs is None
    assert request_for(settings(SHOP), DumpWords(database="shop", jobs=7)).jobs == 7
