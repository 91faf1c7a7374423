"""Money as people write it: amounts to the cent, currencies by their codes, refunds told from payments."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.currencies import exponents
from schemas.money_fields import AmountField
from streaming.events.decimal_texts import DecimalTexts
from streaming.events.decode import decode
from streaming.events.exact_decode import ExactDecoder
from streaming.events.exact_money import scaled
from tests.unit.streaming.events.test_decode import (
    NOW,
    check_against_exact,
    contract,
    event,
    one,
    reason,
    records,
)

NAMES = {"US Dollar": "USD", "Bitcoin": "BTC", "eur": "XXX"}


def money(amount: Mapping[str, Any], currency: Mapping[str, Any] | None = None, **more: Any) -> EventContract:
    return contract(amount={"field": "amount", **amount}, currency=currency or {"field": "currency"}, **more)


DECIMAL = money({"format": "decimal"})
COMMAS = money({"format": "decimal", "thousands": ","})
GERMAN = money({"format": "decimal", "thousands": ".", "decimal": ",", "negative": "refund"})
BLANKS = money({"format": "decimal", "thousands": " ", "signs": ["kr", "Rs."], "negative": "absolute"})
SWISS = money({"format": "decimal", "thousands": "'", "unit": "minor", "negative": "refund"})
CONNECT = money({"format": "connect_decimal", "scale": 2, "negative": "refund"})
CONNECT_MINOR = money({"format": "connect_decimal", "unit": "minor"}, {"constant": "JPY"})
MINOR = money({"unit": "minor"})
OWN_PLACES = money({"unit": "minor", "exponents": {"ISK": 2, "BTC": 8}, "most": 5000})
CODES = money({}, {"field": "currency", "codes": "iso4217", "max_length": 3})
NAMED = money({"unit": "minor", "exponents": {"BTC": 8}}, {"field": "currency", "map": NAMES})
RENAMED = money({}, {"field": "currency", "map": NAMES, "max_length": 6})
REFUNDS = money({"negative": "refund"})
SIGNLESS = money({"negative": "absolute"})
TYPED = money({}, direction={"field": "kind", "refund": ["REFUND", True, 7]})
BOTH = money({"negative": "refund"}, {"constant": "EUR"}, direction={"field": "kind", "refund": ["REFUND"]})
CONTRACTS = [
    *(DECIMAL, COMMAS, GERMAN, BLANKS, SWISS, CONNECT, CONNECT_MINOR, MINOR, OWN_PLACES, CODES, NAMED),
    *(RENAMED, REFUNDS, SIGNLESS, TYPED, BOTH),
]


def amount_of(amount: object, under: EventContract, currency: object = "EUR") -> Any:
    """Return the amount that an event has in the end, or why it is refused."""
    row = one(event(amount=amount, currency=currency), under)
    return row.get("reason", row.get("amount"))


@pytest.mark.parametrize(
    ("under", "written", "amount"),
    [
        (DECIMAL, "1234.56", 1234.56),
        (DECIMAL, " 1234.56 ", 1234.56),
        (DECIMAL, 1234.56, 1234.56),
        (DECIMAL, 7, 7.0),
        (DECIMAL, ".5", 0.5),
        (DECIMAL, "$.50", 0.5),
        (DECIMAL, "1E+3", 1000.0),
        (DECIMAL, "12.5e-1", 1.25),
        (DECIMAL, "US$ 12.00", 12.0),
        (DECIMAL, "12.00€", 12.0),
        (DECIMAL, "€ 12.00", 12.0),
        (DECIMAL, "+5", 5.0),
        (DECIMAL, "1,234.56", "bad_amount"),
        (DECIMAL, "12.", "bad_amount"),
        (DECIMAL, "5.-", "bad_amount"),
        (DECIMAL, "12 EUR", "bad_amount"),
        (DECIMAL, "$12€", "bad_amount"),
        (DECIMAL, "1 2", "bad_amount"),
        (DECIMAL, "", "bad_amount"),
        (DECIMAL, "-", "bad_amount"),
        (DECIMAL, "NaN", "bad_amount"),
        (DECIMAL, "1e999", "amount_too_large"),
        (DECIMAL, "0" * 99 + "1", 1.0),
        (DECIMAL, "0" * 100 + "1", "bad_amount"),
        (DECIMAL, "\u0661\u0662", "bad_amount"),
        (DECIMAL, "-5", "bad_amount"),
        (DECIMAL, "(5)", "bad_amount"),
        (DECIMAL, True, "mistyped_field"),
        (DECIMAL, ["5"], "mistyped_field"),
        (DECIMAL, None, "missing_field"),
        (COMMAS, "1,234.56", 1234.56),
        (COMMAS, "1234.56", 1234.56),
        (COMMAS, "12,34,567.5", 1234567.5),
        (COMMAS, "$1,234,567.89", 1234567.89),
        (COMMAS, "1,23", "bad_amount"),
        (COMMAS, "1,2345", "bad_amount"),
        (COMMAS, "1234,567", "bad_amount"),
        (COMMAS, ",567", "bad_amount"),
        (COMMAS, "1.5,000", "bad_amount"),
        (COMMAS, 0.1, 0.1),
        (GERMAN, "1.234,56", 1234.56),
        (GERMAN, "1234,56 €", 1234.56),
        (GERMAN, "1.234", 1234.0),
        (GERMAN, "-1.234,56 €", 1234.56),
        (GERMAN, "1.234,56- €", 1234.56),
        (GERMAN, "€ (7,5)", 7.5),
        (GERMAN, "(-7,5)", "bad_amount"),
        (GERMAN, "(7,5", "bad_amount"),
        (GERMAN, "--7", "bad_amount"),
        (BLANKS, "1 234.5 kr", 1234.5),
        (BLANKS, "1\u202f234.5", 1234.5),
        (BLANKS, "1\u00a0234\u00a0567.5\u00a0€", 1234567.5),
        (BLANKS, "Rs.5", 5.0),
        (BLANKS, "Rs. -5.5", 5.5),
        (BLANKS, "kr.5", "bad_amount"),
        (SWISS, "1'234", 12.34),
        (SWISS, "1\u2019234", 12.34),
        (REFUNDS, "5", "mistyped_field"),
        (CONNECT, "BRw=", 13.08),
        (CONNECT, "+uQ=", 13.08),
        (CONNECT, "AA==", 0.0),
        (CONNECT, "BRw", "bad_amount"),
        (CONNECT, "", "bad_amount"),
        (CONNECT, "é", "bad_amount"),
        (CONNECT, 13.08, "mistyped_field"),
        (CONNECT_MINOR, "BRw=", 1308.0),
    ],
)
def test_amounts_are_read_as_they_are_meant(under: EventContract, written: object, amount: object) -> None:
    assert amount_of(written, under) == amount


@pytest.mark.parametrize(
    ("under", "written", "currency", "amount"),
    [
        (MINOR, 1050, "eur", 10.5),
        (MINOR, 1050, "jpy", 1050.0),
        (MINOR, 1050, "KWD", 1.05),
        (MINOR, 1050, "CLF", 0.105),
        (MINOR, 1050, "XAU", 1050.0),
        (MINOR, 1050, " usd ", 10.5),
        (MINOR, 1050, 978, 10.5),
        (MINOR, 1050, "036", 10.5),
        (MINOR, 1050, 36, 10.5),
        (MINOR, 1050, "hrk", 10.5),
        (MINOR, 1050.5, "EUR", 10.505),
        (MINOR, 99_999_999_999_999, "EUR", 999_999_999_999.99),
        (MINOR, 100_000_000_000_001, "EUR", "amount_too_large"),
        (MINOR, 1050, "xqz", "bad_currency"),
        (MINOR, 1050, "", "bad_currency"),
        (MINOR, 1050, "9780", "bad_currency"),
        (MINOR, 1050, -978, "bad_currency"),
        (MINOR, 1050, True, "mistyped_field"),
        (MINOR, 1050, None, "missing_field"),
        (OWN_PLACES, 1050, "ISK", 10.5),
        (OWN_PLACES, 1050, "btc", 0.0000105),
        (CODES, 10, "eur", 10.0),
        (CODES, 10, "EURO", "bad_currency"),
        (NAMED, 1050, "US Dollar", 10.5),
        (NAMED, 1050, "Bitcoin", 0.0000105),
        (NAMED, 1050, "us dollar", "bad_currency"),
    ],
)
def test_minor_units_are_those_of_the_currency(
    under: EventContract, written: object, currency: object, amount: object
) -> None:
    assert amount_of(written, under, currency) == amount


@pytest.mark.parametrize(
    ("under", "written", "code"),
    [
        (CODES, "eur", "EUR"),
        (CODES, 978, "EUR"),
        (CODES, "532", "XCG"),
        (NAMED, " US Dollar ", "USD"),
        (NAMED, "eur", "XXX"),
        (NAMED, "Eur", "EUR"),
        (RENAMED, "US Dollar", "USD"),
        (RENAMED, "eUr", "eUr"),
        (RENAMED, "a longer name", None),
    ],
)
def test_currencies_are_told_by_code_number_or_name(
    under: EventContract, written: object, code: object
) -> None:
    assert one(event(currency=written), under).get("currency") == code


@pytest.mark.parametrize(
    ("under", "changes", "direction"),
    [
        (REFUNDS, {"amount": -12.5}, "refund"),
        (REFUNDS, {"amount": 12.5}, "payment"),
        (GERMAN, {"amount": "12,5-"}, "refund"),
        (CONNECT, {"amount": "+uQ="}, "refund"),
        (TYPED, {"kind": "REFUND"}, "refund"),
        (TYPED, {"kind": True}, "refund"),
        (TYPED, {"kind": 7}, "refund"),
        (TYPED, {"kind": "SALE"}, "payment"),
        (TYPED, {"kind": None}, "payment"),
        (TYPED, {}, "payment"),
        (BOTH, {"amount": -1, "kind": "SALE"}, "refund"),
        (BOTH, {"amount": 1, "kind": "REFUND"}, "refund"),
    ],
)
def test_refunds_are_told_by_their_sign_or_by_a_field(
    under: EventContract, changes: dict[str, Any], direction: str
) -> None:
    row = one(event(**changes), under)
    assert row["direction"] == direction
    assert row["amount"] >= 0


def test_without_a_sign_there_is_no_direction() -> None:
    assert amount_of(-12.5, SIGNLESS) == 12.5
    assert "direction" not in SIGNLESS.arrow_schema().names
    assert reason(event(amount=-12.5)) == "bad_amount"


def test_a_direction_that_is_no_word_is_a_fault_and_a_payment() -> None:
    row = one(event(kind=[1]), TYPED)
    assert (row["direction"], row["faults"]) == ("payment", ["direction: not usable as string"])


cents = st.integers(0, 10**14)
WIDE = [
    money({"most": 1e15, **how})
    for how in (
        {"format": "decimal"},
        {"unit": "minor"},
        {"format": "connect_decimal", "unit": "minor"},
    )
]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cents, st.sampled_from(["EUR", "JPY", "KWD", "CLF"]))
def test_amounts_are_exact_to_the_cent(cent: int, currency: str) -> None:
    """Whatever way the same money is written, the amount is the double nearest to it."""
    places = exponents()[currency]
    whole = f"{Decimal(cent).scaleb(-places):f}"
    nearest = float(Fraction(cent, 10**places))
    raw = base64.b64encode(cent.to_bytes(8, "big", signed=True)).decode()
    found = [amount_of(each, under, currency) for each, under in zip((whole, cent, raw), WIDE, strict=True)]
    assert [each.hex() for each in found] == [nearest.hex()] * 3


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 18))
def test_digits_of_any_number_are_rounded_once(value: Decimal, places: int) -> None:
    assume_small = abs(value.adjusted()) < 300
    if assume_small:
        assert scaled(value, places) == float(abs(Fraction(value)) / 10**places)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text("0123456789.,'- +()€$eEk\u00a0\u2212\u20a0A", max_size=12))
def test_no_text_is_read_as_another_number_than_its_digits(text: str) -> None:
    """Whatever marks stand around, the digits are those that are there, in their order."""
    for thousands, decimal in ((",", "."), (".", ","), (" ", "."), ("", ".")):
        field = AmountField(field="x", format="decimal", thousands=thousands, decimal=decimal)
        read = DecimalTexts(field).read(text)
        if read is not None:
            written = re.split("[eE]", text)[0]
            digits = "".join(map(str, read.as_tuple().digits))
            assert int(digits) == int("".join(re.findall("[0-9]", written)))


TEXTS = (
    "1,234.56|1.234,56|-5|5-|(5.00)|$5|€5|5 €|$-38.00|\u22125|5.-|1 234|1'234.5|1\u2019234.5|1,23|12,34,567"
    "|1,234,567.891|Rs.5|kr 5|US$5|5 |.5|$.5|$$5|- 5|-|¤1|1e5|1E+3|9007199254740993|0.00000000000000001"
    f"|{'9' * 18}|{'9' * 19}||BRw=|+uQ=|AA==|////|gAAAAAAAAAA=|AAAAAAAAAAAA|BRx=|B===|====|AIAA"
)
_amounts = st.one_of(
    st.sampled_from(TEXTS.split("|")),
    st.text("0123456789.,'- +()€$eE\u00a0\u2212", max_size=14),
    st.decimals(-(10**14), 10**14, places=2).map(lambda each: f"{each:,}"),
    st.decimals(-(10**14), 10**14, places=3).map(str),
    st.binary(max_size=10).map(lambda each: base64.b64encode(each).decode()),
    st.text("ABab09+/=", max_size=12),
    st.integers(-(10**19), 10**19),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.floats(-1e6, 1e6).map(lambda each: round(each, 2)),
    st.sampled_from([0, -0.0, None, True, [], {}, 2**53 + 1, -(2**63), 10**17 + 1]),
)
WORDS = "EUR|eur| JPY|Kwd|978|36|036|XQZ||US Dollar|Bitcoin|btc|isk|ÉUR|a longer name than it may be"
_currencies = st.one_of(
    st.sampled_from(WORDS.split("|")),
    st.sampled_from([978, 36, -978, 0, 10**17, 1.5, None, True, [], "\ud800"]),
    st.sampled_from(sorted(exponents())),
    st.text(max_size=4),
)
_kinds = st.sampled_from(["REFUND", "SALE", "true", "7", 7, 7.0, True, False, None, [], {}, "é", "\ud800"])


def _spoilt(value: bytes, at: int) -> bytes:
    return value if at < 0 else value[: at % len(value)] + value[at % len(value) + 1 :]


@st.composite
def batches(draw: st.DrawFn) -> tuple[EventContract, list[bytes]]:
    values = []
    for _ in range(draw(st.integers(1, 25))):
        changes = {"amount": draw(_amounts), "currency": draw(_currencies), "kind": draw(_kinds)}
        written = json.dumps(
            {**json.loads(event()), **changes}, ensure_ascii=draw(st.booleans()), allow_nan=True
        ).encode("utf-8", "surrogatepass")
        values.append(_spoilt(written, draw(st.integers(-9, 400))))
    return draw(st.sampled_from(CONTRACTS)), values


@pytest.mark.long
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(batches())
def test_whatever_becomes_of_money_is_what_the_exact_decoder_says(
    batch: tuple[EventContract, list[bytes]],
) -> None:
    under, values = batch
    taken = records(values)
    check_against_exact(taken, decode(taken, under, NOW), under)


USUAL = [
    (DECIMAL, ["1234.56", "12", " 5.0 ", "$ 7.25", "€7.25", "7.25 €", 12.5, 3]),
    (COMMAS, ["1,234.56", "$1,234,567.89"]),
    (GERMAN, ["1.234,56 €", "-7,5", "7,5-", "(7,5)", "€ -7,5", "\u22127,5"]),
    (BLANKS, ["1 234.5", "-1 234 567.5 €"]),
    (CONNECT, ["BRw=", "+uQ=", "AA==", base64.b64encode((10**14).to_bytes(7, "big")).decode()]),
    (MINOR, [1050, 0, 99_999_999_999_999]),
    (NAMED, [1050]),
    (REFUNDS, [-12.5, 12.5, -7]),
    (TYPED, [12.5]),
]


@pytest.mark.parametrize(("under", "amounts"), USUAL)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_usual_money_needs_no_detour(
    under: EventContract, amounts: list[Any], ascii_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = json.loads(event())
    sound = [
        json.dumps({**plain, "amount": amount, "kind": kind}, ensure_ascii=ascii_only).encode()
        for amount in amounts
        for kind in ("REFUND", True, None)
    ]
    monkeypatch.setattr(ExactDecoder, "decode_one", lambda *_: pytest.fail("not vouched for"))
    assert decode(records(sound), under, NOW).valid.num_rows == len(sound)


def test_what_is_refused_of_money_quotes_nothing_of_it() -> None:
    secret = "s3cret"
    values = [event(amount=secret), event(currency=secret), event(amount=-1)]
    for under in CONTRACTS:
        decoded = decode(records(values), under, NOW)
        assert not [detail for detail in decoded.rejected["detail"].to_pylist() if secret in detail]
