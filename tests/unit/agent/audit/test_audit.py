from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.audit.events import FIELDS, REDACTED, AuditEvent
from tests.unit.plan_samples import MemoryAudit

PROPERTY = settings(deadline=None, derandomize=True, max_examples=300)
DIGEST = "0f" * 32
QUERY = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"


def event(detail: dict[str, Any], subject: str = "tester") -> AuditEvent:
    return AuditEvent("action", subject, detail, "tester/q", 0)


A_NAME = "Anna Example"


@pytest.mark.parametrize(
    "private",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "card-4111-1111-1111-1111",
        "anna@example.org",
        A_NAME,
        "+49 170 1234567",
        "tel:+491701234567",
        "DE89370400440532013000",
        "https://user:word@host/v1",
        "sk-proj-Abc123Def456Ghi789Jkl0",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0",
        "a line\nand another",
        "x" * 81,
        "",
    ],
)
def test_private_values_are_redacted_wherever_they_turn_up(private: str) -> None:
    for name in FIELDS.keys() - ({"why", "consent"} if private == A_NAME else set()):  # words of a person
        for value in (private, [private], {"a": private}):
            assert event({name: value}).detail[name] == REDACTED
    assert event({}, subject=private).subject == REDACTED


@pytest.mark.long
@PROPERTY
@given(st.text(min_size=1), st.sampled_from(sorted(FIELDS)))
def test_no_text_but_a_short_name_or_a_digest_gets_in(text: str, name: str) -> None:
    kept = event({name: text}).detail[name]
    if kept != REDACTED:
        assert re.fullmatch(r"[A-Za-z0-9_.:/+-]{1,80}", text)


@PROPERTY
@given(st.integers(10**12, 10**19 - 1), st.sampled_from(sorted(FIELDS)))
def test_no_card_number_gets_in_as_text_or_number(number: int, name: str) -> None:
    assert event({name: number}).detail[name] == event({name: str(number)}).detail[name] == REDACTED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "gpt-4o-mini-2024-07-18"),
        ("prompt", "triage/1"),
        ("command", "labels-import"),
        ("actor", "uid:1000"),
        ("outcome", "invalid_json"),
        ("withheld", ["entities.customer", "texts.memo"]),
        ("changed", []),
        ("question", DIGEST),
        ("query_id", QUERY),
        ("alert_id", DIGEST[:32]),
        ("rules_version", "123456789012"),
        ("cost_usd", 0.0123),
        ("sent", True),
        ("batch_id", 4_000_000_000),
        ("model", None),
    ],
)
def test_what_belongs_in_an_event_stays(name: str, value: object) -> None:
    assert event({name: value}).detail[name] == value
    assert json.loads(event({name: value}).detail_json) == {name: value}


@pytest.mark.parametrize("subject", ["tester", DIGEST, QUERY, "gpt-4.1", "labels-import"])
def test_subjects_are_names_and_identifiers(subject: str) -> None:
    assert event({}, subject=subject).subject == subject


def test_a_field_that_is_not_on_the_list_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'outcom'; did you mean 'outcome'"):
        event({"outcom": "answered"})


@pytest.mark.parametrize(("source", "position"), [("tester/q", -1), ("anna@example.org", 0), ("", 0)])
def test_a_source_or_position_that_cannot_be_kept_is_refused(source: str, position: int) -> None:
    with pytest.raises(ValueError, match="source"):
        AuditEvent("action", "tester", {}, source, position)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_json_cannot_hold_are_redacted(value: float) -> None:
    assert json.loads(event({"cost_usd": value}).detail_json) == {"cost_usd": REDACTED}


def test_equal_details_are_equal_bytes() -> None:
    assert event({"rows": 1, "step": 2}).detail_json == event({"step": 2, "rows": 1}).detail_json


def test_memory_keeps_each_event_once() -> None:
    audit = MemoryAudit()
    told = [AuditEvent("action", "tester", {}, "tester/q", 0), AuditEvent("action", "tester", {}, "other", 0)]
    audit.record(told)
    audit.record([*told, AuditEvent("action", "tester", {}, "tester/q", 1)])
    assert [(each.source, each.position) for each in audit.events] == [
        ("tester/q", 0),
        ("other", 0),
        ("tester/q", 1),
    ]
