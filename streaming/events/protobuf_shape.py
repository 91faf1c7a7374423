"""What of a Protobuf message is read: the fields on wanted paths, and those that they exclude.

Everything else is passed over by its wire type, so that what nobody reads can break nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from google.protobuf.descriptor import FieldDescriptor

from streaming.events.wanted_paths import Wanted

GROUP, MESSAGE, BYTES, ENUM = (
    FieldDescriptor.TYPE_GROUP,
    FieldDescriptor.TYPE_MESSAGE,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_ENUM,
)
_TIMESTAMP = "google.protobuf.Timestamp"
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
Leaf = Literal["scalar", "instant", "wrapper", "container", "within"]


@dataclass(frozen=True)
class Target:
    """What is wanted of one value.

    Attributes:
        leaf: what it is taken for; `within` where only something inside it is wanted.
        number: of the path that ends here, None for none.
        as_time: that path is of the event time alone.
        node: of the message, None for a scalar.
    """

    leaf: Leaf
    number: int | None = None
    as_time: bool = False
    node: int | None = None


@dataclass(frozen=True)
class ShapeField:
    """A field of a message.

    Attributes:
        number: on the wire.
        type: as descriptors number types.
        presence: whether an absent one is null, rather than zero.
        repeated: whether it is a list or a map.
        oneof: which group of fields it excludes, None for none.
        names: of the values of an enumeration.
        targets: what is wanted, by place in a list or key of a map, by None of a single value.
    """

    number: int
    type: int
    presence: bool
    repeated: bool
    oneof: int | None
    names: Mapping[int, str]
    targets: Mapping[int | str | None, Target]


Node = tuple[ShapeField, ...]


def shape_of(message: Any, wanted: Wanted) -> tuple[Node, ...]:
    """Return the nodes of what is wanted of a message; node 0 is the message itself."""
    nodes: list[Node] = [()]
    nodes[0] = _fields(message, wanted, nodes)
    return tuple(nodes)


def _fields(message: Any, wanted: Wanted, nodes: list[Node]) -> Node:
    fields = [
        _field(field, wanted.below[field.name], nodes)
        for field in message.fields
        if field.name in wanted.below
    ]
    excluded = {each.oneof for each in fields if each.oneof is not None}
    known = {each.number for each in fields}
    rivals = [each for each in message.fields if _oneof(each) in excluded and each.number not in known]
    return (*fields, *(_rival(each) for each in rivals))


def _field(field: Any, wanted: Wanted, nodes: list[Node]) -> ShapeField:
    if not field.is_repeated:
        return _described(field, {None: _target(field, wanted, nodes)})
    targets: dict[int | str | None, Target] = {}
    if wanted.number is not None:
        targets[None] = Target("container", wanted.number)
    entry = _entry(field)
    for step, below in wanted.below.items():
        if entry is None and isinstance(step, int):
            targets[step] = _target(field, below, nodes)
        elif entry is not None and isinstance(step, str):
            nodes.append(())
            place = len(nodes) - 1
            nodes[place] = _fields(entry, Wanted(below={"key": Wanted(), "value": below}), nodes)
            targets[step] = Target("within", node=place)
    return _described(field, targets)


def _described(field: Any, targets: Mapping[int | str | None, Target]) -> ShapeField:
    names: dict[int, str] = {}
    if field.enum_type is not None:
        for value in field.enum_type.values:
            names.setdefault(value.number, value.name)
    return ShapeField(
        field.number, field.type, field.has_presence, field.is_repeated, _oneof(field), names, targets
    )


def _rival(field: Any) -> ShapeField:
    return replace(_described(field, {}), names={})


def _target(field: Any, wanted: Wanted, nodes: list[Node]) -> Target:
    """Describe one value: a scalar, a message that stands for one, or one with something wanted inside."""
    if field.type not in (MESSAGE, GROUP):
        return Target("scalar", wanted.number, wanted.as_time)
    leaf, below = _leaf(field.message_type.full_name, wanted), dict(wanted.below)
    if leaf == "instant":
        below = {"seconds": Wanted(), "nanos": Wanted(), **below}
    elif leaf == "wrapper":
        below = {"value": Wanted(), **below}
    nodes.append(())
    node = len(nodes) - 1
    nodes[node] = _fields(field.message_type, replace(wanted, below=below), nodes)
    return Target(leaf, wanted.number, wanted.as_time, node)


def _leaf(name: str, wanted: Wanted) -> Leaf:
    if wanted.number is None:
        return "within"
    if name == _TIMESTAMP:
        return "instant"
    return "wrapper" if name in _WRAPPERS else "container"


def _entry(field: Any) -> Any:
    """Return the message of a map's entries, None for a list."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def _oneof(field: Any) -> int | None:
    """Return which fields exclude each other with this one; an optional field alone excludes none."""
    oneof = field.containing_oneof
    return None if oneof is None or len(oneof.fields) == 1 else int(oneof.index)
