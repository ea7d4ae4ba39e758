"""Physical backups: which bytes are read, by whom, and in which order the backup comes into being.

Rules of this room:

1. The order is the promise: start, copy, pg_control last, stop, WAL in the archive, manifest (docs/format/order.md).
   Whatever ends a backup before its manifest leaves packs that nobody names and earlier backups as they were.
2. Workers read and pack; the job decides.  What a worker saw that it cannot judge alone (a page that may be torn, a
   file that went away) it reports.
3. `tasks` and `assemble` are pure; `job` is the only file here that knows the server.
"""
