"""A dump in the repository that is one, and what only looks like one though every hash is right."""

from __future__ import annotations

import pytest

from pgkeep.logical.probe import dump_problems
from pgkeep.logical.request import DumpRequest
from pgkeep.repo.dumps import open_dump
from pgkeep.values.ids import DumpId
from tests.logical.conftest import Ground
from tests.repo.dumped import add_dump


def members(ground: Ground, dump: DumpId) -> dict[bytes, bytes]:
    reader = open_dump(ground.cluster, dump)
    return {one.name: b"".join(reader.read(one)) for one in reader.members()}


@pytest.mark.pg("17")
def test_dumps_of_every_format_are_dumps(ground: Ground) -> None:
    ground.server.sql("CREATE DATABASE shop")
    ground.server.sql("CREATE TABLE orders AS SELECT generate_series(1, 100) AS id", dbname="shop")
    made = {}
    for form in ("directory", "custom", "plain"):
        info = ground.dump(DumpRequest(form, "shop", format=form, jobs=1)).info
        assert info is not None
        assert dump_problems(ground.cluster, DumpId(info.dump)) == ()
        made[form] = members(ground, DumpId(info.dump))
    _what_is_none(ground, made["directory"])


def _what_is_none(ground: Ground, whole: dict[bytes, bytes]) -> None:
    """As `add_dump` stores it, at no prefix: a directory that lost a file, one without its toc, and no archive."""
    prefix = next(name for name in whole if name.endswith(b"toc.dat")).removesuffix(b"toc.dat")
    plain = {name.removeprefix(prefix): data for name, data in whole.items()}
    assert dump_problems(ground.cluster, add_dump(ground.cluster, members=plain)) == ()
    data = next(name for name in plain if b".dat" in name and name != b"toc.dat")
    lost = {name: content for name, content in plain.items() if name != data}
    assert "files of data are missing" in dump_problems(ground.cluster, add_dump(ground.cluster, members=lost))[0]
    torn = {**plain, b"toc.dat": plain[b"toc.dat"][:200]}
    assert dump_problems(ground.cluster, add_dump(ground.cluster, members=torn))
    bare = {name: content for name, content in plain.items() if name != b"globals.sql"}
    assert "lacks its roles" in dump_problems(ground.cluster, add_dump(ground.cluster, members=bare))[0]
    headless = {name: content for name, content in plain.items() if name != b"toc.dat"}
    assert (
        "is no dump in directory format" in dump_problems(ground.cluster, add_dump(ground.cluster, members=headless))[0]
    )
