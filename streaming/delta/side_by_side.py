"""Requests to an object store that do not depend on each other, made at once: each waits for an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")

# No workers: whoever has handed something in waits for all of it, and raises what it has raised.
_POOL = ThreadPoolExecutor(32, thread_name_prefix="side-by-side")


def side_by_side(several: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call several functions at once and return what they return, in their order.

    Where one raises, it is raised once all have ended: nothing is under way any more. Calls may not be nested
    deeper than once, or they would wait for each other.
    """
    if len(several) == 1:
        return [several[0]()]
    futures = [_POOL.submit(each) for each in several]
    wait(futures)
    return [each.result() for each in futures]
