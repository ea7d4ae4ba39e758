"""Hard limits of format v1; a value above its limit is damage, not a large object (docs/format/limits.md).

Values marked *should* are what a writer keeps to; readers accept up to the hard limit beside them.
"""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 1
HEADER_LENGTH: Final = 512
TAIL_LENGTH: Final = 88
DIRECTORY_HEAD_LENGTH: Final = 96
DIRECTORY_ROW_LENGTH: Final = 64

FRAME_DATA: Final = 128 << 10
"""Raw data bytes of a frame that a writer fills at most (should)."""
MAX_FRAME_DATA: Final = 256 << 10
PIECES_TABLE: Final = 64 << 10
"""Bytes of a pieces table after which a writer closes the frame (should)."""
MAX_PIECES_TABLE: Final = 256 << 10
MAX_FRAME_RAW: Final = 4 + MAX_PIECES_TABLE + MAX_FRAME_DATA
MAX_FRAME_STORED: Final = MAX_FRAME_RAW + (16 << 10)
PACK_FRAMES: Final = 1 << 15
"""Frames after which a writer closes a pack (should): well compressed data never reach PACK_TARGET."""
MAX_FRAMES: Final = 1 << 18
MAX_WAL_FRAMES: Final = 1 << 14
"""Frames of a WAL object: twice those of a segment of 1 GiB."""
MAX_PACK_PAGES: Final = 1 << 22

PACK_TARGET: Final = 64 << 20
"""Stored bytes after which a writer closes a pack (should)."""
MAX_ADD: Final = 256 << 20
"""Bytes that a writer adds to a pack at once: they lie in one pack (should)."""
MAX_OBJECT: Final = 2 << 30

MAX_SECTION: Final = 64 << 20
MAX_RECORDS: Final = 32 << 20
"""Plain bytes of a section that holds records; decoded records take several times their bytes."""
MAX_ROWS: Final = 1 << 16
"""Records in one section; more rows continue in the next section of the same type."""
MAX_TABLES: Final = 32 << 20
"""Plain bytes of all tables of a manifest that a reader holds in memory (paths and relations are streams)."""
MAX_TABLE_ROWS: Final = 1 << 20
"""Rows of those tables together."""
MAX_MEMBERS: Final = 16 << 20
"""Plain bytes of a section of a dump's members: decoded they take fourteen times that."""
MAX_PACKS: Final = 1 << 19
MAX_PACK_TABLES: Final = 128 << 20
"""Plain bytes of a manifest's PACKS and LIVE together."""
MAX_SECTIONS: Final = 1 << 16
MAX_FOOTER: Final = 128 << 20
MAX_SMALL_OBJECT: Final = 1 << 20
MAX_MANIFEST: Final = 1 << 30
MAX_FILE: Final = 1 << 50
MAX_ORDINAL: Final = 1 << 40
"""Units (pages or bytes) of one kind in a pack; far above what MAX_FRAMES allows."""
MAX_PATH: Final = 4096
MAX_EXTENTS: Final = 1 << 21
MAX_MAP: Final = 64 << 20
MAX_WAL_TEXT: Final = 16 << 20
"""Bytes of a .history or .backup file."""
MAX_WAL_SEGMENTS: Final = 1 << 24
"""WAL segments that one backup may need on one timeline."""
MAX_INDEX_SEGMENTS: Final = 1 << 10
"""Segments that one WAL index describes, and segments behind them into which its last record may reach."""
MAX_INDEX_ENDS: Final = 1 << 17
"""Transactions in one section ENDS; more continue in the next one."""
MAX_INDEX_SUBXACTS: Final = 1 << 20
"""Subtransactions in one section ENDS; a segment that has more of them in one transaction is not indexed."""
MAX_INDEX_TIME: Final = 253_402_300_799_999_999
"""Microseconds since 1970 at the end of the year 9999."""
MAX_INDEX_TABLES: Final = 4 << 20
"""Plain bytes of a WAL index's sections besides ENDS, each."""
MAX_MOVED: Final = 1 << 13
"""Frames of one moves object."""
MAX_ORIGINS: Final = 1 << 9
"""Origins of one moves object, or of one carrier."""
MAX_CARRIERS: Final = 1 << 8
"""Carriers of one moves object."""
MAX_CONDEMNED: Final = 1 << 15
"""Packs that one object condemns; more go into further objects."""
PATHS_PER_CHUNK: Final = 4096
ROWS_PER_CHUNK: Final = 8192
MEMBERS_PER_CHUNK: Final = 2048
PACKS_PER_CHUNK: Final = 16384
