"""Makes the tables of protobuf_kernels out of the shape of a message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from google.protobuf.descriptor import FieldDescriptor as Of

from streaming.events import protobuf_kernels as kernels
from streaming.events.json_strings import FALSE, FLOAT, INTEGER, STRING
from streaming.events.protobuf_kernels import Table
from streaming.events.protobuf_shape import Node, ShapeField, Target

_MOST_NAMES = 4_096
# By type: what it is, its wire type, its bits, whether fixed bytes are signed.
_SCALARS = {
    Of.TYPE_INT32: (kernels.WHOLE, kernels.VARIES, 32, 0),
    Of.TYPE_INT64: (kernels.WHOLE, kernels.VARIES, 64, 0),
    Of.TYPE_UINT32: (kernels.UNSIGNED, kernels.VARIES, 32, 0),
    Of.TYPE_UINT64: (kernels.UNSIGNED, kernels.VARIES, 64, 0),
    Of.TYPE_SINT32: (kernels.SIGNED, kernels.VARIES, 32, 0),
    Of.TYPE_SINT64: (kernels.SIGNED, kernels.VARIES, 64, 0),
    Of.TYPE_BOOL: (kernels.BOOLEAN, kernels.VARIES, 64, 0),
    Of.TYPE_ENUM: (kernels.NAMED, kernels.VARIES, 32, 0),
    Of.TYPE_FIXED32: (kernels.FIXED4, kernels.FOUR, 32, 0),
    Of.TYPE_FIXED64: (kernels.FIXED8, kernels.EIGHT, 64, 0),
    Of.TYPE_SFIXED32: (kernels.FIXED4, kernels.FOUR, 32, 1),
    Of.TYPE_SFIXED64: (kernels.FIXED8, kernels.EIGHT, 64, 1),
    Of.TYPE_FLOAT: (kernels.FLOAT4, kernels.FOUR, 0, 0),
    Of.TYPE_DOUBLE: (kernels.FLOAT8, kernels.EIGHT, 0, 0),
    Of.TYPE_STRING: (kernels.TEXT, kernels.SIZED, 0, 0),
    Of.TYPE_BYTES: (kernels.UNSURE, kernels.SIZED, 0, 0),
    Of.TYPE_MESSAGE: (kernels.PASSED, kernels.SIZED, 0, 0),
    Of.TYPE_GROUP: (kernels.UNSURE, kernels.SIZED, 0, 0),
}
_PLAIN_NUMBERS = (kernels.WHOLE, kernels.UNSIGNED, kernels.SIGNED, kernels.FIXED4, kernels.FIXED8)


def table_of(nodes: Sequence[Node]) -> Table:
    """Return the table by which messages of a shape are read."""
    return _Maker(nodes).made()


class _Maker:
    """A table while it is made."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = list(nodes)
        self._fields: list[list[int]] = []
        self._names: list[int] = []
        self._defaults: list[list[int]] = []
        self._symbols = bytearray(b"0")
        self._groups: dict[tuple[int, int], int] = {}

    def made(self) -> Table:
        bounds = []
        dense = np.full((len(self._nodes), kernels.DENSE), -1, np.int64)
        for place, node in enumerate(self._nodes):
            first = len(self._fields)
            for field in node:
                if field.number < kernels.DENSE:
                    dense[place, field.number] = len(self._fields)
                self._field(place, field)
            bounds.append((first, len(self._fields)))
        return Table(
            np.array(self._fields, np.int64).reshape(-1, kernels.FIELD_COLUMNS),
            np.array(bounds, np.int64),
            dense,
            np.array(self._names or [0], np.int64),
            np.array(self._defaults, np.int64).reshape(-1, 5),
            np.frombuffer(bytes(self._symbols), np.uint8),
        )

    def _field(self, node: int, field: ShapeField) -> None:
        """Add a field, once for each place of a list from which something is wanted."""
        places = [place for place in field.targets if isinstance(place, int)]
        unsure = any(isinstance(place, str) for place in field.targets) or (
            field.repeated and None in field.targets
        )
        if field.repeated and (unsure or not places):
            self._add(field, kernels.UNSURE if unsure else kernels.PASSED)
        for each, place in enumerate(places if not unsure else ()):
            self._target(node, field, field.targets[place], place, more=each < len(places) - 1)
        if not field.repeated:
            self._target(node, field, field.targets.get(None), -1, more=False)

    def _target(self, node: int, field: ShapeField, target: Target | None, place: int, *, more: bool) -> None:
        what = kernels.PASSED if target is None else self._what(field, target)
        if place >= 0 and _SCALARS[field.type][1] != kernels.SIZED:
            what = kernels.UNSURE  # numbers in lists may be packed
        added = self._add(field, what)
        added[kernels.PLACE] = place
        added[kernels.NEXT] = len(self._fields) if more else -1
        if field.oneof is not None:
            added[kernels.ONEOF] = self._groups.setdefault((node, field.oneof), len(self._groups))
        if target is None:
            return
        number = -1 if target.number is None else target.number
        added[kernels.OUT] = number
        if what == kernels.INNER:
            added[kernels.CHILD] = -1 if target.node is None else target.node
            added[kernels.OUT] = number if target.leaf == "container" else -1
        if what == kernels.NAMED:
            added[kernels.SYMBOLS] = self._enumeration(field)
        if target.leaf == "wrapper" and what == kernels.INNER:
            self._wrapped(target)
        if place < 0 and not field.presence and number >= 0:
            self._default(node, field, number, what)

    def _what(self, field: ShapeField, target: Target) -> int:
        if target.leaf == "scalar":
            return _SCALARS[field.type][0] if target.number is not None else kernels.PASSED
        if field.type == Of.TYPE_GROUP:
            return kernels.UNSURE
        if target.leaf == "instant":
            return kernels.TIME if target.as_time and self._is_alone(target) else kernels.UNSURE
        if target.leaf == "wrapper" and not self._is_alone(target):
            return kernels.UNSURE
        return kernels.INNER

    def _is_alone(self, target: Target) -> bool:
        """Return whether nothing else is wanted within a message that stands for one value."""
        assert target.node is not None
        inner = (each for field in self._nodes[target.node] for each in field.targets.values())
        return all(each.number is None for each in inner)

    def _wrapped(self, target: Target) -> None:
        """Have the value within a wrapper read as what is wanted of the wrapper."""
        assert target.node is not None and target.number is not None
        node = list(self._nodes[target.node])
        for place, inner in enumerate(node):
            value = inner.targets.get(None)
            if value is not None and value.number is None:
                targets: dict[int | str | None, Target] = {None: Target("scalar", target.number)}
                node[place] = ShapeField(
                    inner.number, inner.type, inner.presence, False, None, inner.names, targets
                )
        self._nodes[target.node] = tuple(node)

    def _add(self, field: ShapeField, what: int) -> list[int]:
        _, wire, bits, signed = _SCALARS[field.type]
        self._fields.append([field.number, what, wire, -1, -1, -1, -1, -1, bits, 0, signed])
        return self._fields[-1]

    def _enumeration(self, field: ShapeField) -> int:
        at = len(self._names)
        known = {number: name for number, name in field.names.items() if 0 <= number < _MOST_NAMES}
        most = max(known, default=-1) + 1
        self._names += [most, *[-1] * (2 * most)]
        for number, name in known.items():
            begin = len(self._symbols)
            self._symbols += name.encode()
            self._names[at + 1 + 2 * number : at + 3 + 2 * number] = [begin, len(self._symbols)]
        return at

    def _default(self, node: int, field: ShapeField, number: int, what: int) -> None:
        """Say what an absent field is that has no presence: zero, false, no text, or the name of zero."""
        if what in _PLAIN_NUMBERS:
            default = [INTEGER, 0, 1]
        elif what in (kernels.FLOAT4, kernels.FLOAT8):
            default = [FLOAT, 0, 0]
        elif what == kernels.BOOLEAN:
            default = [FALSE, 0, 0]
        elif what == kernels.NAMED and 0 not in field.names:
            default = [INTEGER, 0, 1]
        elif what == kernels.NAMED:
            at = self._fields[-1][kernels.SYMBOLS]
            default = [STRING, self._names[at + 1], self._names[at + 2]]
        else:
            default = [STRING, 0, 0]
        self._defaults.append([node, number, *default])
