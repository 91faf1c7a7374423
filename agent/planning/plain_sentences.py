"""Results of actions as sentences, written without a model.

The names of facts and columns are all there is to go by, so this works for any action and any query: texts
say what a result is about, times when it was, numbers what it has, and truth values what it is or is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from agent.triage.rule_classifier import clip

Value = str | int | float | bool | None

_ABOUT = {
    "query_aggregates": "the answer",
    "entity_profile": "the entity",
    "entity_history": "the history",
    "similar_alerts": "the comparison",
    "replay_preview": "the replay",
    "post_finding": "the finding",
    "run_job": "the job",
    "notify": "the message",
}
_CALLED = {
    "row_count": "rows",
    "n": "count",
    "added": "alerts added",
    "removed": "alerts removed",
    "kept": "alerts kept",
    "median_days_between": "days between payments in the median",
}
_COUNTED = re.compile(r"\b[a-z]*[^siu ]s\b")  # a plural: payments, days, but no status
_MORE = "more_rows"
_WHEN = ("event_time", "time", "hour", "day", "date", "at")
_MONEY = re.compile(r"amount|total|sum|loss")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d)?")
_TEXT_CHARACTERS = 80
_LARGE, _SMALL = 1e15, 1e-4


def sentence(action: str, values: Mapping[str, Value], entity: str = "") -> str:
    """Return one sentence about the facts, or one row, of a result.

    Args:
        action: what found it.
        values: name → value; one at least.
        entity: the kind of entity that it was asked about, if any.
    """
    facts = {name: value for name, value in values.items() if not _is_unit(name, values)}
    about = _listed([_named(name, value, entity) for name, value in facts.items() if _is_name(value)])
    when = [f"at {_moment(str(facts[name]))}" for name in _WHEN if _is_when(name, facts.get(name))][:1]
    begin = " ".join([about or _ABOUT.get(action, "the result"), *when])
    said = _listed([*_has(facts, values), *_is(facts)])
    text = f"{begin} {said}" if said else f"there is {begin}"
    return f"{text[0].upper()}{text[1:]}."


def _has(facts: Mapping[str, Value], values: Mapping[str, Value]) -> Iterator[str]:
    had = [_quantity(name, value, values) for name, value in facts.items() if _is_quantity(value)]
    had += [
        f"the {_words(name)} at {_moment(value)}"
        for name, value in facts.items()
        if isinstance(value, str) and _TIME.match(value) and not _is_when(name, value)
    ]
    had += [f"no {_words(name)}" for name, value in facts.items() if value is None or value == ""]
    had += ["more rows than these"] if facts.get(_MORE) is True else []
    if had:
        yield f"has {_listed(had)}"


def _is(facts: Mapping[str, Value]) -> Iterator[str]:
    being = [
        f"{'' if value else 'not '}{_words(name)}"
        for name, value in facts.items()
        if isinstance(value, bool) and name != _MORE
    ]
    if being:
        yield f"is {_listed(being)}"


def _quantity(name: str, value: Value, values: Mapping[str, Value]) -> str:
    assert isinstance(value, int | float)
    words = _words(name)
    if _COUNTED.search(words):
        return f"{_number(value)} {words}"
    unit = values.get("currency") if _MONEY.search(name) else None
    shown = f"{value:,.2f}" if unit else _number(value)
    article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words} of {shown}{f' {unit}' if unit else ''}"


def _number(value: float) -> str:
    """Return a number as it may be read: rounded to four digits after the point."""
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= _LARGE or 0 < abs(value) < _SMALL:
        return repr(value)
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def _named(name: str, value: Value, entity: str) -> str:
    kind = entity if entity and name == "id" else _words(name).removesuffix(" id")
    return f"{kind} {clip(str(value), _TEXT_CHARACTERS)}"


def _moment(text: str) -> str:
    return text[:16].replace("T", " ")


def _words(name: str) -> str:
    return _CALLED.get(name, name).replace("_", " ")


def _is_unit(name: str, values: Mapping[str, Value]) -> bool:
    return name == "currency" and any(_MONEY.search(each) and _is_quantity(values[each]) for each in values)


def _is_name(value: Value) -> bool:
    return isinstance(value, str) and value != "" and not _TIME.match(value)


def _is_when(name: str, value: Value) -> bool:
    return name in _WHEN and isinstance(value, str) and _TIME.match(value) is not None


def _is_quantity(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(parts: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
