"""LocalStore: objects as files below a directory, which may be a disk or a mounted NAS (file:///...).

Rules of this file:

1. A `put` writes a temporary file in the object's own directory, makes it and every directory above it durable,
   and only then links it to its name; link(2) refuses to replace.  So a crash before the link leaves a
   file that no listing shows (`remove_leftovers` takes it away), and after it the whole object.
2. The root is made by `LocalStore.create` alone.  A root that is missing, or that is suddenly another directory
   (its file system was unmounted), is `store-unreachable`, and never looks like an empty store.
3. Files get mode 0600 and directories 0700; a umask can narrow that, nothing here widens it.
4. Names that are no key parts ('.snapshot', 'lost+found', '@eaDir') are not ours: listings pass them by.
5. `wal push` and `wal get` import this file: the standard library, errors and keys, nothing slow at the top
   (the port needs dataclasses and datetime, so ObjectStat comes in when somebody asks for one).
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pgkeep.errors import Fault
from pgkeep.store import files, keys

if TYPE_CHECKING:
    from pgkeep.store.port import KeyParts, ObjectStat

# How often a put may lose its directory to a concurrent delete before it gives up.
_FOLDER_ATTEMPTS = 50
# Bytes from which an object is written past the page cache: packs; a segment of WAL may be read again soon.
_DIRECT_FROM = 32 << 20
_PLAIN_URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~/")


class LocalStore:
    """A `port.Store` on a directory; instances are small, may be pickled, and may be shared by threads.

    An instance remembers the directory that it first found at its root, so that an unmount in mid-job shows.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """For the directory `root` (absolute; ValueError otherwise).  Nothing is touched yet."""
        path = os.fspath(root)
        if not path.startswith("/"):
            raise ValueError(f"not an absolute path: {path!r}")
        self._root = path.rstrip("/") or "/"
        self._identity: tuple[int, int] | None = None  # device and inode of the root

    @classmethod
    def create(cls, root: str | os.PathLike[str]) -> LocalStore:
        """Make the root (mode 0700) and missing directories above it, durably; an existing directory is fine."""
        store = cls(root)
        try:
            store._make_root()
        except OSError as error:
            raise files.fault_of(error, store._root, "/") from error
        store._check_root()
        return store

    def __repr__(self) -> str:
        return f"LocalStore({self._root!r})"

    @property
    def url(self) -> str:
        if _PLAIN_URL.issuperset(self._root):
            return f"file://{self._root}"
        from urllib.parse import quote_from_bytes

        return f"file://{quote_from_bytes(os.fsencode(self._root))}"

    def file_of(self, key: str) -> str | None:
        keys.check_key(key)
        return self._path(key)

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        keys.check_key(key)
        self._check_root()
        try:
            if os.path.lexists(self._path(key)):
                # Said before anything is written: so also on a full or read-only store.
                raise FileExistsError
            self._write(key, parts)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._exists(key) from error
        except FileNotFoundError as error:
            self._check_root()
            raise files.fault_of(error, key, self._root) from error
        except OSError as error:
            raise files.fault_of(error, key, self._root) from error

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        keys.check_key(key)
        keys.check_range(start, length)
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                found = os.fstat(descriptor)
                if not modes.S_ISREG(found.st_mode):
                    raise IsADirectoryError
                there = max(found.st_size - start, 0)
                return files.read_range(descriptor, start, there if length is None else min(length, there))
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise self._missing(key) from error
        except OSError as error:
            raise files.fault_of(error, key, self._root) from error

    def stat(self, key: str) -> ObjectStat:
        keys.check_key(key)
        try:
            found = self._stat(key)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._missing(key) from error
        except OSError as error:
            raise files.fault_of(error, key, self._root) from error
        if found is None:
            raise self._missing(key)
        return found

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        keys.check_prefix(prefix)
        return self._list(prefix)

    def list_parts(self, prefix: str = "") -> KeyParts:
        keys.check_folder(prefix)
        self._check_root()
        try:
            names = self._names(prefix)
            # A folder whose last object is gone may still be there as a directory: only objects make folders.
            parts = [n for n in names if not n.endswith("/") or self._holds_object(prefix + n)]
        except OSError as error:
            raise files.fault_of(error, prefix or ".", self._root) from error
        self._check_root()
        return parts

    def delete(self, key: str) -> None:
        keys.check_key(key)
        self._check_root()
        try:
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                os.unlink(self._path(key))
            # Also when it was absent: whoever removed it may have died before the removal was durable.
            with suppress(FileNotFoundError, NotADirectoryError):
                files.sync_folder(self._folder(key))
        except OSError as error:
            raise files.fault_of(error, key, self._root) from error
        self._check_root()
        self._remove_empty_folders(key)

    def remove_leftovers(self, older_than: float) -> int:
        """Remove unfinished files that nobody has written to for `older_than` seconds; their number.

        Age is measured by the store's own clock: NAS and host may disagree.  A put whose file is taken away
        fails with `store-unreachable`, so let `older_than` be far longer than any upload.
        """
        self._check_root()
        try:
            oldest = self._store_time() - older_than
            return sum(self._remove_stale(path, oldest) for path in self._temporaries(self._root))
        except OSError as error:
            raise files.fault_of(error, "unfinished files", self._root) from error

    # -- the root

    def _check_root(self) -> None:
        """Fault unless the root is a directory, and the one that this instance saw before."""
        try:
            found = os.stat(self._root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._gone("is not there") from error
        except OSError as error:
            raise files.fault_of(error, self._root, "/") from error
        if not modes.S_ISDIR(found.st_mode):
            raise self._gone("is no directory")
        device, inode = self._identity or (found.st_dev, found.st_ino)
        # Mounted anew (autofs does it by itself), a file system may get another device number and keeps its
        # inodes; the bare mount point has neither.
        if device != found.st_dev and inode != found.st_ino:
            raise self._gone("is another directory than before")
        self._identity = (found.st_dev, found.st_ino)

    def _gone(self, found: str) -> Fault:
        return Fault(
            "store-unreachable",
            f"{self._root}: {found}, expected the store's directory",
            hint="mount it; a new repository's directory is made by `pgkeep init`",
            root=self._root,
        )

    def _make_root(self) -> None:
        missing = []
        path = self._root
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700 if path == self._root else 0o777)
            files.sync_folder(os.path.dirname(path))

    # -- names

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def _folder(self, key: str) -> str:
        return os.path.dirname(self._path(key))

    def _missing(self, key: str) -> Fault:
        """`object-missing`, or the news that the whole store is: an outage must not look like an absence."""
        self._check_root()
        return Fault("object-missing", f"{key}: no such object in {self._root}", key=key, root=self._root)

    def _exists(self, key: str) -> Fault:
        """`object-exists`, said only once the other writer's name is durable (it may not have got that far)."""
        found = "a folder stands in its place, or an object in the place of its folder,"
        try:
            if os.path.isfile(self._path(key)):
                found = "already there"
                self._sync_down_to(self._folder(key))
                files.sync_folder(self._folder(key))
        except OSError as error:
            return files.fault_of(error, key, self._root)
        return Fault(
            "object-exists",
            f"{key}: {found} in {self._root}, expected nothing (objects are written once)",
            key=key,
            root=self._root,
        )

    # -- put

    def _write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        folder = self._folder(key)
        # Named before it is made: an interrupt that comes with it finds it.
        temporary = files.temporary_in(folder)
        descriptor = -1
        try:
            descriptor = self._create(key, temporary)
            _write_parts(descriptor, parts)
            os.fsync(descriptor)
            # Ours or not: whoever made these directories may not have got to their fsync yet.
            self._sync_down_to(folder)
            files.place(temporary, self._path(key), descriptor)
        finally:
            with suppress(OSError):
                os.unlink(temporary)
            if descriptor >= 0:
                os.close(descriptor)
        with suppress(FileNotFoundError):  # gone only if somebody deleted the object meanwhile
            files.sync_folder(folder)

    def _create(self, key: str, temporary: str) -> int:
        """A temporary file beside `key`; from now on its directory is not empty, so no delete removes it."""
        for _ in range(_FOLDER_ATTEMPTS):
            try:
                return files.create(temporary)
            except FileNotFoundError:
                self._check_root()
                self._make_folders(key)
        return files.create(temporary)

    def _make_folders(self, key: str) -> None:
        for folder in keys.folders_of(key):
            try:
                os.mkdir(self._path(folder), 0o700)
            except FileExistsError:
                continue
            except FileNotFoundError:
                return  # a delete took the directory above: the caller begins anew

    def _sync_down_to(self, folder: str) -> None:
        """Make the names of all directories from the root to `folder` durable."""
        while folder != self._root and len(folder) > len(self._root):
            folder = os.path.dirname(folder)
            files.sync_folder(folder)

    def _remove_empty_folders(self, key: str) -> None:
        """Safe against a racing put: rmdir(2) refuses once its temporary file is there, and before that it retries."""
        for folder in reversed(keys.folders_of(key)):
            try:
                os.rmdir(self._path(folder))
            except OSError:
                return

    # -- listings

    def _list(self, prefix: str) -> Iterator[ObjectStat]:
        self._check_root()
        folder, _, begun = prefix.rpartition("/")
        try:
            yield from self._walk(f"{folder}/" if folder else "", begun)
        except OSError as error:
            raise files.fault_of(error, prefix or ".", self._root) from error
        # Directories of a store that was unmounted meanwhile looked empty: that is no listing.
        self._check_root()

    def _walk(self, folder: str, begun: str) -> Iterator[ObjectStat]:
        for name in self._names(folder):
            if not name.startswith(begun):
                continue
            if name.endswith("/"):
                yield from self._walk(folder + name, "")
            elif (found := self._listed(folder + name)) is not None:
                yield found

    def _names(self, folder: str) -> KeyParts:
        """Key parts in `folder` ('' or ending in '/'), directories with '/' at the end, in the order of whole keys.

        The '/' takes part in the comparison, because 'a.b' and 'a-b' sort before 'a/b'.
        """
        names = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._path(folder)) as entries:
            for entry in entries:
                if not keys.is_key_part(entry.name):
                    continue
                if entry.is_dir():
                    names.append(entry.name + "/")
                elif entry.is_file():
                    names.append(entry.name)
        return sorted(names)

    def _listed(self, key: str) -> ObjectStat | None:
        """None for what was deleted since its name was read, or whose key would be too long to be one."""
        if len(key) > keys.MAX_KEY:
            return None
        try:
            return self._stat(key)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _stat(self, key: str) -> ObjectStat | None:
        from datetime import UTC, datetime

        from pgkeep.store.port import ObjectStat

        found = os.stat(self._path(key))
        if not modes.S_ISREG(found.st_mode):
            return None
        return ObjectStat(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _holds_object(self, folder: str) -> bool:
        names = self._names(folder)
        return any(not n.endswith("/") for n in names) or any(self._holds_object(folder + n) for n in names)

    # -- leftovers

    def _store_time(self) -> float:
        """The store's own idea of now, in seconds since the epoch: the time it stamps on a new file."""
        descriptor, path = files.create_temporary(self._root)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            os.unlink(path)

    def _temporaries(self, folder: str) -> Iterator[str]:
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(files.TEMPORARY) and entry.is_file(follow_symlinks=False):
                    yield entry.path
                elif keys.is_key_part(entry.name) and entry.is_dir():
                    yield from self._temporaries(entry.path)

    @staticmethod
    def _remove_stale(path: str, oldest: float) -> bool:
        with suppress(FileNotFoundError):
            if os.stat(path).st_mtime <= oldest:
                os.unlink(path)
                return True
        return False


def _write_parts(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    if sum(len(part) for part in parts) < _DIRECT_FROM:
        files.write_all(descriptor, parts)
        return
    from pgkeep.store import direct

    direct.write_all(descriptor, parts)
