"""Keyed hashes of plain data, and plain hashes of stored bytes.

Plain hashes of plain data would tell a reader of the repository which known pages it holds; so frames, pages, maps and
WAL content are hashed with keys derived from the repository's hash key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blake3 import blake3

HASH_LENGTH = 16
PAGE_HASH_LENGTH = 8


def stored_hash(data: bytes | memoryview) -> bytes:
    """BLAKE3-128 of bytes as they lie in the store: what a party without keys can verify."""
    return blake3(data).digest(length=HASH_LENGTH)


def _derive(key: bytes, purpose: str) -> bytes:
    return blake3(f"pgkeep v1 {purpose}".encode(), key=key).digest()


@dataclass(frozen=True)
class HashKeys:
    """The purposes' keys, derived from the repository's 32-byte hash key."""

    root: bytes
    page_key: bytes = field(init=False, repr=False)
    frame_key: bytes = field(init=False, repr=False)
    map_key: bytes = field(init=False, repr=False)
    wal_key: bytes = field(init=False, repr=False)
    file_key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for purpose in ("page", "frame", "map", "wal", "file"):
            object.__setattr__(self, f"{purpose}_key", _derive(self.root, f"{purpose} hash"))

    def frame(self, data: bytes | memoryview) -> bytes:
        """128 bits of a frame's plain bytes; frames of pages have `page_frame`."""
        return blake3(data, key=self.frame_key).digest(length=HASH_LENGTH)

    def page_frame(self, pieces: bytes | memoryview, hashes: bytes | bytearray | memoryview) -> bytes:
        """128 bits of a frame of pages: over its pieces table (without length) and its pages' hashes, in order.

        The pages have been hashed for the page table already; reading them twice costs a backup 6 % of its CPU time
        (docs/decisions/0004).
        """
        hasher = blake3(key=self.frame_key)
        hasher.update(bytes(pieces))
        hasher.update(bytes(hashes))
        return hasher.digest(length=HASH_LENGTH)

    def extent_map(self, data: bytes) -> bytes:
        """128 bits of an encoded extent map: its content address."""
        return blake3(data, key=self.map_key).digest(length=HASH_LENGTH)

    def file(self, data: bytes | memoryview) -> bytes:
        """128 bits of a whole file's content, by which a file that is no pages may be inherited."""
        return blake3(data, key=self.file_key).digest(length=HASH_LENGTH)

    def file_hasher(self) -> blake3:
        """As `file`, for content that comes in parts: `digest(HASH_LENGTH)` of it when all of them are there."""
        return blake3(key=self.file_key)

    def wal(self, data: bytes | memoryview) -> bytes:
        """256 bits of a WAL file's content."""
        return blake3(data, key=self.wal_key).digest()

    def wal_hasher(self) -> blake3:
        """As `wal`, for content that comes in parts: `digest()` of it when all of them are there."""
        return blake3(key=self.wal_key)

    def pages(self, data: memoryview, page_size: int) -> bytes:
        """64 bits of each page of `data`, concatenated."""
        # One hasher that is set back is a fifth faster than one a page: the key is taken once.
        hasher = blake3(key=self.page_key)
        update, digest, reset = hasher.update, hasher.digest, hasher.reset
        hashes = []
        for at in range(0, len(data), page_size):
            update(data[at : at + page_size])
            hashes.append(digest(PAGE_HASH_LENGTH))
            reset()
        return b"".join(hashes)
