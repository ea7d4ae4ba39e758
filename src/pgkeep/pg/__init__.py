"""Everything that speaks to PostgreSQL: its servers, its programs, and its files; ignorant of repositories.

Rules of the room:

1. Nothing here knows of packs, manifests or stores.  What is learnt about PostgreSQL leaves as frozen values.
2. Only this room imports psycopg or starts a PostgreSQL program.
3. Readers of files (`controlfile`, `datadir`, `page`, `relfile`, `relmap`, `walfile`, `backuplabel`) need no server
   and never write.  Bytes that are not what PostgreSQL writes become a Fault, never another exception.
4. `wal push` and `wal get` import `walfile` and `controlfile` before they know that there is work: those two, and
   what they import, stay within the standard library.  numpy is for `page` alone.
5. Supported are PostgreSQL 14 to 18 with 8 KiB blocks, on little-endian 64-bit machines; anything else is refused
   by `controlfile` before a page is read.

Import from the modules.
"""
