"""JSON records of files brought to events under a contract."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, nearest
from schemas.event_paths import steps_of
from streaming.files.table_rows import key_fields, names_of

_LONG_NUMBER = re.compile(rb"\d{19}")
_NOWHERE = object()

Steps = tuple[str | int, ...]


@dataclass(frozen=True)
class EventRecord:
    """One record: its key, the event, and what lies beside it by path."""

    key: bytes | None
    value: bytes
    beside: tuple[Any, ...]


class RecordReader:
    """Takes the contract's fields out of JSON objects.

    Args:
        contract: what the events mean.
        beside: paths of values that go along, null where there is none.
        strict: refuse what is no event of the contract; it stays as it is otherwise.
    """

    def __init__(self, contract: EventContract, beside: Sequence[str] = (), *, strict: bool = True) -> None:
        self._paths = {name: steps_of(name) for name in contract.read_fields}
        needed = (name for each in contract.columns if each.required for name in each.sources)
        self._names = {name: names_of(contract, name) for name in contract.raw_fields}
        # What `where` leaves out may lack anything.
        self._required = list(needed) if contract.where is None and strict else []
        self._strict = strict
        self._key = [[(name, steps_of(name)) for name in names] for names in key_fields(contract)]
        self._beside = [(name, steps_of(name)) for name in beside]
        self._roots = frozenset(self._paths) if all(len(each) == 1 for each in self._paths.values()) else None

    def read(self, value: bytes, where: str) -> EventRecord:
        """Return a record's event, which holds only the contract's fields.

        Raises:
            ConfigurationError: it is no JSON object, or a field that the contract requires is absent.
        """
        try:
            parsed = _parsed(value, where)
        except ConfigurationError:
            if self._strict:
                raise
            return EventRecord(None, value, (None,) * len(self._beside))
        beside = tuple(_value(parsed, *each) for each in self._beside)
        if parsed.keys() == self._roots:
            return EventRecord(self._key_of(parsed), value, beside)
        self._check_required(parsed, where)
        event = self._picked(parsed)
        return EventRecord(
            self._key_of(parsed), json.dumps(event, ensure_ascii=False).encode(errors="surrogatepass"), beside
        )

    def _key_of(self, event: Mapping[str, Any]) -> bytes | None:
        found = ([_value(event, *each) for each in names] for names in self._key)
        parts = [next((each for each in values if each is not None), None) for values in found]
        if any(each is None for each in parts):
            return None
        return "-".join(map(str, parts)).encode(errors="surrogatepass")

    def _check_required(self, event: Mapping[str, Any], where: str) -> None:
        for name in self._required:
            names = self._names[name]
            if all(_reached(event, each, self._paths[each]) is _NOWHERE for each in names):
                raise ConfigurationError(_absence(event, name, self._paths[name]), where=where)

    def _picked(self, event: Mapping[str, Any]) -> dict[str, Any]:
        picked: dict[str, Any] = {}
        for name, steps in self._paths.items():
            found = _reached(event, name, steps)
            if found is not _NOWHERE:
                _put(picked, (name,) if name in event else steps, found)
        return picked


def _parsed(value: bytes, where: str) -> dict[str, Any]:
    # orjson turns integers beyond 64 bits into floats.
    exact = _LONG_NUMBER.search(value) is not None
    try:
        parsed = json.loads(value) if exact else orjson.loads(value)
    except json.JSONDecodeError as fault:
        raise ConfigurationError(f"column {fault.colno}: not JSON: {fault.msg}", where=where) from None
    except ValueError as fault:
        raise ConfigurationError(f"not JSON: {fault}", where=where) from None
    if not isinstance(parsed, dict):
        raise ConfigurationError("expected a JSON object", where=where)
    return parsed


def _reached(event: Mapping[str, Any], name: str, steps: Steps) -> Any:
    if name in event:
        return event[name]
    found: Any = event
    for step in steps:
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and step < len(found) else _NOWHERE
        else:
            found = found.get(step, _NOWHERE) if isinstance(found, dict) else _NOWHERE
    return found


def _value(event: Mapping[str, Any], name: str, steps: Steps) -> Any:
    found = _reached(event, name, steps)
    return None if found is _NOWHERE else found


def _absence(event: Mapping[str, Any], name: str, steps: Steps) -> str:
    for end in range(len(steps) - 1, 0, -1):
        above = _reached(event, "", steps[:end])
        if above is not _NOWHERE and not isinstance(above, dict | list):
            return f"field {name!r} lies in something that is no object"
    return f"no field {name!r}; {nearest(name, _leaves(event, ''))}"


def _leaves(event: Mapping[str, Any], prefix: str) -> list[str]:
    names = []
    for name, value in event.items():
        names += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return names


def _put(event: dict[str, Any], steps: Steps, value: Any) -> None:
    """Put a value at its place; places of arrays that nobody asked for hold null."""
    place: Any = event
    for step, following in pairwise(steps):
        inner: Any = [] if isinstance(following, int) else {}
        place = _below(place, step, inner)
    _below(place, steps[-1], value)


def _below(place: Any, step: str | int, value: Any) -> Any:
    if isinstance(step, int):
        place.extend([None] * (step + 1 - len(place)))
        if place[step] is None:
            place[step] = value
        return place[step]
    return place.setdefault(step, value)
