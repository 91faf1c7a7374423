from __future__ import annotations

from streaming.home.java_properties import property_lines


def parse_properties(text: str) -> dict[str, str]:
    """Values by key; of a key that stands there twice the last one counts."""
    return {line.key: line.value for line in property_lines(text)}
