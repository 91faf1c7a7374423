"""The alert: one definition, and what is written can be read back."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alert import (
    ALERT_FIELDS,
    ALERTS,
    CATEGORIES,
    Category,
    FallbackReason,
    Reason,
    alert_id,
    alert_ids,
)
from schemas.alert_documents import alert_documents, alert_json_schema
from schemas.alert_table import alerts_table, entities_array, reasons_array
from streaming.testing.alerts import parse_alert

REASONS = [
    [Reason("amount.customer", 5.25, "amount 40x usual"), Reason("rate.terminal", -0.5, "")],
    [],
    [Reason("novelty.terminal", 1e-17, 'né ☃ "quoted" <tag>')],
]
MOMENT = datetime(2018, 4, 1, 0, 0, 31, 250, tzinfo=UTC)


def columns(**changes: Any) -> dict[str, Any]:
    return {
        "alert_id": alert_ids("cards", ["t1", "t2", "t3"]),
        "transaction_id": ["t1", "t2", "t3"],
        "entities": entities_array({"terminal": ["9", "8", "7"], "customer": ["1", "2", "3"]}),
        "amount": [12.5, 0.0, 1e9],
        "currency": ["EUR", "USD", "EUR"],
        "event_time": [MOMENT, MOMENT + timedelta(microseconds=1), MOMENT.replace(microsecond=0)],
        "score": [0.9991, 0.5, 1.0],
        "log_odds": [7.0, 0.0, 30.0],
        "own_evidence": [9.5, 0.0, 2.0],
        "reasons": reasons_array(REASONS),
        "rules": [["large_amount"], [], ["a", "b"]],
        "classification": ["unusual_spend", "limit_breach", "needs_review"],
        "severity": ["high", "low", "critical"],
        "rationale": ["a", "b", "c"],
        "classification_source": ["llm", "rules", "rules"],
        "fallback_reason": [None, "timeout", "llm_off"],
        "model": ["local", None, None],
        "prompt_id": ["triage", None, None],
        "prompt_version": [1, None, None],
        "evidence": [["amount=12.5", "rule=large"], [], None],
        "sequence": [5, 6, 9],
        "outbox_seq": [0, 1, 2],
        **changes,
    }


def constants(**changes: Any) -> dict[str, Any]:
    return {
        "agent": "cards",
        "base": -4.0,
        "spec_version": "1.0.0",
        "rules_version": "abc",
        "query_id": "q",
        "batch_id": 3,
        "created_at": MOMENT,
        **changes,
    }


def document_of(alert: dict[str, Any]) -> bytes:
    """Write one alert, as a batch of one."""
    row = {name: [value] for name, value in alert.items()}
    row["entities"] = [list(alert["entities"].items())]
    return alert_documents(alerts_table({**row, "reasons": reasons_array([alert["reasons"]])}, {}))[0]


def test_a_batch_is_written_and_read_back_unchanged() -> None:
    table = alerts_table(columns(), constants())
    alerts = [parse_alert(document) for document in alert_documents(table)]
    assert table.schema == ALERTS
    assert [alert["reasons"] for alert in alerts] == REASONS
    assert [alert["event_time"] for alert in alerts] == columns()["event_time"]
    assert [list(alert["entities"].items()) for alert in alerts][1] == [("terminal", "8"), ("customer", "2")]
    assert [alert["prompt_version"] for alert in alerts] == [1, None, None]
    assert {alert["revision"] for alert in alerts} == {1}


def test_one_alert_and_a_batch_of_alerts_have_the_same_bytes() -> None:
    documents = alert_documents(alerts_table(columns(), constants()))
    assert [document_of(parse_alert(document)) for document in documents] == documents


@pytest.mark.parametrize("start", [0, 1, 2])
def test_slices_and_chunks_keep_each_row_its_own_values(start: int) -> None:
    table = alerts_table(columns(), constants())
    whole = alert_documents(table)
    assert alert_documents(table.slice(start, 1)) == whole[start : start + 1]
    chunked = pa.concat_tables([table.slice(2, 1), table.slice(0, 2)])
    assert alert_documents(chunked) == [whole[2], *whole[:2]]


def test_documents_fit_the_exported_schema_and_keep_field_order() -> None:
    schema = alert_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for document in alert_documents(alerts_table(columns(), constants())):
        content = json.loads(document)
        jsonschema.validate(content, schema, jsonschema.Draft202012Validator)
        assert list(content) == [field.name for field in ALERT_FIELDS]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classification", "fraud"),
        ("severity", None),
        ("score", 1.5),
        ("alert_id", "short"),
        ("fallback_reason", "bored"),
        ("reasons", [{"name": "amount"}]),
        ("surplus", 1),
    ],
)
def test_the_exported_schema_refuses_what_an_alert_never_holds(field: str, value: object) -> None:
    content = {**json.loads(alert_documents(alerts_table(columns(), constants()))[0]), field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, alert_json_schema(), jsonschema.Draft202012Validator)


def test_enums_of_the_schema_come_from_the_definitions() -> None:
    properties = alert_json_schema()["properties"]
    assert properties["classification"]["enum"] == list(CATEGORIES) == list(get_args(Category))
    assert properties["fallback_reason"]["enum"] == [*get_args(FallbackReason), None]


@pytest.mark.parametrize(
    ("change", "fixed", "named"),
    [
        ({"amount": [math.nan, 1.0, 2.0]}, {}, "amount"),
        ({"score": [math.inf, 1.0, 2.0]}, {}, "score"),
        ({"currency": [None, "EUR", "EUR"]}, {}, "currency"),
        ({"colour": ["red"] * 3}, {}, "colour"),
        ({}, {"amount": 1.0}, "amount"),
    ],
)
def test_a_batch_that_would_make_a_bad_alert_is_refused(
    change: dict[str, Any], fixed: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        alerts_table(columns(**change), constants(**fixed))


def test_a_missing_field_is_named() -> None:
    fixed = constants()
    del fixed["query_id"]
    with pytest.raises(ValueError, match="query_id"):
        alerts_table(columns(), fixed)


def test_a_batch_without_alerts_is_an_empty_table() -> None:
    table = alerts_table({name: [] for name in columns()}, constants())
    assert (table.num_rows, alert_documents(table)) == (0, [])
    assert len(entities_array({"customer": []})) == len(reasons_array([])) == 0


def test_times_are_written_in_utc_whatever_zone_they_come_in() -> None:
    alert = parse_alert(alert_documents(alerts_table(columns(), constants()))[0])
    elsewhere = {**alert, "event_time": alert["event_time"].astimezone(timezone(timedelta(hours=-7)))}
    assert document_of(elsewhere) == document_of(alert)
    assert b'"event_time":"2018-04-01T00:00:31.000250Z"' in document_of(alert)


@pytest.mark.parametrize("document", [b"[]", b'{"alert_version":2}', b'{"alert_version":1}', b"no"])
def test_what_is_not_an_alert_of_this_version_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        parse_alert(document)


def test_the_id_is_pinned_since_consumers_keep_it() -> None:
    assert alert_id("cards", "t1") == "19c61737cc6c79d15ea3b258b7eaf8b1"
    assert alert_ids("cards", ["t0", "t1"])[1] == alert_id("cards", "t1")


@given(st.text(), st.text())
def test_different_transactions_have_different_ids(first: str, second: str) -> None:
    assert (alert_id("cards", first) == alert_id("cards", second)) == (first == second)
    assert alert_id("cards", first) != alert_id("transfers", first)


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.builds(Reason, st.text(), finite, st.text())), finite, st.text())
def test_any_text_and_number_survive_the_topic(reasons: list[Reason], amount: float, text: str) -> None:
    alert = parse_alert(alert_documents(alerts_table(columns(), constants()))[0])
    changed = {**alert, "reasons": reasons, "amount": amount, "rationale": text}
    assert parse_alert(document_of(changed)) == changed
