"""Immutable values shared by all rooms: no I/O, no clock, no randomness.  Import from the modules."""
