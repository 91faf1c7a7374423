"""What a sample of events shows of each of their fields."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from schemas.event_paths import steps_of
from schemas.event_sources import source_of

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})
_DEEPEST = 6


@dataclass(frozen=True, eq=False)
class FieldFacts:
    """One field of the events of a sample.

    Attributes:
        path: as a contract names it.
        values: what it holds in each event of the sample, None for nothing.
    """

    path: str
    values: Sequence[Any]

    @cached_property
    def held(self) -> list[Any]:
        """The values that are there."""
        return [value for value in self.values if value is not None]

    @property
    def share(self) -> float:
        """In which share of the events it is."""
        return len(self.held) / len(self.values)

    @cached_property
    def counts(self) -> Counter[Any]:
        """How often each value occurs."""
        return Counter(self.held)

    @property
    def distinct_share(self) -> float:
        """How many of its values are different ones."""
        return len(self.counts) / len(self.held) if self.held else 0.0

    @cached_property
    def kinds(self) -> set[str]:
        """What it holds: text, integer, float, boolean."""
        return {_KINDS[type(value)] for value in self.held}

    @property
    def is_number(self) -> bool:
        """Whether all of it are numbers."""
        return bool(self.kinds) and self.kinds <= {"integer", "float"}

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of its name and of what it lies in, in lower case."""
        return words_in(self.path)

    @property
    def name(self) -> str:
        """Its own name, in lower case without anything but letters and digits."""
        last = [step for step in steps_of(self.path) if isinstance(step, str)][-1]
        return "".join(words_in(last))


def words_in(name: str) -> tuple[str, ...]:
    """Return the words of a name in lower case: `cardNo` is card and no, `Währung` is waehrung."""
    spelt = unicodedata.normalize("NFC", name).translate(_GERMAN)
    plain = "".join(each for each in unicodedata.normalize("NFKD", spelt) if not unicodedata.combining(each))
    return tuple(word.lower() for word in _WORDS.findall(plain))


_KINDS = {str: "string", int: "integer", float: "float", bool: "boolean"}


def facts_of(events: Sequence[Mapping[str, Any]]) -> list[FieldFacts]:
    """Return the fields of a sample of events that hold single values, in the order in which they come.

    Of arrays the first place counts. Fields whose names no path can step to are left out.
    """
    columns: dict[str, list[Any]] = {}
    for row, event in enumerate(events):
        for path, value in _leaves(event, (), 0):
            column = columns.setdefault(path, [])
            column.extend([None] * (row - len(column)))
            if len(column) == row:
                column.append(value)
    return [FieldFacts(path, [*each, *[None] * (len(events) - len(each))]) for path, each in columns.items()]


def _leaves(value: Any, steps: tuple[str | int, ...], depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, (*steps, name), depth + 1)
    elif isinstance(value, list):
        if value and steps:
            yield from _leaves(value[0], (*steps, 0), depth + 1)
    elif steps and (value is None or type(value) in _KINDS):
        path = _written(steps)
        if path is not None and value is not None:
            yield path, value


def _written(steps: tuple[str | int, ...]) -> str | None:
    """Return the path of some steps, None where it would be read in another way."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
    named = any(isinstance(step, str) and step.strip() for step in steps_of(path))
    if source_of(path).part != "value" or not named or path.startswith("value:"):
        return None
    return path if len(steps) == 1 or steps_of(path) == steps else None
