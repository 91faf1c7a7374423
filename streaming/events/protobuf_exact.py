"""Reads one Protobuf message as google's own library does: the definition of what a value holds.

It parses by descriptors of its own, made of the wanted fields alone: texts are bytes and enumerations are
numbers there, because one broken text must cost no more than its field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from google.protobuf.descriptor import FieldDescriptor

from streaming.events.protobuf_shape import BYTES, ENUM, GROUP, MESSAGE, Node, ShapeField, Target
from streaming.events.written_values import Instant

_FILE = "flagstream_wanted.proto"
_SECONDS, _NANOS, _VALUE, _KEY = 1, 2, 1, 1
_BY_NUMBER = {
    FieldDescriptor.TYPE_STRING: BYTES,
    FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32,
}


class MessageReader:
    """Reads messages of one shape."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._classes = _classes(nodes)

    def read(self, payload: bytes) -> dict[int, Any]:
        """Return what was found, by the numbers of wanted paths; what is absent is not in it.

        Raises:
            ValueError: it is no such message.
        """
        try:
            return dict(self._values(self._parsed(0, payload), 0))
        except (message.DecodeError, RecursionError) as fault:
            raise ValueError(type(fault).__name__) from None

    def _parsed(self, node: int, payload: bytes) -> Any:
        return self._classes[node].FromString(payload)

    def _values(self, within: Any, node: int) -> Iterator[tuple[int, Any]]:
        for field in self._nodes[node]:
            for place, target in field.targets.items():
                if target.leaf == "container" and target.number is not None and field.repeated:
                    yield target.number, {}
                    continue
                found = self._found(within, field, place, target)
                if found is not None:
                    yield from self._of_target(found, field, target)

    def _found(self, within: Any, field: ShapeField, place: int | str | None, target: Target) -> Any:
        name = f"f{field.number}"
        if place is None:
            return None if field.presence and not within.HasField(name) else getattr(within, name)
        values = getattr(within, name)
        if isinstance(place, str):
            return self._entry(values, place, target)
        if place >= len(values):
            return None
        is_message = target.node is not None
        return self._parsed(target.node, values[place]) if is_message else values[place]  # type: ignore[arg-type]  # a number

    def _entry(self, entries: Sequence[bytes], key: str, target: Target) -> Any:
        """Return the last entry of a map with a key, whatever type its keys have."""
        assert target.node is not None
        found, keys = None, next(each for each in self._nodes[target.node] if each.number == _KEY)
        for each in entries:
            entry = self._parsed(target.node, each)
            if _written(_scalar(getattr(entry, f"f{_KEY}"), keys)) == key:
                found = entry
        return found

    def _of_target(self, found: Any, field: ShapeField, target: Target) -> Iterator[tuple[int, Any]]:
        if target.number is not None:
            yield target.number, self._leaf(found, field, target)
        if target.node is not None:
            yield from self._values(found, target.node)

    def _leaf(self, found: Any, field: ShapeField, target: Target) -> Any:
        if target.leaf == "instant":
            seconds, nanos = (getattr(found, f"f{number}") for number in (_SECONDS, _NANOS))
            return Instant(seconds * 1_000_000 + nanos // 1_000)
        if target.leaf == "wrapper":
            assert target.node is not None
            inner = next(each for each in self._nodes[target.node] if each.number == _VALUE)
            return _scalar(getattr(found, f"f{_VALUE}"), inner)
        return {} if target.leaf == "container" else _scalar(found, field)


def _scalar(value: Any, field: ShapeField) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return value.decode("utf-8", "surrogateescape")
    return field.names.get(value, value) if field.type == ENUM else value


def _written(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _classes(nodes: Sequence[Node]) -> Mapping[int, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, syntax="proto2")
    for number, node in enumerate(nodes):
        _describe(file.message_type.add(name=f"M{number}"), node)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindFileByName(_FILE).message_types_by_name
    return {number: message_factory.GetMessageClass(found[f"M{number}"]) for number in range(len(nodes))}


def _describe(made: Any, node: Node) -> None:
    oneofs = sorted({each.oneof for each in node if each.oneof is not None})
    for oneof in oneofs:
        made.oneof_decl.add(name=f"o{oneof}")
    for field in node:
        repeated = FieldDescriptor.LABEL_REPEATED if field.repeated else FieldDescriptor.LABEL_OPTIONAL
        each = made.field.add(name=f"f{field.number}", number=field.number, label=repeated)
        target = field.targets.get(None)
        each.type = _BY_NUMBER.get(field.type, field.type)
        if field.type in (MESSAGE, GROUP):
            each.type = BYTES
            if not field.repeated and target is not None:
                each.type, each.type_name = MESSAGE, f".M{target.node}"
        if field.oneof is not None:
            each.oneof_index = oneofs.index(field.oneof)
