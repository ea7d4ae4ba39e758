"""The composition root: the only room that knows every other.

Rules of this room:

1. One function for each thing that a person or a schedule can ask for; cli, web and agent call nothing else.
2. It joins rooms and hands values through.  Whatever chooses or computes belongs to a room.
3. Rooms are imported where they are used: `wal push` (`archive`) must not wait for what a restore needs.

Import from the modules: `place` (open what the configuration names), `initialise`, `archive`, and one for each verb.
"""
