"""Money in contracts: the table of currencies, and what may be said of amounts, currencies and directions."""

from __future__ import annotations

import json
from typing import Any

import iso4217
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import EventContract
from schemas.currencies import exponents, iso_code
from schemas.errors import ConfigurationError
from streaming.events.exact_decode import ExactDecoder
from streaming.events.exact_values import RejectedError
from tests.unit.schemas.test_contract import LEAST, SMALLEST, STAMP, parsed


def with_money(amount: dict[str, Any], **more: Any) -> EventContract:
    return parsed({**SMALLEST, "amount": {"field": "amount", **amount}, **more})


def test_the_table_says_what_the_standard_says() -> None:
    """Where this fails after an update, codes were added or withdrawn: keep what is there, add the rest."""
    for code, row in iso4217.raw_table.items():
        if code is None:
            continue
        minor = row["CcyMnrUnts"]
        assert exponents()[code] == (0 if minor == "N.A." else int(minor)), code
        assert iso_code(str(row["CcyNbr"])) == iso_code(code.lower()) == code


@pytest.mark.parametrize(("code", "places"), [("HRK", 2), ("BGN", 2), ("BYR", 0), ("LTL", 2)])
def test_old_payments_keep_their_currencies(code: str, places: int) -> None:
    assert exponents()[code] == places
    assert iso_code(code) == code


def test_a_number_that_was_given_again_is_that_of_the_newer_currency() -> None:
    assert (iso_code("532"), iso_code("ANG")) == ("XCG", "ANG")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=5))
def test_no_text_but_a_code_or_number_is_a_currency(text: str) -> None:
    code = iso_code(text)
    bare = text.strip()
    assert code is None or code == bare.upper() or (bare.isascii() and bare.isdigit())


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"amount": {"field": "a", "format": "decimals"}}, "amount.format", "'decimal'"),
        ({"amount": {"field": "a", "thousands": ","}}, "amount", "need 'format: decimal'"),
        ({"amount": {"field": "a", "format": "decimal", "thousands": "."}}, "amount", "the same mark"),
        ({"amount": {"field": "a", "format": "decimal", "thousands": "_"}}, "amount.thousands", "' '"),
        ({"amount": {"field": "a", "format": "decimal", "signs": ["k-"]}}, "amount.signs", "is no sign"),
        ({"amount": {"field": "a", "format": "decimal", "signs": ["x1"]}}, "amount.signs", "is no sign"),
        ({"amount": {"field": "a", "scale": 2}}, "amount", "'scale' needs"),
        ({"amount": {"field": "a", "exponents": {"ISK": 2}}}, "amount", "'exponents' needs 'unit: minor'"),
        ({"amount": {"field": "a", "unit": "minor"}, "currency": {"constant": "EUE"}}, "", "'EUR'?"),
        ({"amount": {"field": "a", "unit": "minor"}, "currency": {"constant": "978"}}, "", "'EUR'?"),
        ({"currency": {"constant": "eur", "codes": "iso4217"}}, "", "did you mean 'EUR'?"),
        (
            {"amount": {"field": "a", "unit": "minor"}, "currency": {"field": "c", "map": {"Coin": "BTC"}}},
            "",
            "'currency.map' of 'Coin'",
        ),
        ({"currency": {"field": "c", "map": {"Euro": "eur"}}}, "currency.map.Euro", "match"),
        ({"currency": {"field": "c", "map": {" Euro": "EUR"}}}, "currency.map", "matches no text"),
        ({"direction": {"field": "kind", "refund": []}}, "direction.refund", "at least 1"),
        ({"direction": {"field": "kind", "refund": [1.5]}}, "direction.refund.0", "quotes"),
        (
            {"amount": {"field": "a", "negative": "refund"}, "extra": {"Direction": {"field": "x"}}},
            "",
            "'direction' cannot name a column",
        ),
    ],
)
def test_a_fault_names_the_key_and_what_was_expected(change: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed({**SMALLEST, **change})
    assert (caught.value.key, said in str(caught.value)) == (key, True)


def test_a_column_may_be_called_direction_where_nothing_is_refunded() -> None:
    assert "direction" in parsed({**SMALLEST, "extra": {"direction": {"field": "way"}}}).arrow_schema().names


def test_keys_that_nobody_uses_leave_the_digest_alone() -> None:
    plain = {**SMALLEST, "amount": {"field": "amount"}, "currency": {"field": "ccy"}}
    spelt = {
        **plain,
        "amount": {"field": "amount", "format": "number", "unit": "major", "negative": "reject"},
        "currency": {"field": "ccy", "codes": "as_given", "map": {}},
        "direction": None,
    }
    assert parsed(spelt).digest == parsed(plain).digest
    assert set(parsed(plain).model_dump()["amount"]) == {"field"}


USED = {
    "amount": {
        "field": "amount",
        "format": "decimal",
        "thousands": ",",
        "signs": ["kr"],
        "negative": "refund",
    },
    "currency": {"field": "ccy", "codes": "iso4217", "map": {"US Dollar": "USD"}},
    "direction": {"field": "kind", "refund": [True, "R", 7]},
}


def test_a_contract_with_money_survives_a_round_trip_and_has_a_digest_of_its_own() -> None:
    contract = parsed({**SMALLEST, **USED})
    assert EventContract.model_validate_json(contract.model_dump_json()) == contract
    assert contract.digest != parsed(SMALLEST).digest
    assert contract.arrow_schema().names[:5] == [
        *("transaction_id", "event_time", "amount", "currency", "direction"),
    ]


_values = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(10**13), 10**13), st.floats(allow_nan=False)),
    *(st.sampled_from(["EUR", "978", "5.00", "BRw=", "-5", "kr 5", "R"]), st.text(max_size=3)),
    st.lists(st.none(), max_size=1),
)


@pytest.mark.parametrize(
    "change",
    [
        USED,
        {"amount": {"field": "amount", "unit": "minor"}, "currency": {"field": "ccy"}},
        {"amount": {"field": "amount", "format": "connect_decimal"}},
        {"amount": {"field": "amount", "negative": "absolute"}, "currency": {"field": "ccy"}},
        {"currency": {"field": "ccy"}, "direction": {"field": "kind", "refund": ["R"]}},
    ],
)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(_values, _values, _values)
def test_what_is_decoded_without_fault_fits_the_json_schema(
    change: dict[str, Any], amount: object, currency: object, kind: object
) -> None:
    contract = parsed({**SMALLEST, **change})
    event = {**LEAST, "amount": amount, "ccy": currency, "kind": kind}
    try:
        row = ExactDecoder(contract).decode_one(json.dumps(event).encode(), STAMP)
    except RejectedError:
        return
    validator = jsonschema.Draft202012Validator(contract.json_schema())
    assert row["faults"] is not None or validator.is_valid(event)
