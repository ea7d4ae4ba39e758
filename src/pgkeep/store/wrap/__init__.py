"""Wrappers: each takes any `port.Store`, is one, and adds a single habit.

Rules of this room:

1. A wrapper keeps every guarantee of the port; the contract suite runs over each of them.
2. A wrapper never asks which store is behind it.
3. Bad keys raise ValueError at the call, also where the wrapped call comes later (listings).
"""
