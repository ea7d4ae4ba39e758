"""WAL into the repository and back: what archive_command and restore_command run, once a segment.

Rules of this room:

1. `push` reports success only for bytes that the repository holds durably under that name.  Everything else is a
   Fault, so that PostgreSQL keeps its file and asks again.
2. One instance archives a timeline: the holder of its claim.  Clones write different WAL under equal names, and
   nothing in the files tells them apart (docs/format/wal.md).
3. `get` says "missing" only for what is truly not there, because PostgreSQL takes that for the end of WAL and opens
   the server.  An outage, a gap and a dead branch are Faults, and the command exits with `get.EXIT_FAILED`.
4. Start-up time is the room's budget: no numpy, no SQL, no terminal.

Import from the modules.
"""
