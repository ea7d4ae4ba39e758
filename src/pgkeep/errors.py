"""Fault, the one base of every error that pgkeep raises on purpose.

Rules of this file:

1. Every fault carries a permanent code from `CODES`, so that scripts and documents can rely on it.
2. The message is a lower-case sentence: what was found, and what was expected.  The hint is the way out.
3. The exit status belongs to the code, not to the place that raises it (docs/exit-status.md).
4. Foreign exceptions (OSError, psycopg.Error ...) stop at the adapter that met them and become a Fault there.
"""

from __future__ import annotations

from typing import Any, Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_PARTIAL: Final = 3
EXIT_NO_REPOSITORY: Final = 10
EXIT_LOCKED: Final = 11
EXIT_KEY: Final = 12
EXIT_TARGET: Final = 13
EXIT_VERIFY: Final = 14
EXIT_POSTGRES: Final = 20
EXIT_INTERRUPTED: Final = 130

CODES: Final[dict[str, int]] = {
    # usage and configuration
    "usage": EXIT_USAGE,
    "config-missing": EXIT_USAGE,
    "config-invalid": EXIT_USAGE,
    "time-without-zone": EXIT_USAGE,
    "time-unreadable": EXIT_USAGE,
    # the store
    "store-unreachable": EXIT_FAILED,
    "store-full": EXIT_FAILED,
    "store-denied": EXIT_FAILED,
    "store-read-only": EXIT_FAILED,
    "object-missing": EXIT_FAILED,
    "object-exists": EXIT_FAILED,
    # the format
    "format-damaged": EXIT_VERIFY,
    "format-unsupported": EXIT_FAILED,
    # the repository
    "no-repository": EXIT_NO_REPOSITORY,
    "repository-exists": EXIT_FAILED,
    "cluster-unknown": EXIT_NO_REPOSITORY,
    "cluster-mismatch": EXIT_FAILED,
    "locked": EXIT_LOCKED,
    "key-missing": EXIT_KEY,
    "verify-failed": EXIT_VERIFY,
    "backup-unknown": EXIT_FAILED,
    "backup-held": EXIT_FAILED,
    "backup-retired": EXIT_FAILED,
    "lease-lost": EXIT_FAILED,
    "dump-unknown": EXIT_FAILED,
    "dump-too-large": EXIT_FAILED,
    # PostgreSQL
    "postgres-unreachable": EXIT_POSTGRES,
    "postgres-lost": EXIT_POSTGRES,
    "postgres-rights": EXIT_FAILED,
    "postgres-settings": EXIT_FAILED,
    "postgres-version": EXIT_FAILED,
    "postgres-program": EXIT_FAILED,
    "database-unknown": EXIT_FAILED,
    "datadir-mismatch": EXIT_FAILED,
    "datadir-invalid": EXIT_FAILED,
    # backup
    "backup-invalidated": EXIT_FAILED,
    "base-doubtful": EXIT_FAILED,
    "summary-damaged": EXIT_FAILED,
    "wal-not-archived": EXIT_FAILED,
    "wal-differs": EXIT_FAILED,
    "worker-died": EXIT_FAILED,
    # WAL archive
    "wal-refused": EXIT_FAILED,
    "wal-claimed": EXIT_FAILED,
    "wal-gap": EXIT_FAILED,
    "wal-missing": EXIT_FAILED,
    # restore
    "target-unreachable": EXIT_TARGET,
    "target-not-empty": EXIT_FAILED,
    "target-in-use": EXIT_FAILED,
    "target-space": EXIT_FAILED,
    "target-unsafe": EXIT_FAILED,
    "tablespace-unsafe": EXIT_FAILED,
    "recovery-failed": EXIT_FAILED,
    # dumps and loads
    "dump-damaged": EXIT_FAILED,
    "dump-unsupported": EXIT_FAILED,
    "lock-timeout": EXIT_FAILED,
    "load-refused": EXIT_FAILED,
    "load-failed": EXIT_FAILED,
    "load-in-part": EXIT_PARTIAL,
    "io": EXIT_FAILED,
    "interrupted": EXIT_INTERRUPTED,
    # a mistake in pgkeep itself, never raised on purpose
    "internal": EXIT_FAILED,
}


class Fault(Exception):
    """An expected failure: permanent code, sentence, way out, and machine-readable context.

    Raises KeyError for a code that is not in the catalogue: a new code is added there first.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.exit_status = CODES[code]
        self.code = code
        self.message = message
        self.hint = hint
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:
        # Faults cross process boundaries (workers send them to the job), so they must pickle.
        return (_rebuild, (self.code, self.message, self.hint, self.context))

    def __str__(self) -> str:
        return self.message

    def as_json(self) -> dict[str, Any]:
        """The shape that `--json` prints on failure (docs/json.md)."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint or None,
            "context": {key: str(value) for key, value in self.context.items()},
        }


def _rebuild(code: str, message: str, hint: str, context: dict[str, Any]) -> Fault:
    return Fault(code, message, hint=hint, **context)


class Damaged(Fault):
    """Bytes of the repository that are not what the format says; always names the object."""

    HINT: Final = "pgkeep verify shows everything that is damaged; put this object back from a copy of the repository"

    def __init__(self, obj: str, message: str, *, hint: str = HINT, **context: Any) -> None:
        super().__init__("format-damaged", f"{obj}: {message}", hint=hint, object=obj, **context)
        self.object = obj
        self._args = (obj, message, hint, context)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_damaged, self._args)


def _rebuild_damaged(obj: str, message: str, hint: str, context: dict[str, Any]) -> Damaged:
    return Damaged(obj, message, hint=hint, **context)
