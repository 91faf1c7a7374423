"""Which events a contract's `where` wants: of one event, and of all that a scan vouched for.

Both follow the logic of SQL: a condition holds, does not, or is unknown. `holds` defines what a condition
means; `Truth` says the same of many rows at once.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.event_conditions import AllOf, AnyOf, Compared, Condition, IsNull, Kind, Not, OneOf
from streaming.arrays.compilation import Flags
from streaming.events import json_strings
from streaming.events.found import Found

NOT_WANTED, NOT_JUDGED, TOMBSTONE = "where", "where_unknown", "tombstone"
_Compares = Callable[[Any, Any], Any]
# How one value, and how a column of texts or truths, is compared.
_ORDER: Mapping[str, tuple[_Compares, _Compares]] = {
    "=": (operator.eq, pc.equal),
    "<": (operator.lt, pc.less),
    "<=": (operator.le, pc.less_equal),
    ">": (operator.gt, pc.greater),
    ">=": (operator.ge, pc.greater_equal),
}


def holds(condition: Condition, value_of: Callable[[str], Any]) -> bool | None:
    """Return whether a condition holds for one event, None where that is unknown.

    Args:
        value_of: gives the value at a path as JSON has it, None where there is none.
    """
    match condition:
        case Not(inner):
            found = holds(inner, value_of)
            return None if found is None else not found
        case AllOf(parts):
            return _all([holds(part, value_of) for part in parts])
        case AnyOf(parts):
            found = _all([holds(Not(part), value_of) for part in parts])
            return None if found is None else not found
        case IsNull(field):
            return value_of(field) is None
        case Compared(field, sign, literal):
            return _compared(value_of(field), sign, literal, condition.kind)
        case OneOf(field, literals):
            value = value_of(field)
            answers = [_compared(value, "=", literal, condition.kind) for literal in literals]
            return None if None in answers else any(answers)


def left_out(condition: Condition, value_of: Callable[[str], Any]) -> str | None:
    """Return why an event is not wanted, None where it is."""
    found = holds(condition, value_of)
    if found is None:
        return NOT_JUDGED
    return None if found else NOT_WANTED


def _all(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


def _compared(value: Any, sign: str, literal: Any, kind: Kind) -> bool | None:
    """Whole numbers are compared exactly with whole ones, all others as 64-bit floats."""
    if not _is_a(kind, value):
        return None
    if kind == "number" and not (isinstance(value, int) and isinstance(literal, int)):
        try:
            value, literal = float(value), float(literal)
        except OverflowError:
            return None
        if not math.isfinite(value):
            return None
    return bool(_ORDER[sign][0](value, literal))


def _is_a(kind: Kind, value: Any) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "truth":
        return isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Truth:
    """What is known of a condition in each row.

    Attributes:
        holds: bool[n].
        fails: bool[n]; where neither is set it is unknown.
    """

    holds: Flags
    fails: Flags

    @classmethod
    def of(cls, condition: Condition, found: Mapping[str, Found], rows: Flags) -> Truth:
        """Judge rows.

        Args:
            found: by path, what a scan found of each field that the condition names.
            rows: bool[n]; of the others nothing is known.
        """
        match condition:
            case Not(inner):
                judged = cls.of(inner, found, rows)
                return cls(judged.fails, judged.holds)
            case AllOf(parts):
                return cls._all([cls.of(part, found, rows) for part in parts])
            case AnyOf(parts):
                judged = cls._all([cls.of(Not(part), found, rows) for part in parts])
                return cls(judged.fails, judged.holds)
            case IsNull(field):
                null = found[field].are_null() & rows
                return cls(null, rows & ~null)
            case Compared(field, _, _) | OneOf(field, _):
                return _tested(condition, found[field], rows)

    @classmethod
    def _all(cls, parts: list[Truth]) -> Truth:
        together = np.logical_and.reduce, np.logical_or.reduce
        return cls(together[0]([each.holds for each in parts]), together[1]([each.fails for each in parts]))


def _tested(test: Compared | OneOf, found: Found, rows: Flags) -> Truth:
    match test.kind:
        case "text":
            present = rows & found.are_texts()
            answers = _arrow_answers(test, found.texts(present), pa.string())
        case "truth":
            present = rows & found.are_truths()
            answers = _arrow_answers(test, pa.array(found.kinds == json_strings.TRUE), pa.bool_())
        case "number":
            present = rows & found.are_numbers()
            present &= np.isfinite(found.floats(present))
            answers = _number_answers(test, found, present)
    return Truth(present & answers, present & ~answers)


def _number_answers(test: Compared | OneOf, found: Found, present: Flags) -> Flags:
    whole = present & (found.kinds == json_strings.INTEGER)
    wholes, floats = found.wholes(whole), found.floats(present)
    answers = np.zeros(len(present), np.bool_)
    literals = test.literals if isinstance(test, OneOf) else (test.literal,)
    compare = _ORDER["=" if isinstance(test, OneOf) else test.operator][0]
    for literal in literals:
        exact = whole & isinstance(literal, int)
        answers |= (exact & compare(wholes, literal)) | (~exact & compare(floats, float(literal)))
    return answers


def _arrow_answers(test: Compared | OneOf, values: pa.Array, kind: pa.DataType) -> Flags:
    if isinstance(test, OneOf):
        answers = pc.is_in(values, pa.array(test.literals, kind))
    else:
        compare = _ORDER[test.operator][1]
        answers = pc.fill_null(compare(values, pa.scalar(test.literal, kind)), False)
    found: Flags = answers.to_numpy(zero_copy_only=False)
    return found
