"""Tree: the files and directories below one root, reached step by step, never through a symbolic link.

Rules of this file:

1. Every name is opened relative to its directory's descriptor with O_NOFOLLOW, so that neither a hostile manifest nor
   somebody who slips a link into the target while it is written leads a write elsewhere.
2. A directory that is made must not have existed; files of a backup are created by whichever worker comes first.
3. What is there already is listed, dressed, cut and removed without following a link, and without opening what is no
   regular file or directory (a pipe would block, a device might do anything).
4. OSError becomes `target-space` (no room) or `io`, naming the path.
5. Not for several threads at once.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from pgkeep.errors import Fault

_DIRECTORIES_OPEN: Final = 64
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom everything that is made is given (numeric ids)."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Found:
    """A path that is there, as lstat(2) shows it; `target` is where a symbolic link leads."""

    path: bytes
    status: os.stat_result
    target: bytes = b""

    @property
    def is_file(self) -> bool:
        """A regular file; hard links too."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    def is_dressed(self, mode: int, owner: Owner | None) -> bool:
        """True when permission bits and owner need no change."""
        has = self.status
        right = owner is None or (has.st_uid, has.st_gid) == (owner.uid, owner.gid)
        return right and stat.S_IMODE(has.st_mode) == mode & 0o777


class Tree:
    """See the module's docstring.  `root` is an absolute path without symbolic links."""

    def __init__(self, root: str, owner: Owner | None = None) -> None:
        self.root = root
        self._owner = owner
        self._open: OrderedDict[bytes, int] = OrderedDict()
        try:
            self._top = os.open(root, _OPEN_DIRECTORY)
        except OSError as error:
            raise io_fault(error, root) from error

    def full(self, path: bytes) -> str:
        """The absolute path, for sentences."""
        return os.path.join(self.root, os.fsdecode(path))

    def close(self) -> None:
        """Close every descriptor; the tree is of no use afterwards."""
        for descriptor in (*self._open.values(), self._top):
            os.close(descriptor)
        self._open.clear()

    def make_directory(self, path: bytes, mode: int) -> None:
        """A new directory; its parent must be there and it must not."""
        parent, name = self._place(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
            try:
                self._dress(descriptor, mode)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._raise(error, path)

    def dress(self, mode: int) -> None:
        """Give the root its permission bits and owner."""
        try:
            self._dress(self._top, mode)
        except OSError as error:
            self._raise(error, b"")

    def make_link(self, path: bytes, target: str) -> None:
        """A symbolic link: a tablespace's, in pg_tblspc."""
        parent, name = self._place(path)
        try:
            os.symlink(os.fsencode(target), name, dir_fd=parent)
            if self._owner is not None:
                os.chown(name, self._owner.uid, self._owner.gid, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            self._raise(error, path)

    def create(self, path: bytes, mode: int) -> int:
        """A descriptor for writing; the file is made unless it is there."""
        parent, name = self._place(path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        except OSError as error:
            self._raise(error, path)
        try:
            self._dress(descriptor, mode)
        except OSError as error:
            os.close(descriptor)
            self._raise(error, path)
        return descriptor

    def open(self, path: bytes) -> int:
        """A descriptor of a file or directory that is there, for fsync."""
        parent, name = self._place(path)
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
        except OSError as error:
            self._raise(error, path)

    def open_if_there(self, path: bytes) -> int | None:
        """As `open`; None when there is no such file."""
        try:
            return self.open(path)
        except Fault as fault:
            if isinstance(fault.__cause__, FileNotFoundError):
                return None
            raise

    def find(self, path: bytes) -> Found | None:
        """What is at this path; None for nothing."""
        parent, name = self._place(path)
        try:
            return _found(path, os.lstat(name, dir_fd=parent), name, parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._raise(error, path)

    def list(self, path: bytes) -> list[Found]:
        """What is in a directory, unordered; nothing when it is not there, or is no directory (any more)."""
        try:
            directory = self._directory(path)
            prefix = path + b"/" if path else b""
            names = [os.fsencode(name) for name in os.listdir(directory)]
            found = []
            for name in names:
                with suppress(FileNotFoundError):
                    found.append(_found(prefix + name, os.lstat(name, dir_fd=directory), name, directory))
            return found
        except Fault as fault:
            if isinstance(fault.__cause__, FileNotFoundError | NotADirectoryError):
                return []
            raise
        except OSError as error:
            self._raise(error, path)

    def redress(self, path: bytes, mode: int) -> None:
        """Give what is there its permission bits and owner, also when it may not be opened as it is."""
        parent, name = self._place(path)
        try:
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                # An O_PATH descriptor takes no fchmod; its name in /proc leads to the very same inode.
                if self._owner is not None:
                    os.chown(name, self._owner.uid, self._owner.gid, dir_fd=parent, follow_symlinks=False)
                os.chmod(f"/proc/self/fd/{descriptor}", mode & 0o777)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._raise(error, path)

    def cut(self, path: bytes, size: int) -> None:
        """Shorten a file to `size` bytes."""
        parent, name = self._place(path)
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
            try:
                os.ftruncate(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._raise(error, path)

    def clear(self, found: Found) -> None:
        """Remove what is there: a file, a link (not what it names), or a directory with all that is in it.

        Not durable before its directory is synced.
        """
        parent, name = self._place(found.path)
        try:
            if found.is_directory:
                self._forget(found.path)
                shutil.rmtree(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            self._raise(error, found.path)

    def write(self, path: bytes, content: bytes, mode: int) -> None:
        """A whole small file, durable with its name, in place of an older one."""
        descriptor = self.create(path, mode)
        try:
            os.ftruncate(descriptor, 0)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            os.fsync(self._place(path)[0])
        except OSError as error:
            self._raise(error, path)
        finally:
            os.close(descriptor)

    def read(self, path: bytes) -> bytes:
        """The whole content of a small file."""
        descriptor = self.open(path)
        with open(descriptor, "rb") as file:
            return file.read()

    def rename(self, old: bytes, new: bytes) -> None:
        """Put a file in the place of another one in the same directory, durably."""
        (parent, source), (_, target) = self._place(old), self._place(new)
        try:
            os.rename(source, target, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
        except OSError as error:
            self._raise(error, new)

    def remove(self, path: bytes) -> None:
        """Remove a file durably; an absent one is fine."""
        parent, name = self._place(path)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            self._raise(error, path)
        os.fsync(parent)

    def sync(self) -> None:
        """Make the names in the root durable."""
        try:
            os.fsync(self._top)
        except OSError as error:
            self._raise(error, b"")

    def _place(self, path: bytes) -> tuple[int, bytes]:
        head, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise ValueError(f"not a path within a tree: {path!r}")
        return self._directory(head), name

    def _directory(self, path: bytes) -> int:
        if not path:
            return self._top
        if (known := self._open.get(path)) is not None:
            self._open.move_to_end(path)
            return known
        parent, name = self._place(path)
        try:
            descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except OSError as error:
            self._raise(error, path)
        self._open[path] = descriptor
        if len(self._open) > _DIRECTORIES_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def _forget(self, path: bytes) -> None:
        """Close what is open at and below a directory that goes away: its name may come to mean another one."""
        for known in [each for each in self._open if each == path or each.startswith(path + b"/")]:
            os.close(self._open.pop(known))

    def _dress(self, descriptor: int, mode: int) -> None:
        # The umask may have narrowed what open and mkdir were told.
        os.fchmod(descriptor, mode & 0o777)
        if self._owner is not None:
            os.fchown(descriptor, self._owner.uid, self._owner.gid)

    def _raise(self, error: OSError, path: bytes) -> NoReturn:
        raise io_fault(error, self.full(path)) from error


def _found(path: bytes, status: os.stat_result, name: bytes, parent: int) -> Found:
    return Found(path, status, os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else b"")


def io_fault(error: OSError, path: str) -> Fault:
    """The Fault for an OSError met while writing `path`."""
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return Fault(
            "target-space", f"no room to write {path} ({said})",
            hint="free space there (inodes too), raise the quota, or restore to another file system", path=path,
        )  # fmt: skip
    return Fault(
        "io", f"cannot write {path} ({said})",
        hint="check the directory's owner and rights, the mount, and the kernel's log", path=path,
    )  # fmt: skip
