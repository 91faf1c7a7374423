"""Conditions over the raw fields of an event, such as `payload.op in ('c', 'u') and not payload.test = true`.

They are written like those of rules, but a raw field has no declared type: each test says by its literals
which type it expects. A field that an event lacks, or that holds another type, makes its test unknown, as
NULL does in SQL, and what is unknown does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from schemas.event_paths import steps_of

Literals = tuple[str, ...] | tuple[bool, ...] | tuple[int | float, ...]
Kind = Literal["text", "number", "truth"]
Operator = Literal["=", "<", "<=", ">", ">="]

_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<text>'(?:[^']|'')*') | "(?P<quoted>[^"]+)"
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<path>[A-Za-z_][\w$-]*(?:\[\d{1,9}\])*(?:\.[\w$-]+(?:\[\d{1,9}\])*)*)
    | (?P<operator><=|>=|<>|!=|[=<>(),])""",
    re.VERBOSE,
)
_WORDS = frozenset({"and", "or", "not", "in", "between", "is", "null", "true", "false"})
_COMPARING: dict[str, Operator] = {"=": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_UNEQUAL = ("<>", "!=")
_LARGEST_WHOLE = 10**18
_MOST_TOKENS, _DEEPEST = 1_000, 50
_SHOWN = 20


@dataclass(frozen=True)
class Compared:
    """A field beside one literal."""

    field: str
    operator: Operator
    literal: str | bool | float

    @property
    def kind(self) -> Kind:
        """The type that the field must have."""
        return kind_of(self.literal)


@dataclass(frozen=True)
class OneOf:
    """A field that equals one of several literals of one type."""

    field: str
    literals: Literals

    @property
    def kind(self) -> Kind:
        """The type that the field must have."""
        return kind_of(self.literals[0])


@dataclass(frozen=True)
class IsNull:
    """A field that is absent or null; never unknown."""

    field: str


@dataclass(frozen=True)
class Not:
    """Holds where another does not; unknown where that is."""

    inner: Condition


@dataclass(frozen=True)
class AllOf:
    """Holds where all hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """Holds where one holds."""

    parts: tuple[Condition, ...]


Condition = Compared | OneOf | IsNull | Not | AllOf | AnyOf


def parse_condition(text: str) -> Condition:
    """Return what a text means.

    Raises:
        ValueError: saying where the text is no condition and what was expected there.
    """
    return _Parser(text).parse()


def fields_of(condition: Condition) -> tuple[str, ...]:
    """Return the paths of all fields that a condition names, in its order, each once."""
    return tuple(dict.fromkeys(_named(condition)))


def kind_of(literal: str | bool | float) -> Kind:
    """Return the type of a literal."""
    if isinstance(literal, str):
        return "text"
    return "truth" if isinstance(literal, bool) else "number"


def _named(condition: Condition) -> Iterator[str]:
    match condition:
        case Not(inner):
            yield from _named(inner)
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _named(part)
        case _:
            yield condition.field


class _Parser:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self._tokens = [each for each in self._split() if each.lastgroup != "space"]

    def parse(self) -> Condition:
        if not self._tokens:
            raise ValueError("an empty condition; leave the key out to take every event")
        if len(self._tokens) > _MOST_TOKENS:
            raise ValueError(f"a condition of {len(self._tokens)} words; {_MOST_TOKENS} at most")
        found = self._any_of()
        if self._at < len(self._tokens):
            raise self._unexpected("'and' or 'or'")
        return found

    def _split(self) -> Iterator[re.Match[str]]:
        at = 0
        while at < len(self._text):
            token = _TOKEN.match(self._text, at)
            if token is None:
                raise ValueError(f"cannot read {self._text[at : at + _SHOWN]!r}")
            at = token.end()
            yield token

    def _any_of(self) -> Condition:
        parts = [self._all_of()]
        while self._take("or"):
            parts.append(self._all_of())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all_of(self) -> Condition:
        parts = [self._negation()]
        while self._take("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _negation(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"nested deeper than {_DEEPEST}")
        found = Not(self._negation()) if self._take("not") else self._primary()
        self._depth -= 1
        return found

    def _primary(self) -> Condition:
        if not self._take("("):
            return self._test(self._field())
        found = self._any_of()
        self._expect(")")
        return found

    def _test(self, field: str) -> Condition:
        if self._take("is"):
            negated = self._take("not")
            self._expect("null")
            return Not(IsNull(field)) if negated else IsNull(field)
        negated = self._take("not")
        if self._take("in"):
            found: Condition = OneOf(field, self._literals())
        elif self._take("between"):
            least = self._literal()
            self._expect("and")
            found = AllOf((_ordered(field, ">=", least), _ordered(field, "<=", self._literal())))
        elif negated:
            raise self._unexpected("'in' or 'between'")
        else:
            return self._comparison(field)
        return Not(found) if negated else found

    def _comparison(self, field: str) -> Condition:
        word = self._word()
        if word in _COMPARING:
            self._at += 1
            return _ordered(field, _COMPARING[word], self._literal())
        if word in _UNEQUAL:
            self._at += 1
            return Not(Compared(field, "=", self._literal()))
        raise self._unexpected("=, <>, <, <=, >, >=, in, between or is null")

    def _field(self) -> str:
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        if token is None or not (token["quoted"] or token["path"]) or self._word() in _WORDS:
            raise self._unexpected("a field")
        self._at += 1
        path: str = token["quoted"] or token["path"]
        if not any(isinstance(step, str) and step for step in steps_of(path)):
            raise ValueError(f"{path[:_SHOWN]!r} names no field")
        return path

    def _literals(self) -> Literals:
        self._expect("(")
        found = [self._literal()]
        while self._take(","):
            found.append(self._literal())
        self._expect(")")
        if len({kind_of(each) for each in found}) > 1:
            raise ValueError("a list of both texts and other values; a field is compared with one type")
        return tuple(found)  # type: ignore[return-value]  # of one type, as was just checked

    def _literal(self) -> str | bool | float:
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        if token is not None and token["text"] is not None:
            self._at += 1
            return token["text"][1:-1].replace("''", "'")
        if token is not None and token["number"] is not None:
            self._at += 1
            return _number(token["number"])
        for word, value in (("true", True), ("false", False)):
            if self._take(word):
                return value
        raise self._unexpected("a 'text', a number, true or false")

    def _word(self) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at]["quoted"] is not None:
            return ""
        return self._tokens[self._at][0].lower()

    def _take(self, word: str) -> bool:
        taken = self._word() == word
        self._at += taken
        return taken

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self._unexpected(repr(word))

    def _unexpected(self, expected: str) -> ValueError:
        left = self._tokens[self._at :]
        place = f"before {self._text[left[0].start() :][:_SHOWN]!r}" if left else "at its end"
        return ValueError(f"expected {expected} {place}")


def _ordered(field: str, operator: Operator, literal: str | bool | float) -> Compared:
    if isinstance(literal, bool) and operator != "=":
        raise ValueError(f"{field} {operator} {str(literal).lower()}: true and false have no order")
    return Compared(field, operator, literal)


def _number(text: str) -> int | float:
    if text.lstrip("-").isdecimal():
        whole = int(text)
        if abs(whole) >= _LARGEST_WHOLE:
            raise ValueError(f"{text[:_SHOWN]}: whole numbers have at most 18 digits")
        return whole
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:_SHOWN]} is too large")
    return number
