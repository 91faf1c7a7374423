"""The filter language of lists: what people and programs write to choose alerts. It is never SQL.

    filter     = any
    any        = all { "or" all }
    all        = one { "and" one }
    one        = "not" one | "(" any ")" | comparison
    comparison = field operator value | field "in" "(" value { "," value } ")"
    operator   = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
    field      = letter or "_", then letters, digits, "_"
    value      = word without spaces, quotes, brackets, commas and operators, or text in double quotes;
                 in quotes a backslash stands before a quote or a backslash

`~` means contains. An example: `severity >= high and not (rule = large or customer in (c1, "c 2"))`.
Words of the language are in lower case. A filter of nothing chooses everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

from schemas.errors import ConfigurationError

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~"]
MOST_CHARACTERS, MOST_COMPARISONS, MOST_DEPTH, MOST_VALUES = 2_000, 50, 20, 200
WHERE = "filter"
_PARTS = re.compile(
    r"""\s*(?:
        (?P<operator> != | <= | >= | = | < | > | ~ )
      | (?P<mark> [(),] )
      | (?P<text> "(?:[^"\\]|\\["\\])*" )
      | (?P<word> [^\s"(),=!<>~]+ )
    )""",
    re.VERBOSE,
)
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r'[^\s"(),=!<>~]+')
_RESERVED = frozenset({"and", "or", "not", "in"})


@dataclass(frozen=True)
class FieldCompared:
    """A field beside a value."""

    name: str
    operator: Operator
    value: str


@dataclass(frozen=True)
class FieldAmong:
    """A field that holds one of several values."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class NoPart:
    """What a filter does not choose."""

    part: Filter


@dataclass(frozen=True)
class EveryPart:
    """What all parts choose; all there is without parts."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class AnyPart:
    """What any part chooses."""

    parts: tuple[Filter, ...]


Filter = FieldCompared | FieldAmong | NoPart | EveryPart | AnyPart
EVERYTHING = EveryPart(())


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Raises:
        ConfigurationError: it is none, or larger than one may be; says where.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigurationError(f"a filter has at most {MOST_CHARACTERS:,} characters", where=WHERE)
    parts = _parts(text)
    if not parts:
        return EVERYTHING
    reading = _FilterReading(parts, len(text))
    found = reading.either(0)
    reading.check_over()
    return found


def written(found: Filter) -> str:
    """Return the shortest text that reads back as a filter, but for brackets."""
    if isinstance(found, FieldCompared):
        return f"{found.name} {found.operator} {quoted(found.value)}"
    if isinstance(found, FieldAmong):
        return f"{found.name} in ({', '.join(map(quoted, found.values))})"
    if isinstance(found, NoPart):
        return f"not ({written(found.part)})"
    word = " and " if isinstance(found, EveryPart) else " or "
    return word.join(f"({written(part)})" for part in found.parts)


def quoted(value: str) -> str:
    """Return a value as it stands in a filter: in quotes where it is no plain word."""
    if _WORD.fullmatch(value) and value not in _RESERVED:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _parts(text: str) -> list[_Token]:
    found, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _PARTS.match(text, at)
        if match is None:
            _refuse("expected a field, an operator, a value or a bracket", at)
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return found


def _refuse(problem: str, at: int) -> NoReturn:
    raise ConfigurationError(f"{problem}, at character {at + 1}", where=WHERE)


class _FilterReading:
    """Reads parts from the left; each method returns what it has read, and stands behind it."""

    def __init__(self, parts: Sequence[_Token], end: int) -> None:
        self._parts, self._next, self._end, self._comparisons = parts, 0, end, 0

    def either(self, depth: int) -> Filter:
        if depth > MOST_DEPTH:
            self._refused(f"brackets go at most {MOST_DEPTH} deep")
        parts = [self._every(depth)]
        while self._takes("word", "or"):
            parts.append(self._every(depth))
        return parts[0] if len(parts) == 1 else AnyPart(tuple(parts))

    def check_over(self) -> None:
        if self._next < len(self._parts):
            self._refused("expected `and`, `or` or the end")

    def _every(self, depth: int) -> Filter:
        parts = [self._one(depth)]
        while self._takes("word", "and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else EveryPart(tuple(parts))

    def _one(self, depth: int) -> Filter:
        if self._takes("word", "not"):
            if depth > MOST_DEPTH:
                self._refused(f"brackets go at most {MOST_DEPTH} deep")
            return NoPart(self._one(depth + 1))
        if self._takes("mark", "("):
            found = self.either(depth + 1)
            self._expect("mark", ")")
            return found
        return self._comparison()

    def _comparison(self) -> Filter:
        self._comparisons += 1
        if self._comparisons > MOST_COMPARISONS:
            self._refused(f"a filter has at most {MOST_COMPARISONS} comparisons")
        name = self._field()
        if self._takes("word", "in"):
            return self._among(name)
        part = self._part("an operator: = != < <= > >= ~ or in")
        if part.kind != "operator":
            _refuse("expected an operator: = != < <= > >= ~ or in", part.at)
        return FieldCompared(name, part.text, self._value())  # type: ignore[arg-type]  # the pattern knows no other

    def _among(self, name: str) -> FieldAmong:
        self._expect("mark", "(")
        values = [self._value()]
        while self._takes("mark", ","):
            values.append(self._value())
            if len(values) > MOST_VALUES:
                self._refused(f"`in` takes at most {MOST_VALUES} values")
        self._expect("mark", ")")
        return FieldAmong(name, tuple(values))

    def _field(self) -> str:
        part = self._part("a field")
        if part.kind != "word" or part.text in _RESERVED or _FIELD.fullmatch(part.text) is None:
            _refuse("expected the name of a field", part.at)
        return part.text

    def _value(self) -> str:
        part = self._part("a value")
        if part.kind == "text":
            return re.sub(r"\\(.)", r"\1", part.text[1:-1], flags=re.DOTALL)
        if part.kind != "word" or part.text in _RESERVED:
            _refuse("expected a value; words of the language stand in quotes", part.at)
        return part.text

    def _takes(self, kind: str, text: str) -> bool:
        if self._next < len(self._parts) and self._parts[self._next][:2] == (kind, text):
            self._next += 1
            return True
        return False

    def _expect(self, kind: str, text: str) -> None:
        if not self._takes(kind, text):
            self._refused(f"expected {text!r}")

    def _part(self, what: str) -> _Token:
        if self._next == len(self._parts):
            self._refused(f"expected {what}")
        self._next += 1
        return self._parts[self._next - 1]

    def _refused(self, problem: str) -> NoReturn:
        _refuse(problem, self._parts[self._next].at if self._next < len(self._parts) else self._end)
