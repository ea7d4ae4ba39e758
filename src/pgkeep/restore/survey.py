"""One pass over a backup's paths: how much goes where, and the configuration that it brings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pgkeep.format.manifest import Entry, EntryType
from pgkeep.repo.backups import Manifest
from pgkeep.repo.repository import Cluster
from pgkeep.restore.conf import ConfigurationFiles
from pgkeep.restore.contents import Contents
from pgkeep.restore.settings import SourceConfiguration
from pgkeep.restore.tablespaces import root_of

MAX_CONFIGURATION: Final = 4 << 20
"""Bytes; a larger *.conf is none."""
_BLOCK: Final = 4096
_DATA: Final = (b"base/", b"global/", b"pg_")
_AUTO: Final = b"postgresql.auto.conf"


@dataclass(frozen=True, slots=True)
class Survey:
    """Files, bytes in them, and bytes on disk by tablespace OID (0: the data directory), in blocks of 4 KiB."""

    files: int
    bytes: int
    on_disk: Mapping[int, int]
    configuration: SourceConfiguration
    warnings: tuple[str, ...]


def survey(cluster: Cluster, manifest: Manifest) -> Survey:
    """Read what a plan needs to know of the backup.  Damaged, and the store's faults."""
    spaces = [space.oid for space in manifest.inner.tablespaces if space.location]
    roots = {oid: number for number, oid in enumerate(spaces, start=1)}
    on_disk = [0] * (len(spaces) + 1)
    files = size = 0
    small: list[Entry] = []
    for entry in manifest.entries():
        root, _ = root_of(entry.path, roots)
        on_disk[root] += -(-entry.size // _BLOCK) * _BLOCK if entry.type is EntryType.FILE else _BLOCK
        if entry.type is EntryType.FILE:
            files, size = files + 1, size + entry.size
            if _is_configuration(entry):
                small.append(entry)
    configuration, warnings = _configuration(cluster, manifest, small)
    return Survey(files, size, dict(zip([0, *spaces], on_disk, strict=True)), configuration, warnings)


def _is_configuration(entry: Entry) -> bool:
    return (
        entry.path.endswith(b".conf") and entry.size <= MAX_CONFIGURATION and not entry.path.startswith(_DATA)
    ) or entry.path in (b"pg_hba.conf", b"pg_ident.conf")


def _configuration(
    cluster: Cluster, manifest: Manifest, entries: list[Entry]
) -> tuple[SourceConfiguration, tuple[str, ...]]:
    server = manifest.inner.server
    home = os.path.normpath(server.data_directory)
    contents = Contents(cluster, manifest)
    inside = {entry.path: _text(contents.of(entry)) for entry in entries}
    files = {os.path.join(home, os.fsdecode(path)): text for path, text in inside.items() if path != _AUTO}
    attached = {os.path.normpath(os.fsdecode(a.path)): _text(a.content) for a in manifest.inner.attachments}
    files |= attached
    main = os.path.normpath(server.config_file)
    warnings: tuple[str, ...] = ()
    if main not in files:
        warnings = (f"the backup does not hold {main}: the restored server has PostgreSQL's default settings",)
        files[main] = ""
    hba, more = _access(files, attached, server.hba_file, "pg_hba.conf", home)
    ident, _ = _access(files, attached, server.ident_file, "pg_ident.conf", home)
    auto = inside.get(_AUTO, "")
    source = SourceConfiguration(ConfigurationFiles(files), main, home, auto, hba, ident)
    return source, (*warnings, *more)


def _access(
    files: Mapping[str, str], attached: Mapping[str, str], path: str, name: str, home: str
) -> tuple[str | None, tuple[str, ...]]:
    """What to write as pg_hba.conf or pg_ident.conf: None when the one in the data directory serves."""
    place = os.path.normpath(path)
    if place in attached:
        return attached[place], ()
    if place == os.path.join(home, name) and place in files:
        return None, ()
    if place in files:
        return files[place], ()
    fallback = "local all all peer\n" if name == "pg_hba.conf" else ""
    return fallback, (f"the backup does not hold {path}: only local connections by peer are allowed",)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
