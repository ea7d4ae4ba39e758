"""What callers may ask of a store: the one check of keys, prefixes and ranges, shared by every store.

Rules of this file:

1. A bad key is a mistake of the program, not of its surroundings: ValueError, never a Fault.
2. Every store checks before it touches its medium, so no key can leave the store's root.
3. The limits are those of the narrowest medium: 255 bytes a part (NAME_MAX), 1024 bytes a key (S3).
4. `wal push` and `wal get` import this file: no imports, not even `re`.
"""

from __future__ import annotations

MAX_PART = 255
MAX_KEY = 1024
_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def is_key_part(name: str) -> bool:
    """True for a name that may stand between the slashes of a key; listings skip all other names they meet."""
    return 0 < len(name) <= MAX_PART and name[0] != "." and _ALLOWED.issuperset(name)


def check_key(key: str) -> None:
    """ValueError unless `key` is one that the port allows."""
    if len(key) > MAX_KEY or not all(map(is_key_part, key.split("/"))):
        raise ValueError(
            f"not a key: {key!r} (expected parts of A-Z a-z 0-9 . _ - joined by '/', none empty or beginning with '.')"
        )


def check_prefix(prefix: str) -> None:
    """ValueError unless some key could begin with `prefix`: '', whole parts, and at most a begun part at the end."""
    if prefix:
        check_key(prefix + "0" if prefix.endswith("/") else prefix)


def check_folder(prefix: str) -> None:
    """ValueError unless `prefix` is '' or whole parts that end in '/'."""
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"not a folder: {prefix!r} (expected '' or a prefix that ends in '/')")
    check_prefix(prefix)


def check_range(start: int, length: int | None) -> None:
    """ValueError for a negative start or length, in bytes."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: start {start}, length {length} (expected bytes >= 0)")


def folders_of(key: str) -> tuple[str, ...]:
    """The folders above `key`, outermost first: 'a/b/c' -> ('a', 'a/b')."""
    parts = key.split("/")
    return tuple("/".join(parts[:depth]) for depth in range(1, len(parts)))
