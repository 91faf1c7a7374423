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
from schemas.event_paths import Steps, look_up, steps_of
from streaming.events.exact_json import json_value
from streaming.events.json_mend import mend
from streaming.files.table_rows import key_fields, names_of

_LONG_NUMBER = re.compile(rb"\d{19}")
_NOWHERE = object()


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
        try:
            return self._event(parsed, value, where)
        except RecursionError:
            # Mended, what is nested deeper than that is an empty object, which fits no field either.
            return self._event(json_value(mend(value)), value, where)

    def _event(self, parsed: dict[str, Any], value: bytes, where: str) -> EventRecord:
        beside = tuple(look_up(parsed, *each) for each in self._beside)
        if parsed.keys() == self._roots:
            return EventRecord(self._key_of(parsed), value, beside)
        self._check_required(parsed, where)
        return EventRecord(self._key_of(parsed), _written(self._picked(parsed)), beside)

    def _key_of(self, event: Mapping[str, Any]) -> bytes | None:
        found = ([look_up(event, *each) for each in names] for names in self._key)
        parts = [next((each for each in values if each is not None), None) for values in found]
        if any(each is None for each in parts):
            return None
        return "-".join(map(str, parts)).encode(errors="surrogatepass")

    def _check_required(self, event: Mapping[str, Any], where: str) -> None:
        for name in self._required:
            names = self._names[name]
            if all(look_up(event, each, self._paths[each], _NOWHERE) is _NOWHERE for each in names):
                raise ConfigurationError(_absence(event, name, self._paths[name]), where=where)

    def _picked(self, event: Mapping[str, Any]) -> dict[str, Any]:
        picked: dict[str, Any] = {}
        for name, steps in self._paths.items():
            found = look_up(event, name, steps, _NOWHERE)
            if found is not _NOWHERE:
                _put(picked, (name,) if name in event else steps, found)
        return picked


def _parsed(value: bytes, where: str) -> dict[str, Any]:
    # orjson turns integers beyond 64 bits into floats.
    exact = _LONG_NUMBER.search(value) is not None
    try:
        parsed = json.loads(value) if exact else orjson.loads(value)
    except (ValueError, RecursionError) as fault:
        parsed = _read_as_a_run_reads_it(value, fault, where)
    if not isinstance(parsed, dict):
        raise ConfigurationError("expected a JSON object", where=where)
    return parsed


def _read_as_a_run_reads_it(value: bytes, fault: Exception, where: str) -> Any:
    """What is wrong with one value costs its field, in a file as on a topic."""
    try:
        return json_value(value)
    except ValueError:
        column = f"column {fault.colno}: " if isinstance(fault, json.JSONDecodeError) else ""
        problem = fault.msg if isinstance(fault, json.JSONDecodeError) else str(fault)
        raise ConfigurationError(f"{column}not JSON: {problem}", where=where) from None


def _written(event: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(event, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Escaped, a broken character stays one; its bytes would be three of them.
        return json.dumps(event).encode()


def _absence(event: Mapping[str, Any], name: str, steps: Steps) -> str:
    above: Any = event
    for step in steps[:-1]:
        above = (dict(enumerate(above)) if isinstance(above, list) else above).get(step, {})
        if not isinstance(above, dict | list):
            return f"field {name!r} lies in something that is no object"
    return f"no field {name!r}; {nearest(name, leaf_names(event))}"


def leaf_names(event: Mapping[str, Any]) -> list[str]:
    """Return the paths of what an event holds, but for what lies in arrays."""
    names: list[str] = []
    inside = [("", event)]  # no recursion: nobody bounds how deep a record goes
    while inside:
        prefix, each = inside.pop()
        inside += [(f"{prefix}{name}.", value) for name, value in each.items() if isinstance(value, dict)]
        names += [prefix + name for name, value in each.items() if not isinstance(value, dict)]
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
