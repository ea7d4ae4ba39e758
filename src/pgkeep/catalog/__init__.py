"""What a repository holds, seen as a whole: timelines, unbroken stretches of WAL, backups and what they can recover to.

Rules of this room:

1. It reads and never writes.
2. `timelines` and `continuity` judge values without I/O, apart from reading history files: retention, restore,
   doctor and `wal get` must come to the same answer about a gap.
3. A damaged object becomes part of the answer; it never hides the others.

Import from the modules.
"""
