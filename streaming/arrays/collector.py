"""Python's collector of cycles, set for processes that hold much and make much at once."""

from __future__ import annotations

import atexit
import gc
from functools import cache

_YOUNG = 50_000  # objects; a batch makes rows by the thousand, and hardly ever a cycle


@cache
def spare_what_is_loaded() -> None:
    """Leave what a process has loaded out of every further search for cycles, and search more rarely.

    Modules and kernels are a million objects that stay. Each search through all of them takes a fifth of a
    second, and the rows that a batch makes bring several. Once per process; what is made later is collected,
    but more rarely.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries complain at the end of whatever is still held then
    gc.set_threshold(_YOUNG, 20, 20)
