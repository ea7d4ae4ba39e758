"""Logical dumps: taken, and loaded again, by PostgreSQL's own programs.

1. Nothing of a server's content touches a disk on its way into or out of the repository, unless a person has named a
   place on a disk for it (`scratch`); after any death of pgkeep a watchdog ends the programs and removes what they
   wrote.
2. A dump to a path appears there as a whole, by a rename, or not at all; a database that a load makes has its name
   only when it is whole, and a load that fails says what it has left.
3. What would be done is a plan (`plan`, `loadplan`), a frozen value, before anything is started.
4. Connections and programs are arguments: this room asks nobody where a server is.

Neighbours: pg (the programs, the server's facts), repo (where dumps lie).  Never imports backup, wal, restore or
retention.
"""
