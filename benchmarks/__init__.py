"""Races of pgkeep against its peers on a real cluster; docs/performance.md says how to read them.

Rules of this room:

1. pgkeep is known here by its command line alone, like every other contender.  Only where PostgreSQL's programs
   are found is asked of the tests (tests/servers.py).
2. Peers race tuned, and what was tuned is printed with the result.
3. Each contender has its own copy of one stopped cluster and its own `archive_command`; each timed backup goes
   to a fresh repository.  What is prepared is prepared outside the clock.
4. Runs alternate and their order turns round after each pair; a warm-up comes first, a checkpoint and `sync`
   before every run.  Medians and paired ratios are quoted, never a second measured alone.
5. A race fails when a tool fails or restores something else than was backed up; it never fails by the clock.

Modules, top down: __main__ (the command), report, bounds, race, contenders, data, server, measure, bare.
Apart from them, decisions.py measures parts of pgkeep from within, for docs/decisions.
"""
