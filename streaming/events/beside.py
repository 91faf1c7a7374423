"""What stands beside the value of a record: its key, its headers and its topic, one record at a time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from schemas.event_formats import FRAME_BYTES
from schemas.event_paths import look_up, steps_of
from schemas.event_sources import Source
from streaming.events.written_values import UNUSABLE

# Characters that are merely written unescaped, such as tabs, do no harm.
_JSON = json.JSONDecoder(strict=False)


class Beside(NamedTuple):
    """Key, headers (`key` and `value` each) and topic of a record."""

    key: bytes | None = None
    headers: Sequence[Mapping[str, Any]] | None = None
    topic: str = ""


NOTHING = Beside()


def beside_value(beside: Beside, source: Source, *, scalar: bool) -> Any:
    """Return what is beside the value, None where there is nothing.

    It is text; where a number or a boolean is asked for (`scalar`), and it is one as JSON has it, it is that.
    A key that a schema registry's serializer wrote is read only if it is JSON and a path in it is asked for.
    """
    if source.part == "key" and (source.path or _is_framed(beside.key)):
        return _in_key(beside.key or b"", source)
    text = _text(beside, source)
    return _scalar(text) if scalar and text is not None else text


def _is_framed(key: bytes | None) -> bool:
    """Whether a key begins as a schema registry's serializers begin theirs, which no text does."""
    return key is not None and key.startswith(b"\0")


def _in_key(key: bytes, source: Source) -> Any:
    framed = _is_framed(key)
    event = _object(key[FRAME_BYTES:] if framed else key) if source.path else None
    if event is None:
        return UNUSABLE if framed else None
    return look_up(event, source.path, steps_of(source.path))


def _text(beside: Beside, source: Source) -> str | None:
    if source.part == "topic":
        return beside.topic
    value = beside.key if source.part == "key" else _header(beside, source.path)
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _header(beside: Beside, name: str) -> bytes | None:
    found = (each["value"] for each in reversed(beside.headers or ()) if each["key"] == name)
    value: bytes | None = next(found, None)
    return value


def _scalar(text: str) -> Any:
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text


def _object(key: bytes) -> dict[str, Any] | None:
    text = key.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    try:
        event = _JSON.decode(text)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
