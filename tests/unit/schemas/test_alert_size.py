"""No alert is larger than its topic admits, and how it is cut depends on nothing but itself."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alert import (
    ALERTS,
    CATEGORIES,
    CLASSIFICATION_SOURCES,
    FALLBACK_REASONS,
    LATER_FIELDS,
    Reason,
)
from schemas.alert_documents import alert_documents, alert_json_schema
from schemas.alert_size import _may_exceed, fitted, size_of
from schemas.alert_table import alerts_table
from schemas.rules import SEVERITIES
from schemas.spec import AlertOutput
from streaming.testing.alerts import parse_alert
from tests.unit.schemas.test_alert import MOMENT, columns, constants

LEAST = 16_384
VALIDATOR = jsonschema.Draft202012Validator(alert_json_schema())
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.builds(
        lambda text, times: text * times,
        st.sampled_from(["\x01", '"', "\u4e2d", "x"]),
        st.integers(1, 90_000),
    ),
)
LISTS = st.one_of(st.none(), st.lists(TEXTS, max_size=4), st.integers(0, 3_000).map(lambda n: ["rule"] * n))


@st.composite
def alerts(draw: st.DrawFn) -> dict[str, Any]:
    """One alert as a row, sound but for its size."""
    row: dict[str, Any] = alerts_table(columns(), constants()).slice(0, 1).to_pylist()[0]
    reasons = [
        {"name": "amount.customer", "contribution": 1.0, "text": draw(TEXTS)}
        for _ in range(draw(st.integers(0, 5)))
    ]
    ids = st.dictionaries(st.sampled_from(["customer", "terminal"]), TEXTS.filter(bool))
    return {
        **row,
        "transaction_id": draw(TEXTS.filter(bool)),
        "currency": draw(TEXTS),
        "entities": list(draw(ids).items()),
        "reasons": reasons,
        "rules": draw(LISTS) or [],
        "rule_texts": draw(LISTS),
        "evidence": [text[:1_000] for text in (draw(LISTS) or [])[:3]],
    }


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=ALERTS)


@pytest.mark.long
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(alerts(), min_size=1, max_size=5), st.integers(LEAST, 300_000))
def test_alerts_fit_say_what_was_cut_and_stay_as_they_are_once_they_fit(
    rows: list[dict[str, Any]], most: int
) -> None:
    before = table(rows)
    after = fitted(before, most)
    assert after.schema == before.schema
    assert fitted(after, most).equals(after), "cutting again changes nothing"
    alone = pa.concat_tables([fitted(table([row]), most) for row in rows])
    assert alone.equals(after), "an alert is cut alike in whatever company"
    for row, cut, document in zip(before.to_pylist(), after.to_pylist(), alert_documents(after), strict=True):
        VALIDATOR.validate(json.loads(document))
        parse_alert(document)
        assert len(document) + len(cut["transaction_id"].encode()) <= size_of(cut) <= most
        changed = {name for name in row if row[name] != cut[name]} - {"clipped"}
        assert changed == set(cut["clipped"] or ())
        if size_of(row) <= most - 4_096 - 512:
            assert not changed


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(alerts(), min_size=1, max_size=8), st.integers(1_000, 300_000))
def test_no_alert_that_is_too_large_is_overlooked(rows: list[dict[str, Any]], most: int) -> None:
    too_large = {place for place, row in enumerate(table(rows).to_pylist()) if size_of(row) > most}
    assert too_large <= set(_may_exceed(table(rows), most))


ATTEMPTS = st.fixed_dictionaries(
    {
        "classification": st.sampled_from(sorted(CATEGORIES)),
        "severity": st.sampled_from(SEVERITIES),
        "classification_source": st.sampled_from(CLASSIFICATION_SOURCES),
        "fallback_reason": st.sampled_from([None, *FALLBACK_REASONS]),
        "query_id": st.uuids().map(str),
        "batch_id": st.integers(0, 2**62),
    }
)


@pytest.mark.long
@settings(max_examples=100, deadline=None, derandomize=True)
@given(alerts(), st.integers(-300, 300), ATTEMPTS)
def test_another_attempt_is_cut_alike(row: dict[str, Any], around: int, attempt: dict[str, Any]) -> None:
    """A server that was late the first time and answers the second changes a few bytes, and no cut."""
    most = max(LEAST, size_of(row) + 4_096 + around)
    cut, again = (fitted(table([each]), most).to_pylist()[0] for each in (row, {**row, **attempt}))
    assert {**cut, **attempt} == again


@settings(max_examples=30, deadline=None, derandomize=True)
@given(alerts(), st.integers(LEAST, 100_000))
def test_what_a_model_said_does_not_change_how_the_rest_is_cut(row: dict[str, Any], most: int) -> None:
    """So a late answer differs from the first revision in what the model said alone."""
    silent = {**row, "evidence": [], "rationale": "by rules", "model": None}
    said, unsaid = (fitted(table([each]), most).to_pylist()[0] for each in (row, silent))
    for name in ("transaction_id", "currency", "entities", "reasons", "rules", "rule_texts"):
        assert said[name] == unsaid[name]


def test_a_large_currency_is_cut_wherever_it_stands() -> None:
    """A record of 65 kB, whose currency stands in the alert three times, made one of 196 kB."""
    currency = "x" * 65_000
    row = {
        **fitted_row(),
        "currency": currency,
        "reasons": [
            Reason("amount.customer", 1.0, f"5.00 {currency} is far above 1.00 {currency}")._asdict()
        ],
    }
    (cut,) = fitted(table([row]), 100_000).to_pylist()
    assert size_of(row) > 190_000
    assert cut["clipped"] == ["currency", "reasons"]
    assert cut["currency"].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert cut["created_at"] == MOMENT


def fitted_row() -> dict[str, Any]:
    row: dict[str, Any] = alerts_table(columns(), constants()).slice(0, 1).to_pylist()[0]
    return row


def test_alerts_from_before_there_were_later_fields_are_cut_without_them() -> None:
    old = table([{**fitted_row(), "transaction_id": "x" * 50_000}]).drop_columns(list(LATER_FIELDS))
    cut = fitted(old, LEAST)
    assert cut.schema == old.schema
    assert len(cut["transaction_id"][0].as_py()) == 1_000


def test_usual_alerts_are_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    many = table([fitted_row()] * 500)
    monkeypatch.setattr("schemas.alert_size.sizes_of", lambda _: pytest.fail("measured"))
    assert fitted(many, AlertOutput(topic="out").max_bytes) is many
    assert pl.DataFrame(many)["clipped"].null_count() == 500


def test_a_bound_that_nobody_sets_leaves_digests_alone() -> None:
    assert AlertOutput(topic="out").model_dump() == {"topic": "out"}
    assert AlertOutput(topic="out", max_bytes=20_000).model_dump() == {"topic": "out", "max_bytes": 20_000}
