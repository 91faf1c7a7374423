"""The tree that several paths make.

A key of the event itself that reads like a whole path goes first; a lone `[0]` is never anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from schemas.event_paths import steps_of
from streaming.arrays.compilation import Bytes, Ints

UNWANTED, REFUSED = -1, -2
BEGIN, END, PLACE, FIELD, OBJECT, ARRAY = range(6)
FIRST, LAST, PARENT, CLOSING = range(4)


class PathTree(NamedTuple):
    """The wanted paths. Node 0 is the record; the slots of a node are what is wanted of it.

    Attributes:
        names: uint8, the keys of all slots, one after the other.
        slots: int64[slots, 6]; by `BEGIN` and `END` a slot's key in `names`, by `PLACE` its index in an array
            (ascending within a node) or -1, by `FIELD` the number of the path that ends there, or `UNWANTED`,
            or `REFUSED` where the key would be taken for a whole path, or where several end; by `OBJECT` and
            `ARRAY` the node that such a value leads to, or -1.
        nodes: int64[nodes, 4]; by `FIRST` and `LAST` a node's slots, by `PARENT` where it belongs, by
            `CLOSING` the byte that ends it.
    """

    names: Bytes
    slots: Ints
    nodes: Ints


class _Slot:
    """A place in the tree while it grows."""

    def __init__(self) -> None:
        self.field = UNWANTED
        self.below: dict[bool, dict[str | int, _Slot]] = {}

    def child(self, step: str | int) -> _Slot:
        return self.below.setdefault(isinstance(step, int), {}).setdefault(step, _Slot())


def tree_of(paths: Sequence[str]) -> PathTree:
    """Return the tree of some paths; the number of a path is its place among them."""
    root = _Slot()
    for number, path in enumerate(paths):
        steps = steps_of(path)
        place = root
        for step in steps if len(steps) > 1 else (path,):
            place = place.child(step)
        place.field = number if place.field == UNWANTED else REFUSED
        if len(steps) > 1 and root.child(path).field == UNWANTED:
            root.child(path).field = REFUSED
    return _flat(root)


def _flat(root: _Slot) -> PathTree:
    nodes = [root.below.get(False, {})]
    parents, arrays = [0], [False]
    slots: list[tuple[str | int, _Slot]] = []
    first, inner = [0], list[dict[bool, int]]()
    for number, node in enumerate(nodes):
        for step, slot in sorted(node.items()) if arrays[number] else node.items():
            slots.append((step, slot))
            inner.append({})
            for is_array, below in slot.below.items():
                inner[-1][is_array] = len(nodes)
                nodes.append(below)
                parents.append(number)
                arrays.append(is_array)
        first.append(len(slots))
    closing = [ord("]" if each else "}") for each in arrays]
    return PathTree(
        *_table(slots, inner),
        nodes=np.array([*zip(first[:-1], first[1:], parents, closing, strict=True)], np.int64),
    )


def _table(
    slots: Sequence[tuple[str | int, _Slot]], inner: Sequence[Mapping[bool, int]]
) -> tuple[Bytes, Ints]:
    """Return the `names` and the `slots` of a PathTree."""
    names = [step.encode("utf-8", "surrogatepass") if isinstance(step, str) else b"" for step, _ in slots]
    bounds = np.cumsum([0, *(len(name) for name in names)])
    table = [
        (
            begin,
            end,
            step if isinstance(step, int) else -1,
            slot.field,
            below.get(False, -1),
            below.get(True, -1),
        )
        for (step, slot), below, (begin, end) in zip(slots, inner, pairwise(bounds), strict=True)
    ]
    return np.frombuffer(b"".join(names), np.uint8), np.array(table, np.int64)
