"""The name of a batch: which query planned it, and its number there."""

from __future__ import annotations

from typing import NamedTuple


class BatchKey(NamedTuple):
    """A batch of an agent; all attempts at it have the same."""

    query_id: str
    batch_id: int
