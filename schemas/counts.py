"""Numbers of things in messages for people."""

from __future__ import annotations


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 call`, `0 calls`, `1,200 batches`.

    Args:
        noun: in the singular.
        plural: by default the noun with an s.
    """
    many = f"{noun}s" if plural is None else plural
    return f"{number:,} {noun if number == 1 else many}"
