"""The JSON object in what a model has said: alone, in a fence, or after thinking aloud."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_REST_OF_A_THOUGHT = re.compile(r"\A.*</(think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_MOST_CHARACTERS = 200_000
_MOST_STARTS = 64


def object_in(text: str) -> str | None:
    """Return the one JSON object in a text, None where there is none or more than one.

    What stands within an object is part of it. Of what was thought aloud nothing counts.
    """
    if len(text) > _MOST_CHARACTERS:
        return None
    whole = list(_objects(text))
    if len(whole) == 1 and whole[0] == text.strip():
        return whole[0]
    found = list(_objects(without_thoughts(text)))
    return found[0] if len(found) == 1 else None


def without_thoughts(text: str) -> str:
    """Return a text without what the model has thought aloud, where it marks that."""
    return _REST_OF_A_THOUGHT.sub("", _THOUGHT.sub("", text))


def _objects(text: str) -> Iterator[str]:
    decoder, place = json.JSONDecoder(), 0
    for _ in range(_MOST_STARTS):
        start = text.find("{", place)
        if start < 0:
            return
        try:
            _, place = decoder.raw_decode(text, start)
            yield text[start:place]
        except (ValueError, RecursionError):
            place = start + 1
