"""Which field holds the event time, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low
from typing import Any

from streaming.drafting.field_facts import FieldFacts
from streaming.drafting.guess import Guess, named_score
from streaming.drafting.trying import TRIED, share_read

_NAMES = {
    "event_time": 3.0,
    "timestamp": 2.5,
    "transaction_time": 2.8,
    "trans_date_trans_time": 2.8,
    "transaction_date": 2.2,
    "datetime": 2.2,
    "created": 2.0,
    "created_at": 2.4,
    "ts": 2.0,
    "ts_ms": 1.4,
    "time": 1.6,
    "date": 1.2,
    "at": 1.0,
    "booked": 1.2,
    "step": 1.0,
}
_NOT_THIS = frozenset(
    {"dob", "birth", "birthday", "expiry", "expires", "updated", "modified", "valid", "until"}
)
_PATTERNS = (
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%d-%m-%Y %H:%M:%S",
    "%d %b %Y %H:%M:%S",
    "%Y%m%d%H%M%S",
    "%Y-%m-%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
)
_UNITS = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
_FIRST, _LAST = 6.3e8, 4.1e9  # 1990 and 2100, in seconds since 1970
_LOOKS_LIKE_TIME = re.compile(r"(?=.*\d{2})[\d\s:/.,+TZ\[\]A-Za-z_-]{8,64}")
_STEPS = {"step": "h", "hour": "h", "hours": "h", "day": "d", "days": "d", "time": "s", "seconds": "s"}
_PARTS = {
    ("year", "month", "day", "time"): ("%Y %m %d %H:%M", "%Y %m %d %H:%M:%S"),
    ("year", "month", "day", "hour"): ("%Y %m %d %H",),
    ("year", "month", "day"): ("%Y %m %d",),
    ("date", "time"): tuple(
        f"{day} {time}"
        for day in ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d")
        for time in ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f")
    ),
}
_JOINED = 3.0
_FEW = 100
_ENOUGH = 0.5


def guess_time(fields: Sequence[FieldFacts]) -> Guess | None:
    """Return the likeliest field of the event time, None where nothing reads as one."""
    found = [guess for facts in fields for guess in _readings(facts)] + list(_joined(fields))
    ranked = sorted(found, key=lambda each: each[0], reverse=True)
    return ranked[0][1] if ranked else _counted(fields)


def _readings(facts: FieldFacts) -> Iterator[tuple[float, Guess]]:
    if not facts.held or _NOT_THIS & set(facts.words):
        return
    for form in _forms(facts):
        tried = {"event_time": {"field": TRIED, **form}}
        if share_read(tried, facts.held[:_FEW]) < _ENOUGH:
            continue
        share = share_read(tried, facts.held) * facts.share
        merit = 5 * share + named_score(facts, _NAMES) + 0.5 * facts.distinct_share
        yield merit, Guess("event_time", {"field": facts.path, **form}, share, _why(form), (facts.path,))
        return


def _joined(fields: Sequence[FieldFacts]) -> Iterator[tuple[float, Guess]]:
    """A date and a time of day, or their parts, in fields of their own."""
    by_name = {facts.name: facts for facts in fields}
    for names, patterns in _PARTS.items():
        if not set(names) <= by_name.keys():
            continue
        parts = [by_name[name] for name in names]
        rows = zip(*(facts.values for facts in parts), strict=True)
        texts = [" ".join(map(str, row)) for row in rows if None not in row]
        for pattern in patterns:
            tried = {"event_time": {"field": TRIED, "format": pattern}}
            if texts and share_read(tried, texts[:_FEW]) >= _ENOUGH:
                share = share_read(tried, texts) * len(texts) / len(parts[0].values)
                form = {"fields": [facts.path for facts in parts], "format": pattern}
                yield 5 * share + _JOINED, Guess("event_time", form, share, _why(form), tuple(form["fields"]))
                break


def _forms(facts: FieldFacts) -> Iterator[Mapping[str, Any]]:
    if facts.is_number:
        middle = median_low(facts.held)  # of two whole numbers the mean may be more than a float holds
        for unit, per_second in _UNITS:
            if _FIRST * per_second <= middle <= _LAST * per_second:
                yield {"format": "epoch", "unit": unit}
    elif facts.kinds == {"string"} and _LOOKS_LIKE_TIME.fullmatch(facts.held[0]):
        yield {"format": "iso8601"}
        yield from ({"format": pattern} for pattern in _by_fit(facts.held))


def _by_fit(values: Sequence[str]) -> list[str]:
    """Patterns by how much they read: only then do days above 12 tell a day from a month."""
    read = [
        (share_read({"event_time": {"field": TRIED, "format": each}}, values[:_FEW]), each)
        for each in _PATTERNS
    ]
    return [pattern for share, pattern in sorted(read, key=lambda each: -each[0]) if share > 0]


def _why(form: Mapping[str, Any]) -> str:
    if form["format"] == "epoch":
        return f"numbers in the range of {form['unit']} since 1970"
    if form["format"] == "iso8601":
        return "ISO 8601; a time without an offset is UTC unless zone names another"
    ambiguous = form["format"].startswith(("%d/%m", "%m/%d"))
    return "read by a pattern; UTC unless zone names another" + (
        "; day and month could be the other way round" if ambiguous else ""
    )


def _counted(fields: Sequence[FieldFacts]) -> Guess | None:
    """A number that counts hours, days or seconds from a start that nobody names."""
    for facts in fields:
        unit = _STEPS.get(facts.name)
        if unit is not None and facts.is_number and min(facts.held) >= 0:
            form = {"format": "epoch", "unit": unit, "epoch": "2020-01-01T00:00:00Z"}
            share = share_read({"event_time": {"field": TRIED, **form}}, facts.held) * facts.share
            why = f"counts {unit} from a start that the events do not name; epoch is made up"
            return Guess("event_time", {"field": facts.path, **form}, share, why, (facts.path,))
    return None
