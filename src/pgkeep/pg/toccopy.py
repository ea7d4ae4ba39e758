"""A table of contents written again with other texts in some of its items; everything else stays byte for byte.

pg_restore gets it in place of the archive's own: as toc.dat of a directory, or before the data of a custom or tar file
that it reads from a pipe.  There it cannot seek, so places of data in the file, which have moved, are left out: that is
how pg_dump itself writes an archive into a pipe (K_OFFSET_POS_NOT_SET, pg_backup_archiver.h).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Final

from pgkeep.errors import Fault
from pgkeep.pg.dumptoc import Read, Toc, TocEntry, TocReader

Change = Callable[[TocEntry], TocEntry]
"""The item with another definition, drop or owner; anything else of it must not change."""

_POSITION_SET: Final = 2
_POSITION_NOT_SET: Final = 1
_WITH_ACCESS_METHOD: Final = (1, 14)
_BLOCK: Final = 512


def changed_toc(read: Read, name: str, change: Change) -> bytes:
    """The bytes of the head of a custom archive, or of a toc.dat, with every item as `change` says.

    Exactly those bytes are read; Faults of `read_toc`, and 'usage' for a name that cannot be written in the archive.
    """
    copier = _Copier(read, name, change)
    copier.toc()
    return bytes(copier.written)


class _Copier(TocReader):
    def __init__(self, read: Read, name: str, change: Change) -> None:
        super().__init__(read, name)
        self._change = change
        self.written = bytearray()
        self._texts: list[tuple[int, int]] = []

    def toc(self) -> Toc:
        return super().toc()

    def _bytes(self, count: int) -> bytes:
        found = super()._bytes(count)
        self.written += found
        return found

    def _text_or_none(self) -> str | None:
        start = len(self.written)
        found = super()._text_or_none()
        self._texts.append((start, len(self.written)))
        return found

    def _entry(self, *, is_custom: bool) -> TocEntry:
        self._texts.clear()
        entry = super()._entry(is_custom=is_custom)
        if is_custom and self.written[-1 - self._offset_size] == _POSITION_SET:
            self.written[-1 - self._offset_size :] = bytes([_POSITION_NOT_SET]) + bytes(self._offset_size)
        changed = self._change(entry)
        # the texts of an item in their order: tableoid, oid, tag, desc, definition, drop, copy, namespace, tablespace,
        # the access method since 1.14, owner
        owner_at = 10 if self._version >= _WITH_ACCESS_METHOD else 9
        for at, old, new in (
            (owner_at, entry.owner, changed.owner),
            (5, entry.drop, changed.drop),
            (4, entry.definition, changed.definition),
        ):
            if old != new:
                start, end = self._texts[at]
                self.written[start:end] = self._replacing(bytes(self.written[start:end]), old, new, entry)
        return changed

    def _replacing(self, raw: bytes, old: str, new: str, entry: TocEntry) -> bytes:
        """Text that Python's codec would not write as it was, it does not write at all."""
        try:
            is_same = self._encoded(old) == raw or not old
            written = self._encoded(new)
        except UnicodeEncodeError:
            is_same, written = False, b""
        if not is_same:
            raise Fault(
                "dump-unsupported",
                f"{self._name}: {new[:60]!r} cannot be written into its item {entry.desc} {entry.name}, which is in"
                f" {self._codec}",
                hint="choose a name of ASCII letters, or load with --no-owner",
            )
        return written

    def _encoded(self, text: str) -> bytes:
        raw = text.encode(self._codec, "surrogateescape")
        return b"\0" + len(raw).to_bytes(self._int_size, "little") + raw


def changed_tar_head(read: Read, name: str, change: Change) -> bytes:
    """The first member of a tar archive of pg_dump, its toc.dat, with its header and padding; see `changed_toc`."""
    header = read(_BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise Fault("dump-damaged", f"{name} is no whole tar file: {error}", hint="take it anew") from error
    content = read(info.size)
    read(-info.size % _BLOCK)
    info.size = len(changed := changed_toc(io.BytesIO(content).read, name, change))
    return info.tobuf(tarfile.USTAR_FORMAT) + changed + bytes(-len(changed) % _BLOCK)
