"""Hard limits of format v1; a value above its limit is damage, not a large object (docs/format/limits.md)."""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 1
HEADER_LENGTH: Final = 384
TAIL_LENGTH: Final = 64
SECTION_HEADER_LENGTH: Final = 48

FRAME_DATA: Final = 128 << 10
"""Raw data bytes of a frame that a writer fills at most (should)."""
MAX_FRAME_DATA: Final = 256 << 10
MAX_PIECES_TABLE: Final = 256 << 10
MAX_FRAME_RAW: Final = 4 + MAX_PIECES_TABLE + MAX_FRAME_DATA
MAX_FRAME_STORED: Final = MAX_FRAME_RAW + (16 << 10)
MAX_FRAMES: Final = 1 << 18

PACK_TARGET: Final = 64 << 20
"""Stored bytes after which a writer closes a pack (should)."""
MAX_OBJECT: Final = 2 << 30

MAX_SECTION: Final = 64 << 20
MAX_SECTIONS: Final = 1 << 16
MAX_FOOTER: Final = 64 << 20
MAX_MANIFEST: Final = 1 << 30
MAX_PATH: Final = 4096
MAX_EXTENTS: Final = 1 << 21
PATHS_PER_CHUNK: Final = 4096
RELATIONS_PER_CHUNK: Final = 8192
"""Rows of a RELATIONS section (should); keeps a section far below MAX_SECTION."""
