"""Puts the value of one feature into words with numbers."""

from __future__ import annotations

from collections.abc import Callable

from schemas.durations import duration_text
from streaming.detection.nats import exponential
from streaming.profiles.directions import NamedKind, named_kind

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_HOURS_OF_NIGHT = 6
_MINUTES = 60
_TIMES_SIGN = "\N{MULTIPLICATION SIGN}"


def phrase(feature: str, value: float, *, scaled: bool = False, currency: str = "") -> str:
    """Say what a feature, by its name in `features`, shows; `3.2 times this customer's usual amount`.

    Args:
        value: known, so not NaN.
        scaled: amounts are in units of what is usual in their currencies.
        currency: what all amounts are in, empty where that is not one.
    """
    what, _, rest = feature.partition(".")
    kind, _, span = rest.partition(".")
    if what == "log_amount" and currency:
        return f"{_amount(value, named_kind(kind), span)} {currency}"
    said = _in_units if scaled and what == "log_amount" else _PHRASES.get(what)
    return said(value, named_kind(kind), span.replace("_", " ")) if said else f"{feature} {value:.3g}"


def _hour(value: float, _: NamedKind, __: str) -> str:
    hours, minutes = divmod(int(value * _MINUTES), _MINUTES)
    return f"{hours:02d}:{minutes:02d} UTC{' at night' if hours < _HOURS_OF_NIGHT else ''}"


def _weekday(value: float, _: NamedKind, __: str) -> str:
    return f"a {_WEEKDAYS[int(value)]}"


def _amount(value: float, _: NamedKind, __: str) -> str:
    return f"an amount of {exponential(value):.2f}"


def _in_units(value: float, _: NamedKind, __: str) -> str:
    return f"an amount of {exponential(value):.2g}{_TIMES_SIGN} what is usual in its currency"


def _count(value: float, kind: NamedKind, span: str) -> str:
    return f"{value:.1f} {kind.transaction}s of this {kind.entity} in {span}"


def _gap(value: float, kind: NamedKind, _: str) -> str:
    return f"{duration_text(round(value))} after this {kind.entity}'s last {kind.transaction}"


def _ratio(value: float, kind: NamedKind, _: str) -> str:
    return f"{exponential(value):.2g}{_TIMES_SIGN} this {kind.entity}'s usual amount"


def _deviation(value: float, kind: NamedKind, _: str) -> str:
    side = "above" if value > 0.0 else "below"
    return f"{abs(value):.1f} standard deviations {side} this {kind.entity}'s mean log-amount"


def _counterparties(value: float, kind: NamedKind, span: str) -> str:
    return f"about {value:.0f} counterparties of this {kind.entity} in {span}"


def _known(value: float, _: NamedKind, __: str) -> str:
    return "the two accounts have met before" if value else "the two accounts never met"


def _returned(value: float, _: NamedKind, __: str) -> str:
    return "money goes back" if value else "no money goes back"


def _distance(value: float, kind: NamedKind, _: str) -> str:
    return f"{value:.0f} km from where this {kind.entity} was before"


def _speed(value: float, kind: NamedKind, _: str) -> str:
    return f"this {kind.entity} on the move at {value:.0f} km/h"


_PHRASES: dict[str, Callable[[float, NamedKind, str], str]] = {
    "hour": _hour,
    "weekday": _weekday,
    "log_amount": _amount,
    "count": _count,
    "window_count": _count,
    "gap": _gap,
    "log_ratio": _ratio,
    "log_deviation": _deviation,
    "counterparties": _counterparties,
    "known": _known,
    "returned": _returned,
    "distance": _distance,
    "speed": _speed,
}
