"""Events as JSON text, made of the text of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.event_paths import steps_of

_MOST_PLACES = 1_000


class Quoted(NamedTuple):
    """Texts that become strings of JSON by quotes alone: none is null or holds what is escaped."""

    texts: pa.StringArray


class _Node:
    """An object or an array of an event while it is put together."""

    def __init__(self) -> None:
        self.parts: dict[str | int, _Node | str] = {}

    def put(self, steps: tuple[str | int, ...], field: str) -> bool:
        """Put a field at its place; return False where another one is in the way."""
        head, *rest = steps
        if self.parts and any(isinstance(each, int) != isinstance(head, int) for each in self.parts):
            return False
        if not rest:
            return self.parts.setdefault(head, field) is field
        below = self.parts.setdefault(head, _Node())
        return isinstance(below, _Node) and below.put(tuple(rest), field)


def event_texts(fields: Mapping[str, pa.StringArray | Quoted]) -> list[bytes]:
    """Return each row as one JSON object.

    Args:
        fields: JSON text of each row's value, or what quotes make that, by the path that leads to it in an
            event. Places of an array that no path names are null.
    """
    pieces: list[str | pa.StringArray] = []
    _write(_tree(list(fields)), fields, pieces)
    joined: list[str | pa.StringArray] = [""]
    for piece in pieces:
        if isinstance(piece, str) and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    rows = pc.binary_join_element_wise(
        *(each for each in joined if not (isinstance(each, str) and not each)), ""
    )
    return cast("list[bytes]", rows.cast(pa.binary()).to_pylist())


def _tree(paths: list[str]) -> _Node:
    """Paths of which one is in the way of the other become keys of the event that read like a path."""
    root = _Node()
    for path in paths:
        steps = steps_of(path)
        large = any(isinstance(step, int) and step >= _MOST_PLACES for step in steps)
        if large or isinstance(steps[0], int) or not root.put(steps, path):
            root.parts[path] = path
    return root


def _write(
    node: _Node, fields: Mapping[str, pa.StringArray | Quoted], pieces: list[str | pa.StringArray]
) -> None:
    is_array = any(isinstance(each, int) for each in node.parts)
    places = range(max(cast("dict[int, object]", node.parts)) + 1) if is_array else node.parts
    pieces.append("[" if is_array else "{")
    for number, place in enumerate(places):
        pieces.append("," if number else "")
        pieces.append("" if is_array else f"{orjson.dumps(place).decode()}:")
        part = node.parts.get(place)
        if isinstance(part, _Node):
            _write(part, fields, pieces)
        else:
            pieces += ["null"] if part is None else _pieces(fields[part])
    pieces.append("]" if is_array else "}")


def _pieces(field: pa.StringArray | Quoted) -> list[str | pa.StringArray]:
    return ['"', field.texts, '"'] if isinstance(field, Quoted) else [field]
