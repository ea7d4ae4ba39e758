"""Bytes <-> values of the repository format, version 1.  docs/format/ is the normative text; this room is its code.

Rules of this room:

1. Pure: no store, no server, no file, no clock, no randomness.  Bytes in, values out, and back.
2. Every length is checked against `limits` before anything is allocated for it.
3. Damaged input raises `Damaged` with the object's name, or `format-unsupported` for what a newer version wrote;
   never another exception, whatever the bytes (tests/format/test_survival.py).
4. Unknown *critical* sections are refused, unknown others are skipped.
5. What is frozen is frozen: a change of meaning is a new section type or a new format version.
"""
