"""What the fork server imports first (crew.prepare): how it runs its interpreter, and that it ends at once.

Importing this changes the process: nobody else may.
"""

from __future__ import annotations

import atexit
import os

from pgkeep.interpreter import spare_collection

spare_collection()
atexit.register(os._exit, 0)  # registered first, so called last
