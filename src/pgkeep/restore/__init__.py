"""From a backup and the WAL archive to a data directory, and to a server at the moment that was asked for.

Rules of this room:

1. Plan first: which backup, which timeline, which WAL, what will be written.  Every refusal comes from the plan or the
   preflight, before a byte is written, and names the way out.
2. A directory that is not finished cannot start: global/pg_control is written last, after everything else is durable.
3. Nothing is written outside the target and the tablespace directories that the plan names, whatever the manifest
   says: paths are walked step by step from open directories, and no symbolic link is followed (`tree`).
4. A tablespace never goes to its original path unless it was mapped there on purpose (rule A of `tablespaces`).
5. The timeline of a recovery is always an explicit number, and exactly one recovery target is set.
6. A restored server archives nothing, talks to nobody and uses none of production's files until it is adopted.

Neighbours: `backup` and `wal` are never imported; what recovery may read is handed to `wal get` in a RecoveryLineage.
"""
