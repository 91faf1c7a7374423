"""Puts a row's contributions into sentences with numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from schemas.durations import duration_text
from schemas.event_columns import PAYMENT
from schemas.instants import moment_of
from streaming.detection.counterparty_kernels import KNOWN, NEW, RETURNED
from streaming.detection.detectors import AMOUNT, HABIT, NOVELTY, RATE, RECURRENCE, RISK, Evidence
from streaming.detection.nats import exponential
from streaming.profiles.directions import NamedKind, named_kind

_SMALLEST_SHOWN = 0.005
_STRIKING_NATS = 2.0  # of evidence, which an amount reaches that one payment in about a hundred exceeds
_WEEK_US = 7 * 86_400_000_000
_TIMES_SIGN = "\N{MULTIPLICATION SIGN}"
_WHATEVER = ", whatever their currency"


class Payment(NamedTuple):
    """What a sentence needs of the transaction itself.

    Attributes:
        longest: horizon in seconds.
        moment: weekday and hour in UTC.
        direction: `payment` or `refund`.
        unit: what one unit of the usual amounts of entities is in its currency; None where they are in that.
        reference: the currency that usual amounts are in; empty where one unit is what is usual in its own.
        estimated: the unit follows from what is usual in both currencies, as there is no rate.
        mixed: usual amounts are of several currencies, as they stand, so they are in none.
    """

    amount: float
    currency: str
    longest: float
    moment: str
    direction: str = PAYMENT
    unit: float | None = None
    reference: str = ""
    estimated: bool = False
    mixed: bool = False


class Meeting(NamedTuple):
    """What a sentence needs of two accounts: their relation, and one in how many transfers has it."""

    payer: str
    payee: str
    relation: int
    one_in: float


def sentence(detector: str, kind: str, payment: Payment, seen: Evidence | None, nats: float) -> str:
    """Say in one sentence what a detector saw in the profiles.

    Args:
        kind: of entities; see streaming.profiles.directions.
        seen: the numbers of the entity; None where the whole population is meant.
        nats: the evidence of this reason.
    """
    if detector == HABIT:
        return f"{payment.moment} is a telling hour or weekday"
    if seen is None:
        return _population_sentence(payment, nats)
    named = named_kind(kind)
    if detector == RECURRENCE:
        return (
            f"other {named.transaction}s of this {named.entity} in the past days were strikingly unusual "
            f"too, which makes this one {exponential(nats):.1f} times likelier to be"
        )
    if detector == RISK:
        return _risk_sentence(named, nats)
    return _SENTENCES[detector](named, payment, seen)


def _population_sentence(payment: Payment, nats: float) -> str:
    amount, what = _amount_at_rate(payment), f"{payment.direction}s{_in_which_unit(payment)}"
    if nats >= _STRIKING_NATS:
        return f"{amount} is among the largest of all {what}"
    return f"{amount} is more than most {what}, which by itself says little"


def _risk_sentence(named: NamedKind, nats: float) -> str:
    recent = f"verdicts on this {named.entity}'s recent {named.transaction}s"
    if nats >= 0.0:
        return f"{recent} make fraud {exponential(nats):.1f} times likelier"
    return f"{recent} make fraud {exponential(-nats):.1f} times less likely"


def _money(amount: float, payment: Payment) -> str:
    return f"{amount:.2f} {payment.currency}".rstrip()


def _times(count: float, what: str) -> str:
    return f"{count:.0f} {what}{'' if 0.5 <= count < 1.5 else 's'}"  # noqa: PLR2004 - what rounds to one


def _amount_sentence(named: NamedKind, payment: Payment, seen: Evidence) -> str:
    if payment.unit is not None and not payment.reference:
        return _relative_amount_sentence(named, payment, seen, payment.unit)
    usual = _money(seen.usual, payment._replace(currency=_usual_currency(payment)))
    amount = _amount_at_rate(payment)
    times = payment.amount / (payment.unit or 1.0) / seen.usual if seen.usual >= _SMALLEST_SHOWN else None
    ratio = "far above" if times is None else f"{times:.1f}{_TIMES_SIGN}"
    if seen.events <= 0.0:
        whatever = ", whatever the currency" if payment.mixed else ""
        return f"{amount} is {ratio} the {usual} usual for {_first_of(named)}{whatever}"
    kind = "" if named.transaction == PAYMENT else f"{named.transaction} of "
    past = f"{_times(seen.events, named.transaction)} in {duration_text(payment.longest)}"
    whatever = _WHATEVER if payment.mixed else ""
    return f"{amount} is {ratio} this {named.entity}'s usual {kind}{usual} ({past}{whatever})"


def _relative_amount_sentence(named: NamedKind, payment: Payment, seen: Evidence, unit: float) -> str:
    """Compare by what is usual in each currency; no amount is named in another one than its own."""
    amount, times = _money(payment.amount, payment), payment.amount / unit
    said = (
        f"{amount} is {times:,.1f}{_TIMES_SIGN} what is usual in {payment.currency}, where "
        f"{seen.usual:,.1f}{_TIMES_SIGN} is usual for"
    )
    if seen.events <= 0.0:
        return f"{said} {_first_of(named)}"
    past = _times(seen.events, named.transaction)
    return (
        f"{said} this {named.entity} ({past} in {duration_text(payment.longest)}, each in its own currency)"
    )


def _usual_currency(payment: Payment) -> str:
    """Return the currency that usual amounts are in, empty where they are in none."""
    if payment.mixed:
        return ""
    return payment.reference or payment.currency


def _amount_at_rate(payment: Payment) -> str:
    """Return the amount, and what it is in the reference currency, by which rate."""
    amount = _money(payment.amount, payment)
    if payment.unit is None or (payment.reference in ("", payment.currency) and not payment.estimated):
        return amount
    worth = f"{payment.amount / payment.unit:.2f} {payment.reference}"
    if payment.estimated:
        return f"{amount} (about {worth} by what is usual in each; no rate is known)"
    return f"{amount} ({worth} at {1.0 / payment.unit:.4g})"


def _in_which_unit(payment: Payment) -> str:
    """Return by what amounts in several currencies were compared, empty where they stand as they are."""
    if payment.reference:
        return f", compared in {payment.reference}"
    if payment.mixed:
        return _WHATEVER
    return "" if payment.unit is None else ", each measured by what is usual in its currency"


def _first_of(named: NamedKind) -> str:
    if named.transaction == PAYMENT:
        return f"a new {named.entity}"
    return f"the first {named.transaction} of a {named.entity}"


def _rate_sentence(named: NamedKind, _: Payment, seen: Evidence) -> str:
    return (
        f"{_times(seen.recent, named.transaction)} of this {named.entity} in the last "
        f"{duration_text(seen.horizon)} before this one where {seen.expected:.2g} would be usual"
    )


def _novelty_sentence(named: NamedKind, _: Payment, seen: Evidence) -> str:
    what = named.transaction
    end = "a new one" if what == PAYMENT else f"a {named.entity} without one"
    return f"first {what} of this {named.entity}; 1 in {seen.one_in:.0f} {what}s comes from {end}"


def travel_sentence(entity: str, kilometres: float, hours: float, nats: float) -> str:
    """Say how far an entity travelled in how many hours since its last place."""
    speed = kilometres / max(hours, 1.0 / 3600.0)
    waited = duration_text(max(round(hours * 60.0), 1) * 60.0) if hours < 48.0 else f"{hours / 24.0:.0f} days"  # noqa: PLR2004 - from two days on, days
    return (
        f"{kilometres:,.0f} km from this {entity}'s last place {waited} before, {speed:,.0f} km/h; "
        f"1 in {exponential(nats):,.0f} trips is as impossible"
    )


def habit_sentence(kind: str, time: int, zone: str, nats: float) -> str:
    """Say at what local time, in microseconds, an entity was active although it rarely is."""
    # Of the same hour of the week: by a local clock the first and the last day may lie in no year at all.
    moment, (entity, what) = moment_of(int(time) % _WEEK_US), named_kind(kind)
    return (
        f"{moment:%A %H:%M} {zone} is an unusual time for this {entity}: "
        f"1 in {exponential(nats):,.0f} of its {what}s comes at such hours of the week"
    )


def counterparties_sentence(entity: str, seen: Evidence) -> str:
    """Say how many counterparties an account had; the events of `seen` are counterparties."""
    return (
        f"about {seen.recent:.0f} different counterparties of this {entity} in the last "
        f"{duration_text(seen.horizon)} before this one where {seen.expected:.2g} would be usual"
    )


def meeting_sentence(seen: Meeting) -> str:
    """Say whether two accounts have met before."""
    if seen.relation not in (KNOWN, RETURNED, NEW):
        return f"this {seen.payer} or this {seen.payee} was never active before"
    said = {
        KNOWN: f"this {seen.payer} has paid this {seen.payee} before",
        RETURNED: f"money goes back: this {seen.payee} has paid this {seen.payer} before",
        NEW: f"first transfer between this {seen.payer} and this {seen.payee}",
    }[seen.relation]
    return f"{said}; true of 1 in {seen.one_in:.3g} transfers between accounts already active"


def joint_sentence(one_in: float, phrases: Sequence[str]) -> str:
    """Say how rare a combination is, and what is most unusual about it.

    Args:
        one_in: one payment in so many is as unusual.
        phrases: what stands out, see streaming.detection.feature_phrases; may be empty.
    """
    rarity = f"one payment in {float(f'{one_in:.2g}'):,.0f} is as unusual as this one as a whole"
    return f"{rarity}: {', '.join(phrases)}" if phrases else rarity


_SENTENCES: dict[str, Callable[[NamedKind, Payment, Evidence], str]] = {
    AMOUNT: _amount_sentence,
    RATE: _rate_sentence,
    NOVELTY: _novelty_sentence,
}
