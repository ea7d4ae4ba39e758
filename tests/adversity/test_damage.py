"""A damaged, incomplete, newer or hostile repository: what is sound is restored, what is not is never believed."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from pgkeep.format.manifest import Entry
from pgkeep.format.manifestcodec import whole_manifest
from pgkeep.format.record import decode_rows, encode_rows
from pgkeep.format.section import SectionType, open_section
from pgkeep.pg.account import give
from pgkeep.restore.mark import is_unfinished
from tests.adversity.conftest import Past, refused, rows, started
from tests.format.forge import reseal
from tests.keeping import Kept

_SPOOL = re.compile(rb"pgkeep\.spool\.[0-9a-f]+")


def _objects(kept: Kept) -> list[Path]:
    return sorted(path for path in kept.repository.rglob("*") if path.is_file() and not path.name.startswith("."))


def _tree(directory: Path) -> dict[str, str]:
    """A digest of every file, tablespaces among them; the spool's name is another one at every restore."""
    spaces = Path(f"{directory}-tablespaces")
    found = [path for root in (directory, spaces) for path in root.rglob("*") if path.is_file()]
    contents = {os.path.relpath(path, directory): path.read_bytes() for path in found}
    return {path: hashlib.sha256(_SPOOL.sub(b"", content)).hexdigest() for path, content in contents.items()}


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(f"{directory}-tablespaces", ignore_errors=True)


def _rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


def test_flipped_bytes(past: Past, aside: Kept, seed: int) -> None:
    _flip_and_restore(aside, times=3, seed=seed)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_many_flipped_bytes(past: Past, aside: Kept, seed: int) -> None:
    _flip_and_restore(aside, times=200, seed=seed)


def test_a_damaged_claim(past: Past, aside: Kept) -> None:
    """Nobody can archive; verify says so, and what push says is the way out."""
    (claim,) = aside.repository.glob("*/wal/*/*/claim")
    segment = aside.wal()[-1]
    server = past.kept.cluster.datadir
    assert _in(server, aside, "wal", "get", segment.name, str(aside.home / segment.name)).returncode == 0
    segment.unlink()
    _rewrite(claim, _flipped(claim.read_bytes(), 600))
    assert "claim" in aside.result("verify", status=14)["wal_problems"][0]
    push = ("wal", "push", str(aside.home / segment.name))
    done = _in(server, aside, *push)
    assert done.returncode == 14
    named = done.stderr.split("remove ", 1)[1].split(" ", 1)[0]
    (aside.repository / named).unlink()
    assert _in(server, aside, *push).returncode == 0
    assert aside.result("verify")["sound"] is True


def _flip_and_restore(kept: Kept, *, times: int, seed: int) -> None:
    """Anywhere in anything: verify finds it, and a restore refuses it or brings exactly what it brought before."""
    chance = random.Random(seed)
    target = kept.home / "restored"
    # An older backup would bring the same, but from other files; the port is written into the configuration.
    restore = ("restore", str(target), "--backup", kept.backups()[-1], "--port", "54321")
    kept.run(*restore)
    sound = _tree(target)
    _remove(target)
    kinds = _kinds(kept)
    for _ in range(times):
        path = chance.choice(kinds[chance.choice(sorted(kinds))])
        whole = path.read_bytes()
        at = chance.randrange(len(whole))
        _rewrite(path, whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :])
        said = f"byte {at} of {path.relative_to(kept.repository)}"
        # An index of WAL is a note that can be made again: verify leaves it aside, and it must not cost a restore.
        is_note = "windex" in path.parts
        assert kept.run("verify", check=False).returncode == (0 if is_note else 14), said
        done = kept.run(*restore, check=False)
        if done.returncode == 0 or is_note:
            assert _tree(target) == sound, said
        else:
            assert done.returncode in (13, 14), (said, done.stderr)
            assert not target.exists() or is_unfinished(str(target)), said
            assert not (target / "global/pg_control").exists(), said
        _remove(target)
        _rewrite(path, whole)
    assert kept.result("verify")["sound"] is True


def _kinds(kept: Kept) -> dict[str, list[Path]]:
    """Objects by what they are: a pack is not to be drawn more rarely than a manifest."""
    kinds: dict[str, list[Path]] = {}
    for path in _objects(kept):
        parts = path.relative_to(kept.repository).parts
        kinds.setdefault(parts[1] if len(parts) > 1 else parts[0], []).append(path)
    assert {"pgkeep", "packs", "backups", "wal", "incarnations"} <= kinds.keys()
    return kinds


def test_a_missing_pack(past: Past, aside: Kept) -> None:
    pack = max(aside.packs(), key=lambda path: (path.stat().st_mtime, path.stat().st_size))
    pack.unlink()
    verified = aside.result("verify", status=14)
    assert [one["sound"] for one in verified["backups"]] == [True, False]
    assert pack.name in verified["backups"][1]["problems"][0]
    target = aside.home / "restored"
    error = aside.json("restore", str(target), status=14)["error"]
    assert pack.name in error["message"] and "--backup" in error["hint"]
    assert not (target / "global/pg_control").exists()
    with started(aside, aside.home / "other", "--backup", past.first, "--latest") as server:
        assert rows(server) == [1, 2, 3]


def test_a_lost_manifest_costs_its_own_backup_alone(past: Past, aside: Kept) -> None:
    """Each backup is whole without the others: the older one and the WAL lead to the same end."""
    (manifest,) = (path for path in aside.repository.glob("*/backups/*") if path.name == past.second)
    data = manifest.read_bytes()
    damaged, newer = ("format-damaged", 14), ("format-unsupported", 1)
    foreign = _checked(data[:16] + bytes(16) + data[32:])
    for content, (code, status) in ((_newer(data), newer), (foreign, damaged), (_flipped(data, 600), damaged)):
        _rewrite(manifest, content)
        listed = aside.result("list")["backups"]
        assert [one["restorable"] for one in listed] == [True, False] and listed[1]["damage"]
        refused(aside, aside.home / "x", "--backup", past.second, code=code, status=status)
        plan = aside.result("restore", str(aside.home / "x"), "--dry-run")["plan"]
        assert plan["backup"]["id"] == past.first
    assert aside.json("verify", status=14)["result"]["sound"] is False
    manifest.unlink()
    with started(aside, aside.home / "restored") as server:
        assert rows(server) == [1, 2, 3]


def test_a_damaged_list_of_paths(past: Past, aside: Kept) -> None:
    """It is read after the choice: refused, before anything is written, with the way to the other backup."""
    (manifest,) = (path for path in aside.repository.glob("*/backups/*") if path.name == past.second)
    data = manifest.read_bytes()
    row = whole_manifest(data, "manifest").directory.of(SectionType.PATHS)[0]
    _rewrite(manifest, _flipped(data, 512 + row.offset + row.stored_length // 2))
    error = refused(aside, aside.home / "x", code="format-damaged", status=14)
    assert "--backup" in error["hint"]


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _checked(data: bytes) -> bytes:
    """An object whose header has the right checksum again (docs/format/header.md)."""
    return data[:480] + hashlib.sha256(data[:480]).digest() + data[512:]


def _newer(data: bytes) -> bytes:
    """The object as format 2 would begin it."""
    return _checked(data[:8] + struct.pack("<H", 2) + data[10:])


def test_a_newer_repository_is_left_alone(past: Past, aside: Kept) -> None:
    """Nothing is read, and above all nothing is written, by rules that this pgkeep cannot know."""
    segment = aside.wal()[-1]
    file = aside.home / segment.name
    get = ("wal", "get", segment.name, str(file))
    server = past.kept.cluster.datadir
    assert _in(server, aside, *get).returncode == 0
    header = aside.repository / "pgkeep"
    whole = header.read_bytes()
    _rewrite(header, _newer(whole))
    before = _objects(aside)
    for argv in (("list",), ("backup",), ("verify",), ("restore", str(aside.home / "x")), ("init",)):
        error = aside.json(*argv, status=1)["error"]
        assert error["code"] == "format-unsupported", argv
        assert "format 2" in error["message"] and "newer" in error["hint"]
    assert _in(server, aside, "wal", "push", str(file)).returncode == 1
    assert _in(server, aside, *get).returncode > 125
    _rewrite(header, whole)
    _rewrite(segment, _newer(segment.read_bytes()))
    assert _in(server, aside, *get).returncode > 125
    assert _objects(aside) == before


def _in(directory: Path, kept: Kept, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a directory, as archive_command does."""
    program = ("sh", "-c", 'cd "$0" && exec "$@"', str(directory), *kept.program)
    return Kept(kept.cluster, kept.home, program).run(*argv, check=False)


def test_a_path_that_leaves_the_target(past: Past, aside: Kept) -> None:
    """A manifest whose every hash is right, made by somebody who wants to write elsewhere."""
    originals = {path: path.read_bytes() for path in aside.repository.glob("*/backups/*")}
    around = _paths(aside)
    for path in (b"../escaped", os.fsencode(aside.home / "escaped"), b"base/../../escaped"):
        for manifest, data in originals.items():
            _rewrite(manifest, _with_path(data, path))
        error = aside.json("restore", str(aside.home / "deep" / "restored"), status=14)["error"]
        assert "would leave the target directory" in error["message"]
        assert _paths(aside) == around


def _paths(kept: Kept) -> list[Path]:
    """Everything around; WAL indexes are notes, which any plan may add."""
    return sorted(path for path in kept.home.rglob("*") if "windex" not in path.parts)


def _with_path(data: bytes, path: bytes) -> bytes:
    """The manifest with one more file, of the content of PG_VERSION, in the order that is asked for."""
    reader = whole_manifest(data, "manifest")
    row = reader.directory.of(SectionType.PATHS)[0]
    content = open_section(row, data[512 + row.offset : 512 + row.offset + row.stored_length], "manifest")
    entries = decode_rows(content, Entry, "manifest")
    version = next(entry for entry in entries if entry.path == b"PG_VERSION")
    changed = sorted([*entries, replace(version, path=path)], key=lambda entry: entry.path)
    return reseal(data, SectionType.PATHS, b"".join(encode_rows(changed)))


def test_a_repository_that_belongs_to_another_cluster(past: Past, aside: Kept) -> None:
    """Its objects under this cluster's names: a mix-up of mounts, or worse."""
    control = next(aside.repository.glob("*/incarnations/*"))
    text = aside.config.read_text()
    aside.config.write_text(text.replace("[cluster.main]", "[cluster.other]"))
    assert aside.json("backup", status=10)["error"]["code"] == "cluster-unknown"
    assert aside.json("restore", str(aside.home / "x"), status=10)["error"]["code"] == "cluster-unknown"
    aside.config.write_text(text)
    other = control.with_name(str(int(control.name) + 1))
    shutil.move(control, other)
    give(aside.account, [other])
    error = aside.json("backup", status=14)["error"]
    assert error["code"] == "format-damaged" and other.name in error["message"]
    refused(aside, aside.home / "x", code="format-damaged", status=14)
