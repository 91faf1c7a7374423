"""Fields that have other names in some records: an event's field was renamed, and both kinds are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from streaming.arrays.compilation import Flags
from streaming.events.found import Found


def with_aliases(
    found: Mapping[str, Found], aliases: Mapping[str, Sequence[str]], vouched: Flags
) -> dict[str, Found]:
    """Return what was found of each field, of its aliases in turn where it is absent or null.

    Rows of which that cannot be said at once are not vouched for any more.
    """
    merged = dict(found)
    for field, others in aliases.items():
        for other in others:
            merged[field] = _either(merged[field], found[other], vouched)
    return merged


def _either(first: Found, second: Found, vouched: Flags) -> Found:
    absent = first.are_null()
    if first.data is not second.data:
        vouched &= ~absent | second.are_null()
        return first
    chosen = (
        np.where(absent, theirs, ours)
        for ours, theirs in (
            (first.kinds, second.kinds),
            (first.starts, second.starts),
            (first.ends, second.ends),
        )
    )
    return Found(first.data, *chosen)
