"""How answers and progress look: on a terminal, in a log, and as JSON.

Rules of this room:

1. Nothing here computes what is shown; it formats values that were handed in.
2. Text for people may change at any time; JSON changes only with its schema number.
3. Colour and emphasis carry no meaning of their own: everything can be read without them.
"""
