"""From a repository's URL to the store behind it: the one table of schemes.

Rules of this file:

1. Opening touches nothing: a store that is away says so at its first call.
2. A store's module is imported only when its scheme is asked for (`wal push` must not load a cloud library).
3. A new medium is one entry in `_SCHEMES`, and no caller changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgkeep.errors import Fault

if TYPE_CHECKING:
    from pgkeep.store.local import LocalStore
    from pgkeep.store.port import Store

_HEX = frozenset("0123456789abcdefABCDEF")


def open_store(url: str) -> Store:
    """The store at `url`: 'file:///absolute/path' (percent-encoded) or a bare absolute path.

    Fault `config-invalid` for a URL that is malformed or of a scheme that this version does not have.
    """
    return _SCHEMES[_scheme(url)](url)


def create_store(url: str) -> Store:
    """As `open_store`, after making the place where its objects go; a place that is there already is fine."""
    return _CREATORS[_scheme(url)](url)


def directory_of(url: str) -> str | None:
    """The directory on this machine (or mounted on it) that holds the objects; None for another kind of store."""
    return _local_path(url) if _scheme(url) == "file" else None


def _scheme(url: str) -> str:
    if url.startswith("/"):
        return "file"
    scheme, colon, _ = url.partition(":")
    if colon and scheme.lower() in _SCHEMES:
        return scheme.lower()
    known = ", ".join(f"{name}://" for name in sorted(_SCHEMES))
    if not colon:
        raise _invalid(url, "neither an absolute path nor a url", "write file:///absolute/path or /absolute/path")
    raise _invalid(url, f"no store of the kind {scheme!r} in this version", f"this version has: {known}")


def _open_local(url: str) -> LocalStore:
    from pgkeep.store.local import LocalStore

    return LocalStore(_local_path(url))


def _create_local(url: str) -> LocalStore:
    from pgkeep.store.local import LocalStore

    return LocalStore.create(_local_path(url))


_SCHEMES: dict[str, Callable[[str], Store]] = {"file": _open_local}
_CREATORS: dict[str, Callable[[str], Store]] = {"file": _create_local}


def _local_path(url: str) -> str:
    path = url if url.startswith("/") else _path_of_file_url(url)
    if "\0" in path:
        raise _invalid(url, "a null character in the path", "write the path without it")
    if not path.strip("/"):
        raise _invalid(url, "the root of the file system", "name a directory below it")
    return path


def _path_of_file_url(url: str) -> str:
    """RFC 8089, section 2: file:///path, with an empty authority or 'localhost'."""
    rest = url.partition(":")[2]
    host, slash, path = rest[2:].partition("/")
    if not rest.startswith("//") or not slash or host not in ("", "localhost"):
        raise _invalid(url, "no absolute path on this host", "write file:///absolute/path (three slashes)")
    if "?" in path or "#" in path:
        raise _invalid(url, "a query or fragment", "write %3F for '?' and %23 for '#' in a path")
    return "/" + (_decoded(url, path) if "%" in path else path)


def _decoded(url: str, path: str) -> str:
    from urllib.parse import unquote_to_bytes

    for escape in path.split("%")[1:]:
        if len(escape) < 2 or not _HEX.issuperset(escape[:2]):
            raise _invalid(url, "a '%' without two hexadecimal digits", "write %25 for '%' itself")
    return os.fsdecode(unquote_to_bytes(path))


def _invalid(url: str, found: str, hint: str) -> Fault:
    return Fault("config-invalid", f"repository url {url!r}: {found}", hint=hint, url=url)
