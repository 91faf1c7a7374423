"""Which fields hold amount and currency, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from schemas.currencies import iso_code
from streaming.drafting.field_facts import FieldFacts
from streaming.drafting.guess import Guess, named_score
from streaming.drafting.trying import TRIED, share_read

_AMOUNTS = {
    "amount": 3.0,
    "amt": 2.8,
    "transaction_amount": 3.2,
    "amount_paid": 3.1,
    "value": 2.0,
    "betrag": 2.6,
    "montant": 2.6,
    "importe": 2.6,
    "total": 1.8,
    "price": 1.6,
    "sum": 1.4,
}
_NOT_AMOUNTS = frozenset(
    {
        "id",
        "balance",
        "oldbalance",
        "newbalance",
        "lat",
        "long",
        "lon",
        "zip",
        "fee",
        "time",
        "date",
        "year",
        "count",
    }
)
_CURRENCIES = {
    "currency": 3.0,
    "ccy": 2.8,
    "payment_currency": 3.2,
    "cur": 2.0,
    "waehrung": 2.6,
    "devise": 2.6,
    "moneda": 2.6,
    "divisa": 2.6,
}
_MINOR = frozenset({"cents", "minor", "pence", "pennies"})
_PRICES, _ODD_PRICES = frozenset({0, 49, 50, 90, 95, 99}), frozenset({49, 95, 99})
_LIKE_PRICES, _LIKE_ODD_PRICES, _ENOUGH_ROWS = 0.6, 0.2, 20
_SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
_FORMS: tuple[Mapping[str, Any], ...] = (
    {"format": "decimal"},
    {"format": "decimal", "thousands": ","},
    {"format": "decimal", "decimal": ","},
    {"format": "decimal", "decimal": ",", "thousands": "."},
    {"format": "decimal", "decimal": ",", "thousands": " "},
    {"format": "decimal", "thousands": "'"},
)
_NAMES = {
    "us dollar": "USD",
    "euro": "EUR",
    "uk pound": "GBP",
    "pound sterling": "GBP",
    "yen": "JPY",
    "yuan": "CNY",
    "rupee": "INR",
    "ruble": "RUB",
    "swiss franc": "CHF",
    "australian dollar": "AUD",
    "canadian dollar": "CAD",
    "brazil real": "BRL",
    "mexican peso": "MXN",
    "saudi riyal": "SAR",
    "shekel": "ILS",
    "bitcoin": "BTC",
}
_FEW = 100
_ENOUGH = 0.5


def guess_amount(fields: Sequence[FieldFacts]) -> Guess | None:
    """Return the likeliest field of the amount, None where nothing reads as one."""
    ranked = sorted((guess for facts in fields for guess in _readings(facts)), key=lambda each: -each[0])
    return ranked[0][1] if ranked else None


def _readings(facts: FieldFacts) -> Iterator[tuple[float, Guess]]:
    named = named_score(facts, _AMOUNTS)
    if not facts.held or _NOT_AMOUNTS & set(facts.words) or (facts.kinds == {"string"} and not named):
        return
    read = [(share_read(_tried(facts, form), facts.held[:_FEW]), form) for form in _forms(facts)]
    best, form = max(read, key=lambda each: each[0], default=(0.0, {}))
    if best < _ENOUGH:
        return
    share = share_read(_tried(facts, form), facts.held) * facts.share
    fractions = "float" in facts.kinds or facts.kinds == {"string"}
    negative = {"negative": "refund"} if _has_negative(facts) else {}
    guess = Guess(
        "amount", {"field": facts.path, **form, **negative}, share, _why(facts, form), (facts.path,)
    )
    yield 4 * share + named + fractions - 2 * (not named), guess


def _tried(facts: FieldFacts, form: Mapping[str, Any]) -> Mapping[str, Any]:
    negative = {"negative": "refund"} if _has_negative(facts) else {}
    return {"amount": {"field": TRIED, **form, **negative}}


def _forms(facts: FieldFacts) -> Iterator[Mapping[str, Any]]:
    if facts.is_number:
        yield {}
    elif facts.kinds <= {"string", "integer", "float"}:
        yield from _FORMS


def _has_negative(facts: FieldFacts) -> bool:
    if facts.is_number:
        return bool(min(facts.held) < 0)
    return any("-" in str(value) or str(value).startswith("(") for value in facts.held)


def _why(facts: FieldFacts, form: Mapping[str, Any]) -> str:
    said = ["text that holds a number" if form else "a number"]
    if facts.kinds == {"integer"}:
        said.append("all are whole: if they count cents, say unit: minor")
    if _has_negative(facts):
        said.append("negative ones are taken for refunds")
    return "; ".join(said)


def in_minor_units(amount: Guess | None, currency: Guess, fields: Sequence[FieldFacts]) -> Guess | None:
    """Return the guess of the amount, in minor units where the sample shows that it counts those.

    Args:
        fields: all of the sample.
    """
    by_path = {facts.path: facts for facts in fields}
    if amount is None or by_path[amount.fields[0]].kinds != {"integer"} or "map" in currency.value:
        return amount
    facts, codes = by_path[amount.fields[0]], by_path.get((*currency.fields, "")[0])
    reason = _minor_reason(facts, codes)
    if reason is None:
        return amount
    known = facts.values if codes is None else [value for value in codes.values if iso_code(str(value))]
    share = min(amount.share or 0.0, len(known) / len(facts.values))
    why = f"all are whole, {reason}; say unit: major if they do not count cents"
    negative = "; negative ones are taken for refunds" if _has_negative(facts) else ""
    return replace(amount, value={**amount.value, "unit": "minor"}, share=share, why=why + negative)


def _minor_reason(facts: FieldFacts, codes: FieldFacts | None) -> str | None:
    """Return what shows that whole numbers count cents, None where nothing does."""
    if _MINOR & set(facts.words):
        return "and cents by their name"
    if codes is not None and all(each.islower() and iso_code(each) for each in codes.counts):
        return "and currencies are in lower case, as providers write them that count cents"
    ends = [abs(value) % 100 for value in facts.held]
    like, odd = (sum(end in wanted for end in ends) / len(ends) for wanted in (_PRICES, _ODD_PRICES))
    if len(ends) >= _ENOUGH_ROWS and like >= _LIKE_PRICES and odd >= _LIKE_ODD_PRICES:
        return f"and {like:.0%} end as prices in cents do"
    return None


def guess_currency(
    fields: Sequence[FieldFacts], amount: Guess | None, all_fields: Sequence[FieldFacts]
) -> Guess:
    """Return the likeliest field of the currency, else a constant by the sign of the amounts."""
    ranked = sorted(
        (guess for facts in fields for guess in _currencies(facts, amount)), key=lambda each: -each[0]
    )
    return ranked[0][1] if ranked else _constant(all_fields, amount)


def _currencies(facts: FieldFacts, amount: Guess | None) -> Iterator[tuple[float, Guess]]:
    named = named_score(facts, _CURRENCIES)
    if facts.kinds != {"string"} or not (named or _all_codes(facts)):
        return
    beside = amount is not None and facts.path.rpartition(".")[0] == amount.fields[0].rpartition(".")[0]
    codes = sum(count for value, count in facts.counts.items() if iso_code(value)) / len(facts.held)
    names = {
        value: _NAMES[value.strip().lower()] for value in facts.counts if value.strip().lower() in _NAMES
    }
    form: dict[str, Any] = {"field": facts.path}
    why = "texts, taken as they are"
    if codes > _ENOUGH:
        tidy = all(iso_code(value) in (None, value) for value in facts.counts)
        form |= {} if tidy else {"codes": "iso4217"}
        why = "codes of ISO 4217" + ("" if tidy else ", brought to capitals")
    elif names:
        form |= {"map": names, "max_length": 64}
        why = "names, of which those that are known have codes; add the others to map"
    share = share_read({"currency": {**form, "field": TRIED}}, facts.held) * facts.share
    yield named + beside + share, Guess("currency", form, share, why, (facts.path,))


def _all_codes(facts: FieldFacts) -> bool:
    """Whether it holds codes of currencies alone, whatever it is called."""
    return all(each.isalpha() and each.isupper() and iso_code(each) for each in facts.counts)


def _constant(fields: Sequence[FieldFacts], amount: Guess | None) -> Guess:
    facts = next((each for each in fields if amount is not None and each.path == amount.fields[0]), None)
    texts = "".join(str(value) for value in facts.held[:_FEW]) if facts is not None else ""
    signs = [code for sign, code in _SIGNS.items() if sign in texts]
    why = (
        "by the sign before the amounts"
        if signs
        else "no field holds a currency and EUR is made up: say which it is"
    )
    return Guess("currency", {"constant": signs[0] if signs else "EUR"}, 1.0 if signs else None, why)
