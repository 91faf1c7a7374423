"""Contracts: what derives from one agrees, and every fault names its key and the nearest right name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contract import CONTRACTS, EventContract, load_contract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.tables import COORDINATES
from streaming.events.exact_decode import ExactDecoder
from streaming.events.exact_values import RejectedError

SMALLEST: dict[str, Any] = {
    "name": "cards",
    "transaction_id": {"field": "id"},
    "event_time": {"field": "at"},
    "amount": {"field": "amount"},
    "currency": {"constant": "EUR"},
    "entities": {"customer": {"field": "who"}},
}
LARGEST: dict[str, Any] = {
    **SMALLEST,
    "version": 3,
    "event_time": {"field": "when.at", "format": "epoch", "unit": "ms", "max_ahead": "10m"},
    "currency": {"field": "money.currency"},
    "amount": {"field": "money.amount"},
    "entities": {"customer": {"field": "who"}, "device": {"field": "device", "type": "integer"}},
    "primary": "device",
    "extra": {
        "country": {"field": "country"},
        "visits": {"field": "visits", "type": "integer", "required": True},
        "distance": {"field": "place.distance", "type": "float"},
        "online": {"field": "online", "type": "boolean"},
        "raw_currency": {"field": "money.currency"},
        "country_again": {"field": "country"},
    },
    "untrusted_text": {"memo": {"field": "note.memo", "max_length": 20}},
    "duplicates": {"horizon": "2h"},
    "label": {"field": "fraud"},
}
EVENT: dict[str, Any] = {
    "id": "t1",
    "when": {"at": 1_782_909_000_250},
    "money": {"amount": 12.5, "currency": "EUR"},
    "who": "c1",
    "device": 17,
    "country": "DE",
    "visits": 3,
    "place": {"distance": 1.5},
    "online": True,
    "note": {"memo": "thanks"},
    "fraud": 1,
}
LEAST = {"id": "t1", "at": "2026-09-01T00:00:00Z", "amount": 5, "who": "c1"}
STAMP = 1_790_000_000_000_000


def parsed(content: dict[str, Any]) -> EventContract:
    return parse_document(content, EventContract, where="cards.yaml")


LARGE = parsed(LARGEST)
VALIDATOR = jsonschema.Draft202012Validator(LARGE.json_schema())


def decodes(event: object, contract: EventContract = LARGE) -> bool:
    """Whether an event is taken, and without a fault."""
    try:
        row = ExactDecoder(contract).decode_one(json.dumps(event).encode(), STAMP)
    except RejectedError:
        return False
    return row["faults"] is None


@pytest.mark.parametrize("content", [SMALLEST, LARGEST])
def test_a_contract_survives_a_round_trip_through_a_file(content: dict[str, Any], tmp_path: Path) -> None:
    contract = parsed(content)
    path = tmp_path / "cards.yaml"
    path.write_text(yaml.safe_dump(contract.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    again = load_contract(str(path))
    assert again == contract
    assert again.digest == contract.digest


def test_every_change_changes_the_digest() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"version": 2},
        {"amount": {"field": "value"}},
        {"event_time": {"field": "at", "max_ahead": "6m"}},
        {"duplicates": {"horizon": "2h"}},
        {"extra": {"country": {"field": "country"}}},
    ]
    assert len({parsed({**SMALLEST, **change}).digest for change in changes}) == len(changes)


@pytest.mark.parametrize("path", sorted(CONTRACTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_contracts_load_by_name_and_their_schemas_are_json_schemas(path: Path) -> None:
    contract = load_contract(path.stem)
    assert contract.name == path.stem
    jsonschema.Draft202012Validator.check_schema(contract.json_schema())


def test_an_unknown_name_suggests_the_nearest_shipped_one() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'handbook'"):
        load_contract("handbok")


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"amuont": {"field": "x"}}, "amuont", "did you mean 'amount'"),
        ({"amount": {"fields": "x"}}, "amount.fields", "did you mean 'field'"),
        ({"amount": {}}, "amount.field", "required"),
        ({"entities": {"customer": {"feild": "who"}}}, "entities.customer.feild", "did you mean 'field'"),
        ({"entities": {}}, "entities", "at least 1"),
        ({"entities": {"amount": {"field": "who"}}}, "entities", "'amount' cannot name a column"),
        ({"entities": {"Offset": {"field": "who"}}}, "entities", "'Offset' cannot name a column"),
        ({"entities": {"the customer": {"field": "who"}}}, "entities", "not an identifier"),
        ({"entities": {"a": {"field": "x"}, "A": {"field": "y"}}}, "entities", "share the name 'A'"),
        ({"extra": {"customer": {"field": "x"}}}, "extra", "two columns share the name 'customer'"),
        ({"untrusted_text": {"Customer": {"field": "x"}}}, "untrusted_text", "share the name 'Customer'"),
        ({"primary": "custmer"}, "primary", "did you mean 'customer'"),
        ({"transaction_id": {"field": "id", "type": "int"}}, "transaction_id.type", "'integer'"),
        ({"extra": {"x": {"field": "x", "type": "text"}}}, "extra.x.type", "'string'"),
        ({"currency": {}}, "currency", "exactly one of 'field' and 'constant'"),
        ({"currency": {"field": "a", "constant": "b"}}, "currency", "exactly one"),
        ({"event_time": {"field": "at", "format": "epcoh"}}, "event_time.format", "did you mean 'epoch'"),
        (
            {"event_time": {"field": "at", "format": "%Y-%m-%Q"}},
            "event_time.format",
            "not a strptime pattern",
        ),
        (
            {"event_time": {"field": "at", "format": "%Y%Y-%m-%d"}},
            "event_time.format",
            "not a strptime pattern",
        ),
        ({"event_time": {"field": "at", "format": "%H:%M"}}, "event_time.format", "names no year"),
        ({"event_time": {"field": "at", "format": "%Y-%m"}}, "event_time.format", "names no day"),
        ({"event_time": {"field": "at", "zone": "Berlin"}}, "event_time.zone", "no time zone named 'Berlin'"),
        ({"event_time": {"field": "at", "zone": "Europe"}}, "event_time.zone", "no time zone"),
        ({"event_time": {"field": "at", "unit": "sec"}}, "event_time.unit", "'s'"),
        ({"event_time": {"field": "at", "max_ahead": "soon"}}, "event_time.max_ahead", "expected a duration"),
        ({"event_time": {"field": "at", "max_ahead": "40000d"}}, "event_time.max_ahead", "to 36500d"),
        (
            {"event_time": {"field": "at", "earliest": "2100-01-01"}},
            "event_time",
            "'earliest' must come before",
        ),
        ({"duplicates": {"horizon": "40000d"}}, "duplicates.horizon", "to 36500d"),
        ({"max_record_bytes": 3}, "max_record_bytes", "greater than or equal to 16"),
        ({"name": "My Cards"}, "name", "match"),
    ],
)
def test_a_fault_names_file_and_key_and_what_was_expected(
    change: dict[str, Any], key: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "cards.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, **change}, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_contract(str(path))
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{path}: {key}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("missing", list(SMALLEST))
def test_every_role_is_required(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{missing}: this key is required"):
        parsed({name: value for name, value in SMALLEST.items() if name != missing})


@pytest.mark.parametrize(
    "pattern", ["%d.%m.%Y %H:%M:%S", "%Y%m%d", "%Y-%jT%H", "%d/%b/%y %I:%M %p", "%Y-%m-%d %z"]
)
def test_patterns_that_name_a_moment_are_accepted(pattern: str) -> None:
    assert parsed({**SMALLEST, "event_time": {"field": "at", "format": pattern}}).event_time.format == pattern


def test_bounds_without_a_zone_are_utc() -> None:
    time = parsed({**SMALLEST, "event_time": {"field": "at", "earliest": "2020-01-01T00:00:00"}}).event_time
    assert time.earliest == datetime(2020, 1, 1, tzinfo=UTC)


def test_columns_stand_in_canonical_order_in_every_derivation() -> None:
    names = ["transaction_id", "event_time", "amount", "currency", "customer", "device", "country", "visits"]
    names += ["distance", "online", "raw_currency", "country_again", "memo"]
    places = [field.name for field in COORDINATES]
    assert [column.name for column in LARGE.columns] == names
    assert LARGE.arrow_schema().names == names + places
    assert [part.split("`")[1] for part in LARGE.spark_schema_ddl().split(", ")] == names + places
    assert [line.split(":")[0] for line in LARGE.prompt_notes().splitlines()] == names
    assert LARGE.entity_names == ("customer", "device")
    assert (LARGE.primary_entity, parsed(SMALLEST).primary_entity) == ("device", "customer")


def test_spark_types_are_those_of_the_arrow_columns() -> None:
    spark = dict(part.removeprefix("`").split("` ") for part in LARGE.spark_schema_ddl().split(", "))
    expected = {
        "TIMESTAMP": pa.timestamp("us", tz="UTC"),
        "DOUBLE": pa.float64(),
        "BIGINT": pa.int64(),
        "INT": pa.int32(),
        "BOOLEAN": pa.bool_(),
        "STRING": pa.string(),
    }
    assert {name: expected[kind] for name, kind in spark.items()} == {
        field.name: field.type for field in LARGE.arrow_schema()
    }


def test_prompt_notes_warn_of_untrusted_text_alone() -> None:
    warned = [line for line in LARGE.prompt_notes().splitlines() if "never instructions" in line]
    assert [line.split(":")[0] for line in warned] == ["memo"]


def test_labels_are_named_nowhere() -> None:
    assert "fraud" not in LARGE.raw_fields
    assert "fraud" not in json.dumps(LARGE.json_schema()) + LARGE.prompt_notes() + LARGE.spark_schema_ddl()


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the event with one (perhaps nested) field set; the value ... drops it."""
    event: dict[str, Any] = json.loads(json.dumps(EVENT))
    *parents, leaf = path.split(".")
    place = event
    for parent in parents:
        place = place[parent]
    place[leaf] = value
    if value is ...:
        del place[leaf]
    return event


@pytest.mark.parametrize(
    ("path", "value", "fits"),
    [
        ("fraud", ..., True),
        ("unknown", {"a": [1]}, True),
        ("id", 5, True),
        ("id", "", False),
        ("id", 1.5, False),
        ("id", None, False),
        ("id", ..., False),
        ("who", True, False),
        ("device", "17", False),
        ("when", {}, False),
        ("when", 5, False),
        ("when.at", "2026-07-01T00:00:00Z", False),
        ("when.at", 1_782_909_000_250.5, True),
        ("money", None, False),
        ("money.amount", 0, True),
        ("money.amount", -1, False),
        ("money.amount", "5", False),
        ("money.currency", ..., False),
        ("country", ..., True),
        ("country", None, True),
        ("country", 5, False),
        ("visits", None, False),
        ("visits", 1.5, False),
        ("place", ..., True),
        ("place", "here", True),
        ("place.distance", None, True),
        ("place.distance", "far", False),
        ("online", 1, False),
        ("note.memo", ..., True),
        ("note.memo", ["x"], False),
        ("note.memo", "x" * 10_000, False),
        ("country", "x" * 1_001, False),
        ("id", "x" * 256, True),
        ("id", "x" * 257, False),
        ("money.amount", 1e12, True),
        ("money.amount", 1.1e12, False),
        ("money.currency", "x" * 17, False),
    ],
)
def test_the_json_schema_and_the_decoder_give_one_labels(path: str, value: Any, fits: bool) -> None:
    event = changed(path, value)
    assert VALIDATOR.is_valid(event) == fits
    assert decodes(event) == fits


def test_a_field_of_just_the_dotted_name_comes_first_in_both() -> None:
    flat = {name: value for name, value in EVENT.items() if name != "money"}
    for amount, fits in ((5, True), ("5", False)):
        for event in (
            {**flat, "money.amount": amount, "money.currency": "EUR"},
            {**EVENT, "money.amount": amount},
        ):
            assert VALIDATOR.is_valid(event) == fits
            assert decodes(event) == fits


_json = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 10**13), st.floats(allow_nan=False), st.text(max_size=3)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)
_names = st.sampled_from([*EVENT, "money.amount", "when.at", "note.memo", "place.distance"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(_names, _json, max_size=2), st.sets(st.sampled_from([*EVENT]), max_size=1))
def test_what_is_decoded_without_fault_fits_the_json_schema(
    changes: dict[str, Any], dropped: set[str]
) -> None:
    event = {name: value for name, value in {**EVENT, **changes}.items() if name not in dropped}
    if not VALIDATOR.is_valid(event):
        assert not decodes(event)


def test_bounds_that_nobody_sets_leave_the_digest_of_a_contract_alone() -> None:
    """Batches of older lakes pin contracts that know nothing of them."""
    dumped = load_contract("simulator").model_dump(mode="json")
    assert "max_length" not in dumped["transaction_id"] | dumped["currency"] | dumped["entities"]["customer"]
    assert "max_length" not in dumped["extra"]["country"]
    assert "most" not in dumped["amount"]
    assert EventContract.model_validate(dumped) == load_contract("simulator")


def test_other_bounds_are_part_of_the_digest() -> None:
    changed = parsed({**SMALLEST, "amount": {**SMALLEST["amount"], "most": 5}})
    assert changed.digest != parsed(SMALLEST).digest
    assert EventContract.model_validate(changed.model_dump(mode="json")) == changed


@pytest.mark.parametrize(
    ("memo", "fits"),
    [
        ([0, {"lines": [["a"]]}], True),
        ([0, {"lines": [[]]}], False),
        ([0, {"lines": [[True]]}], False),
        ([0, {}], False),
        ([0], False),
        ({"1": {"lines": [["a"]]}}, False),
        (None, False),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_the_schema_follows_paths_into_arrays_as_the_decoder_does(
    memo: object, required: bool, fits: bool
) -> None:
    note = {"field": "memo[1].lines[0][0]", "type": "string", "required": required}
    contract = parsed({**SMALLEST, "extra": {"note": note}})
    validator = jsonschema.Draft202012Validator(contract.json_schema())
    event = json.loads(json.dumps({**LEAST, "memo": memo}))
    assert decodes(event, contract) <= validator.is_valid(event)
    assert not required or decodes(event, contract) == validator.is_valid(event) == fits
    assert validator.is_valid({**LEAST, "memo[1].lines[0][0]": "a"})


def test_a_far_place_in_an_array_does_not_swell_the_schema() -> None:
    note = {"field": "memo[999999999]", "type": "string", "required": True}
    schema = parsed({**SMALLEST, "extra": {"note": note}}).json_schema()
    assert len(json.dumps(schema)) < 4_000
    assert not jsonschema.Draft202012Validator(schema).is_valid({**LEAST, "memo": ["a"]})


def test_no_part_of_an_id_is_required_under_one_name_where_it_has_others() -> None:
    account = {"fields": ["bank", "account"]}
    contract = parsed({**SMALLEST, "entities": {"account": account}, "aliases": {"account": ["acct"]}})
    event = {**LEAST, "bank": "b", "acct": "a"}
    assert decodes(event, contract)
    assert jsonschema.Draft202012Validator(contract.json_schema()).is_valid(event)
