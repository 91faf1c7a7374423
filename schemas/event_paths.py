"""Paths to values in an event.

`amount` names a key of the event, `card.token` a key below a key, `items[0].sku` a place in an array.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Steps = tuple[str | int, ...]

_INDEXED = re.compile(r"(?s)(.*?)((?:\[[0-9]{1,9}\])+)")


def steps_of(path: str) -> Steps:
    """Return the keys and indexes of a path, outermost first."""
    steps: list[str | int] = []
    for part in path.split("."):
        found = _INDEXED.fullmatch(part)
        if found is None:
            steps.append(part)
            continue
        steps += [found[1]] if found[1] else []
        steps += [int(each) for each in found[2][1:-1].split("][")]
    return tuple(steps)


def look_up(event: Mapping[str, Any], path: str, steps: Steps, absent: Any = None) -> Any:
    """Return the value at a path, `absent` where there is none.

    A key of the event itself that reads like the whole path goes first.
    """
    if len(steps) == 1 or path in event:
        return event.get(path, absent)
    found: Any = event
    for step in steps:
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and step < len(found) else absent
        else:
            found = found.get(step, absent) if isinstance(found, dict) else absent
    return found
