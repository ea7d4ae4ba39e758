"""Object stores and nothing else.

Rules of this room:

1. `port.Store` says what every store guarantees; nobody above this room knows which one is behind it.
2. A store knows keys and bytes.  What they mean belongs to `format` and `repo`.
3. Retrying, observing and forbidding writes are wrappers in `wrap/`, never branches in a store.
4. Foreign exceptions (OSError ...) become a Fault here.
"""
