"""The configuration file that `pgkeep init` writes: six lines that count, and the comments that explain them."""

from __future__ import annotations

import json

_TEMPLATE = """\
# pgkeep: where backups go, and which cluster they are of.  All keys: docs/configuration.md

# A directory on other storage than the server's: a mounted NAS, another disk.
[repository]
url = {url}

# Any libpq connection string; passwords belong in ~/.pgpass.  The account needs the rights that `pgkeep init` listed.
[cluster.{name}]
connection = {connection}

# What `pgkeep prune` keeps: the newest backup of each of the last 7 days, 4 weeks and 12 months that have one, and
# every moment of the last 7 days.  Nothing is deleted but by prune, and never without this line.
keep = {{ daily = 7, weekly = 4, monthly = 12, wal = "7d" }}

# Whose days and weeks those are; this machine's zone where this is left out.
# timezone = "Europe/Berlin"
# Worker processes of a backup, a verify, a restore; one for each core where this is left out.
# processes = 2
# zstd, 1 (quick) to 19 (small).
# compression-level = 1
# "spread" spares the disks, and begins the backup some minutes later.
# checkpoint = "fast"
# How long a backup waits for its last WAL before it fails.
# archive-timeout = "10min"
"""


def configuration(url: str, cluster: str, connection: str) -> str:
    """The text of a new file; `load` reads back exactly these values."""
    return _TEMPLATE.format(url=_quoted(url), name=_key(cluster), connection=_quoted(connection))


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's (toml.io v1.0.0, String), but DEL needs its own."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    is_bare = name.isascii() and all(c.isalnum() or c in "-_" for c in name) and name
    return name if is_bare else _quoted(name)
