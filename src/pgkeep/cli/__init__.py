"""The command line: the only room (with web) that prints, prompts, exits or reads the environment.

Rules of this room:

1. A verb's file parses its options, calls one function of `pgkeep.app`, and hands the answer to `render`.  No decision
   about data is made here.
2. `main` is the one place where an error becomes text or JSON, and an exit status (docs/exit-status.md).
3. Answers go to stdout; progress, warnings and errors go to stderr.  With --json, stdout holds JSON lines and nothing
   else (docs/json.md).
4. `fast` serves `wal push` and `wal get` before click and rich are imported: nothing at its top but the standard
   library, and little of that.
"""
