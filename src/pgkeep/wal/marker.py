"""Markers "already archived": what an earlier `wal push` leaves in pg_wal for the call that will ask for that file.

A marker claims that the repository held a WAL file durably; it is written after that is so (docs/format/markers.md).

1. `is_archived` trusts a marker only while nothing that it rests on can have changed: the same boot of the machine,
   the same call (options, PGKEEP_* variables, working directory, bytes of the configuration), and for the WAL file, the
   instance's token and the repository's own files the same device, inode, size, mtime and ctime.
2. Whatever does not agree, or cannot be read, only means "not known": the push then goes its whole way, where a marker
   of the same token and repository still saves the upload, after the file was hashed again.
3. Markers lie in pg_wal, whose content neither backups nor a restore carry along.  They need no fsync: one that is
   lost costs time, and one that a crash tore or that outlived it is of another boot.
4. This file decides calls of archive_command: nothing is imported but `os`, not even typing.
5. Most of them do not come this far: `archived.sh`, which archive_command's shell reads first, compares the same.  It
   reads the lines up to the one with a point; bytes that are no ASCII, and any PGKEEP_* variable, keep it quiet.
6. Who must wait for somebody at work waits a little longer, until some more files are archived: an interpreter costs
   as much as half a segment, and the server's next calls then find their markers.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FOLDER = "pgkeep.ahead"
"""In pg_wal, beside the files that the markers are about."""
LOCK = "lock"
"""In FOLDER: whoever works ahead holds it (flock)."""
ABSENT = "absent"
_LAST = "."
"""The line behind the files."""
_MAGIC = "pgkeep-archived-2"
_BOOT = "/proc/sys/kernel/random/boot_id"
_LONGEST = 64 << 10
_POLL = 0.003
_MORE = 16
"""Files behind the own one whose markers are waited for."""
_MORE_SECONDS = 0.3
"""So long at most, once the own one is there."""
_MUTE = ""
"""Instead of a call's words: `archived.sh` has none that are equal."""


class Terms:
    """What a call of `wal push` rests on besides the file: a number for its words, and stamps of other files.

    `files` are (path, stamp), absolute paths; the configuration's comes first.  `shell` is the call as `archived.sh`
    sees it: words, HOME, working directory.  Values, never changed.
    """

    __slots__ = ("call", "files", "shell")

    def __init__(
        self, call: str, files: tuple[tuple[str, str], ...], shell: tuple[str, str, str] = (_MUTE, "", "")
    ) -> None:
        self.call = call
        self.files = files
        self.shell = shell

    def with_files(self, *paths: str) -> Terms:
        """These terms, resting on more files as they are now."""
        return Terms(self.call, (*self.files, *((path, stamp(path)) for path in paths)), self.shell)


class Marker:
    """A marker's content; `repository`, `token` and `content_hash` are hexadecimal.  Values, never changed."""

    __slots__ = ("boot", "content_hash", "file", "repository", "terms", "token")

    def __init__(self, boot: str, file: str, content_hash: str, repository: str, token: str, terms: Terms) -> None:
        self.boot = boot
        self.file = file
        """The WAL file's stamp, taken from the descriptor that it was read through."""
        self.content_hash = content_hash
        self.repository = repository
        self.token = token
        self.terms = terms


def stamp_of(found: os.stat_result) -> str:
    """Changes when a file is replaced, copied, written to or given another time: ctime cannot be set back."""
    return f"{found.st_dev} {found.st_ino} {found.st_size} {_time(found.st_mtime_ns)} {_time(found.st_ctime_ns)}"


def _time(nanoseconds: int) -> str:
    """As stat(1) shows it with '%.9Y'."""
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def stamp(path: str) -> str:
    """The stamp of the file at `path`; ABSENT when there is none or it cannot be looked at."""
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return ABSENT


def boot_id() -> str:
    """Of this boot (random(4)); '' where the kernel does not tell, and then no marker is trusted."""
    return _read(_BOOT).strip()


def terms(
    options: Mapping[str, str],
    environment: Mapping[str, str],
    config: str,
    passed: Iterable[str],
    command: Sequence[str] = (),
) -> Terms:
    """The terms of a call that found its configuration at `config`, having found nothing at the paths `passed`.

    `command` are all words of the process but the file's, the last one; none: `archived.sh` cannot have run it.
    """
    files = ((config, stamp(config)), *((path, ABSENT) for path in passed))
    return Terms(_call(options, environment, config), files, _shell(command, environment))


def _shell(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, str, str]:
    """What `archived.sh` compares.  Words are joined by blanks there, so there must be none in them."""
    is_plain = all(word.isprintable() and word and " " not in word for word in command)
    if not command or not is_plain or any(name.startswith("PGKEEP_") for name in environment):
        return _MUTE, "", ""
    return f"{len(command) + 1} {' '.join(command)} ", environment.get("HOME", ""), os.getcwd()


def is_archived(path: str, options: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    """True if a marker proves that the repository of this call holds the WAL file at `path` as it is now."""
    marker = read(path)
    return (
        marker is not None
        and marker.boot == boot_id() != ""
        and marker.file == stamp(path)
        and all(stamp(other) == known for other, known in marker.terms.files)
        and marker.terms.call == _call(options, environment, marker.terms.files[0][0])
    )


def await_archived(path: str, options: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    """As `is_archived`, but while somebody works ahead on what waits, the file among it, wait for its marker."""
    if not os.path.exists(path_of(path)) and os.path.exists(_ready(path)):
        _await_marker(path)
    return is_archived(path, options, environment)


def _await_marker(path: str) -> None:
    import time

    mine = path_of(path)
    if not _await(mine, path, float("inf")):
        return
    folder, name = os.path.split(path)
    waiting = sorted(ready[:-6] for ready in os.listdir(os.path.join(folder, _STATUS)) if ready.endswith(".ready"))
    if more := [other for other in waiting if other > name][:_MORE]:
        _await(path_of(os.path.join(folder, more[-1])), path, time.monotonic() + _MORE_SECONDS)


def _await(file: str, path: str, deadline: float) -> bool:
    """True when `file` is there; False when the deadline has passed, or nobody works ahead any more beside `path`."""
    import time

    while not os.path.exists(file):
        if not _is_somebody_at_work(path) or time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _is_somebody_at_work(path: str) -> bool:
    import fcntl

    try:
        descriptor = os.open(os.path.join(os.path.dirname(path_of(path)), LOCK), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def read(path: str) -> Marker | None:
    """The marker of the WAL file at `path`, whole; None for one that is not there, or torn."""
    text = _read(path_of(path))
    body, _, check = text.rpartition("end ")
    lines = body.split("\n")
    if not body or check != f"{_sum(body)}\n" or lines[0] != _MAGIC or len(lines) < 13 or lines[-6] != _LAST:
        return None
    boot, words, home, folder, file = lines[1:6]
    pairs = [line.partition("|") for line in lines[6:-6]]
    content_hash, repository, token, call = lines[-5:-1]
    terms = Terms(call, tuple((path, stamp) for stamp, _, path in pairs), (words, home, folder))
    return Marker(boot, file, content_hash, repository, token, terms)


def write(path: str, marker: Marker) -> None:
    """Leave the marker of the WAL file at `path`; OSError when that cannot be done.

    A path that holds a line's end cannot be written down: then there is no marker.
    """
    about = marker.terms
    files = [f"{known}|{other}" for other, known in about.files]
    shell = about.shell if all(line.isascii() for line in (*files, *about.shell)) else (_MUTE, "", "")
    lines = [_MAGIC, marker.boot, *shell, marker.file, *files, _LAST]
    lines += [marker.content_hash, marker.repository, marker.token, about.call]
    if any("\n" in line for line in lines):
        return
    body = "\n".join(lines) + "\n"
    target = path_of(path)
    temporary = f"{target}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{body}end {_sum(body)}\n".encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)
    os.rename(temporary, target)


def remove_stale(folder: str) -> None:
    """Take away the markers of the pg_wal at `folder` that no call will ask for: PostgreSQL has noted the file as
    archived, or has removed it, or no process is left that could finish writing them.
    """
    markers = os.path.join(folder, FOLDER)
    for name in os.listdir(markers):
        file = os.path.join(folder, name)
        if name == LOCK or (os.path.exists(file) and not os.path.exists(os.path.join(folder, _STATUS, f"{name}.done"))):
            continue
        if os.path.exists(f"/proc/{name.rpartition('.')[2]}"):
            continue
        try:
            os.unlink(os.path.join(markers, name))
        except FileNotFoundError:
            continue


_STATUS = "archive_status"


def path_of(path: str) -> str:
    """Where the marker of the WAL file at `path` lies."""
    folder, name = os.path.split(path)
    return os.path.join(folder, FOLDER, name)


def _ready(path: str) -> str:
    """PostgreSQL's own mark that the file waits to be archived (xlogarchive.c, XLogArchiveNotify)."""
    folder, name = os.path.split(path)
    return os.path.join(folder, _STATUS, f"{name}.ready")


def _call(options: Mapping[str, str], environment: Mapping[str, str], config: str) -> str:
    """Short, and tells no secret.  It guards against changes that somebody made, not against a forger."""
    words = [f"{name}={options[name]}" for name in sorted(options)]
    words += [f"{name}={environment[name]}" for name in sorted(environment) if name.startswith("PGKEEP_")]
    return _sum("\0".join([*words, environment.get("HOME", ""), os.getcwd(), _read(config)]))


def _sum(text: str) -> str:
    from binascii import crc32

    data = text.encode("utf-8", "surrogateescape")
    return f"{crc32(data):08x}{len(data):x}"


def _read(path: str) -> str:
    """The text of a small file; '' when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _LONGEST).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
