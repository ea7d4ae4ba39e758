"""One TOML file, and what the environment overrides of it, become frozen settings.

Rules of this room:

1. A key that pgkeep does not know is an error that names the line and the nearest known key: a misspelt retention must
   not look like a default.  A key that a later version will know is refused as such.
2. The environment arrives as a mapping; only cli reads the real one.
3. `wal push` and `wal get` load the file for every segment: the standard library alone, and what only an error needs
   is imported when there is one.

Import from the modules: `find` (which file), `load` (its meaning), `settings` (the values), `generate` (a new file).
"""
