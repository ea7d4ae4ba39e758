"""Archives that were cut on their way: pg_restore loads some of them in part and reports success; pgkeep does not."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.logical.wholeness import check_tar, checked_tar
from pgkeep.pg.tools import Compressions
from tests.clusters import Cluster
from tests.logical.conftest import fill
from tests.logical.sides import Load, databases, run_client
from tests.logical.test_load_failures import message

pytestmark = pytest.mark.pg("17")
METHODS = ["none", "gzip", "lz4", "zstd"]


@pytest.fixture
def cut_shop(ground: object, shared_cluster: Cluster) -> Cluster:
    fill(shared_cluster, "shop", 20_000)
    return shared_cluster


def rows(server: Cluster, dbname: str) -> int:
    return int(server.value("SELECT count(*) FROM sales.orders", dbname=dbname))


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_a_directory(cut_shop: Cluster, load: Load, tmp_path: Path, method: str, seed: int) -> None:
    """Cut anywhere, nothing is reported as loaded that is not; whole, everything is taken."""
    server, archive = cut_shop, tmp_path / "d"
    if method != "none" and method not in Compressions(server.programs):
        pytest.skip(f"this pg_dump has no {method}")
    run_client(server, "pg_dump", "-Fd", f"--compress={method}", "-f", str(archive), "shop")
    assert load(server, str(archive), "--into", "whole", "--json").status == 0
    assert rows(server, "whole") == 20_000
    largest = max(archive.glob("*.dat*"), key=lambda path: path.stat().st_size)
    size, choose = largest.stat().st_size, random.Random(seed)
    whole = largest.read_bytes()
    before = databases(server)
    for kept in (0, 3, size // 2, choose.randrange(size), size - 1):
        if method == "gzip" and kept < 3:
            continue  # an empty file is an empty gzip file for zlib, and its rows end at once
        largest.write_bytes(whole[:kept])
        said = message(server, load, str(archive), "--into", "x", *(["--jobs", "2"] if kept % 2 else []))
        assert said.startswith(("dump-damaged: ", "load-failed: ")), said
        assert databases(server) == before
    if method == "none":  # between two lines it would be taken for the end
        largest.write_bytes(whole[: whole.index(b"\n", size // 2) + 1])
        assert "it ends too early" in message(server, load, str(archive), "--into", "x")


def test_a_tar_file(cut_shop: Cluster, load: Load, tmp_path: Path, seed: int) -> None:
    server, archive = cut_shop, tmp_path / "shop.tar"
    run_client(server, "pg_dump", "-Ft", "-f", str(archive), "shop")
    assert load(server, str(archive), "--into", "whole", "--json").status == 0
    whole, choose = archive.read_bytes(), random.Random(seed)
    before = databases(server)
    half, packed = tmp_path / "half.tar", tmp_path / "half.tar.gz"
    for kept in (len(whole) // 2, choose.randrange(20_000, len(whole)), len(whole) - 1024):
        half.write_bytes(whole[:kept])
        packed.write_bytes(gzip.compress(whole[:kept], 1))
        for path in (half, packed):
            said = message(server, load, str(path), "--into", "x")
            assert said.startswith("dump-damaged: ") and "before its end mark" in said
    assert databases(server) == before
    server.sql("CREATE DATABASE there TEMPLATE template0")
    assert message(server, load, str(packed), "--into", "there").startswith("dump-damaged: ")
    assert server.value("SELECT count(*) FROM pg_class WHERE relname = 'orders'", dbname="there") == 0


def test_a_tar_file_that_lost_a_member(cut_shop: Cluster, load: Load, tmp_path: Path) -> None:
    server, archive = cut_shop, tmp_path / "shop.tar"
    run_client(server, "pg_dump", "-Ft", "-f", str(archive), "shop")
    less = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=less, mode="w", format=tarfile.USTAR_FORMAT) as new:
        members = old.getmembers()
        lost = max((one for one in members if one.name.endswith(".dat")), key=lambda one: one.size)
        for one in members:
            if one is not lost:
                new.addfile(one, old.extractfile(one))
    archive.write_bytes(less.getvalue())
    said = message(server, load, str(archive), "--into", "x")
    assert said.startswith(("load-failed: ", "dump-damaged: ")) and lost.name in said


def pieces(whole: bytes, step: int) -> Iterator[bytes]:
    return (whole[at : at + step] for at in range(0, len(whole), step))


@pytest.mark.parametrize("step", [1, 7, 511, 512, 100_000])
def test_a_walk_through_a_tar_file(tmp_path: Path, step: int) -> None:
    """In pieces of any size, and from place to place, the same is found."""
    path, raw = tmp_path / "x.tar", io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, size in (("toc.dat", 5), ("a", 512), ("b", 0), ("c", 1000)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    whole = raw.getvalue()
    path.write_bytes(whole)
    check_tar(str(path))
    assert b"".join(map(bytes, checked_tar(pieces(whole, step), "it"))) == whole
    for end in (0, 500, 1024, 3000, 6 * 512 - 1):
        path.write_bytes(whole[:end])
        stream = checked_tar(pieces(whole[:end], step), "it")
        walks: list[Callable[[], object]] = [partial(check_tar, str(path)), partial(list, stream)]
        for walk in walks:
            with pytest.raises(Fault, match="before its end mark") as caught:
                walk()
            assert caught.value.code == "dump-damaged" and caught.value.hint


def test_a_custom_archive(cut_shop: Cluster, load: Load, tmp_path: Path, seed: int) -> None:
    """pg_restore itself notices; the message says whose fault it is."""
    server, archive = cut_shop, tmp_path / "shop.dump"
    run_client(server, "pg_dump", "-Fc", "-f", str(archive), "shop")
    whole, choose = archive.read_bytes(), random.Random(seed)
    for kept in (len(whole) - 1, choose.randrange(len(whole) // 2, len(whole))):
        archive.write_bytes(whole[:kept])
        said = message(server, load, str(archive), "--into", "x", "--jobs", "2")
        assert said.startswith("dump-damaged: ") and "take the archive anew" in said
    assert "x" not in databases(server)


# --- scripts that get out of their transaction


@pytest.mark.parametrize(
    ("script", "is_left"),
    [
        ("CREATE TABLE a ();\nSELECT 1/0;\n", False),
        ("CREATE TABLE a ();\nCOMMIT;\nSELECT 1/0;\n", True),
        ("INSERT INTO known VALUES (1);\nCOMMIT;\nBEGIN;\nSELECT 1/0;\n", True),
        ("SELECT 1;\nROLLBACK;\nCREATE TABLE a ();\nSELECT 1/0;\n", True),
    ],
)
def test_a_script_with_its_own_commit(
    cut_shop: Cluster, load: Load, tmp_path: Path, script: str, is_left: bool
) -> None:
    server, path = cut_shop, tmp_path / "foreign.sql"
    path.write_text(script)
    server.sql("CREATE DATABASE there TEMPLATE template0")
    server.sql("CREATE TABLE known (n int)", dbname="there")
    said = message(server, load, str(path), "--into", "there", "--yes", status=3 if is_left else 1)
    number = script[: script.index("1/0")].count("\n") + 1
    assert f"line {number}: ERROR:  division by zero" in said and "pgkeep-" not in said
    assert ("the script ended its own transaction" in said) is is_left
    assert said.startswith("load-in-part: " if is_left else "load-failed: ")
    assert ("nothing was left" in said) is not is_left


def test_names_that_a_terminal_would_obey(cut_shop: Cluster, load: Load, tmp_path: Path) -> None:
    server, archive = cut_shop, tmp_path / "d"
    server.sql('CREATE TABLE "\x1b[31mred\nline" (n int)', dbname="shop")
    run_client(server, "pg_dump", "-Fc", "-f", str(archive), "shop")
    assert load(server, str(archive), "--into", "again").status == 0
    for words in ([], ["--data-only", "--dry-run"], ["--clean", "--dry-run"]):
        done = load(server, str(archive), "--into", "again", "--yes", *words)
        assert "\x1b[31m" not in done.out + done.err and "\\x1b[31mred\\nline" in done.out + done.err
