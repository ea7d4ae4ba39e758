"""Tables of contents written again: what is not changed stays byte for byte, of every version and format."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.clusters import Cluster
from tests.pg.test_dumptoc import client, named, read
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.dumptoc import TocEntry
from pgkeep.pg.toccopy import changed_tar_head, changed_toc

__all__ = ["named"]


def same(entry: TocEntry) -> TocEntry:
    return entry


def longer(entry: TocEntry) -> TocEntry:
    """Of another length, with what is neither ASCII nor UTF-8 among it."""
    return replace(entry, owner="größer \udcff" * 30, definition=entry.definition and entry.definition + "-- x")


@pg_versions("all")
def test_what_is_not_changed_stays(shared_cluster: Cluster, named: str, tmp_path: Path) -> None:
    client(shared_cluster, "-Fd", "-f", str(tmp_path / "dir"), named)
    directory = (tmp_path / "dir/toc.dat").read_bytes()
    assert changed_toc(io.BytesIO(directory).read, "it", same) == directory
    piped = client(shared_cluster, "-Fc", named)  # places of data are not known in a pipe
    stream = io.BytesIO(piped)
    head = changed_toc(stream.read, "it", same)
    assert head + stream.read() == piped
    client(shared_cluster, "-Fc", "-f", str(tmp_path / "file"), named)
    assert read(changed_toc((tmp_path / "file").open("rb").read, "it", same)) == read((tmp_path / "file").read_bytes())
    tar = io.BytesIO(client(shared_cluster, "-Ft", named))
    assert read(changed_tar_head(tar.read, "it", same)[512:]).entries


@pg_versions("all")
def test_what_is_changed(shared_cluster: Cluster, named: str, tmp_path: Path) -> None:
    """Read back it says the new words; pg_restore takes it for its own, and the data behind it."""
    for option, head in (("-Fc", changed_toc), ("-Ft", changed_tar_head)):
        stream = io.BytesIO(client(shared_cluster, option, named))
        changed = head(stream.read, "it", longer)
        before = read(stream.getvalue()[512 if option == "-Ft" else 0 :])
        assert read(changed[512 if option == "-Ft" else 0 :]).entries == tuple(map(longer, before.entries))
        listed = subprocess.run(
            [shared_cluster.programs.path("pg_restore"), "--file=-"],
            input=changed + stream.read(), capture_output=True, check=True,
        )  # fmt: skip
        assert listed.stdout.count(b"COPY public.") == sum(one.desc == "TABLE DATA" for one in before.entries)
        assert "größer ".encode() + b"\xff" in listed.stdout


def test_what_is_no_archive() -> None:
    for data in (b"", b"x" * 511, b"x" * 5000):
        with pytest.raises(Fault) as caught:
            changed_tar_head(io.BytesIO(data).read, "it", same)
        assert caught.value.code == "dump-damaged"
