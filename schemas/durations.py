"""Lengths of time in words."""

from __future__ import annotations

from functools import lru_cache

_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


@lru_cache(maxsize=1024)
def duration_text(seconds: float) -> str:
    """Write seconds in the largest unit that divides them: `30 days`, `1 hour`, `90 seconds`."""
    for size, unit in _UNITS:
        if seconds % size == 0:
            return f"{seconds / size:.0f} {unit}{'' if seconds == size else 's'}"
    return f"{seconds:g} seconds"


def elapsed_text(seconds: float) -> str:
    """Write an elapsed time in its two largest units: `1 hour 5 minutes`, `2 days`, `4.25 seconds`."""
    parts, rest = [], seconds
    for size, unit in _UNITS[:-1]:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count:.0f} {unit}{'' if count == 1 else 's'}")
    if rest or not parts:
        parts.append(f"{rest:g} second{'' if rest == 1 else 's'}")
    return " ".join(parts[:2])
