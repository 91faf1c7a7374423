"""A finding cites values that are there, and states no number that it does not cite."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.planning.catalogue import CATALOGUE
from agent.planning.finding import Claim, Draft, Finding, checked, finding_schema, parsed_draft, plain_finding
from agent.planning.plain_sentences import sentence
from agent.planning.plans import Step
from agent.planning.refusals import Refused

EVIDENCE = {
    "s1.rows.0.n": 40,
    "s1.rows.0.share": 0.98765,
    "s1.rows.0.day": "2026-05-01",
    "s2.known_frauds": 2,
    "s2.median_amount": 2450.5,
    "s3.rows.0.reason": None,
}
GOAL = "why did terminal m1 alert 41 times?"
PROPERTY = settings(deadline=None, derandomize=True, max_examples=150)


def problems(text: str, *evidence: str) -> tuple[str, ...]:
    draft = Draft(title="t", claims=(Claim(text=text, evidence=evidence),))
    return checked(draft, EVIDENCE, GOAL, "local").problems


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("40 alerts", ["s1.rows.0.n"]),
        ("40 alerts, 2 of them frauds", ["s1.rows.0.n", "s2.known_frauds"]),
        ("a share of 0.988", ["s1.rows.0.share"]),
        ("about 1 in all", ["s1.rows.0.share"]),
        ("on 2026-05-01", ["s1.rows.0.day"]),
        ("usually 2,450.5", ["s2.median_amount"]),
        ("40 and not 41 as was asked", ["s1.rows.0.n"]),
        ("terminal m1 is busy", ["s1.rows.0.n"]),
    ],
)
def test_what_is_cited_may_be_stated_also_rounded(text: str, evidence: list[str]) -> None:
    assert problems(text, *evidence) == ()


@pytest.mark.parametrize(
    ("text", "evidence", "said"),
    [
        ("55 alerts", ["s1.rows.0.n"], "states 55, which is not among the values it cites"),
        ("40 alerts, 2 frauds", ["s1.rows.0.n"], "states 2, which"),
        ("40 alerts", ["s2.known_frauds"], "states 40, which"),
        ("many", ["s9.rows.0.n"], "cites s9.rows.0.n, which no result holds"),
        ("a share of 0.97", ["s1.rows.0.share"], "states 0.97, which"),
        ("-40 alerts", ["s1.rows.0.n"], "states -40, which"),
        ("98765 alerts", ["s1.rows.0.share"], "states 98765, which"),
    ],
)
def test_what_is_not_there_is_a_problem(text: str, evidence: list[str], said: str) -> None:
    found = problems(text, *evidence)
    assert len(found) == 1
    assert found[0].startswith(said)


def test_a_citation_shows_the_value_of_the_result_not_of_the_writer() -> None:
    draft = Draft(title="t", claims=(Claim(text="many", evidence=("s1.rows.0.n",)),))
    finding = checked(draft, EVIDENCE, GOAL, "local")
    assert finding.valid
    assert finding.plain()["claims"] == [{"text": "many", "evidence": {"s1.rows.0.n": 40}}]
    assert finding.plain()["written_by"] == "local"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        '{"title": "t", "claims": []}',
        '{"title": "t", "claims": [{"text": "x", "evidence": []}]}',
    ],
)
def test_what_is_no_finding_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parsed_draft(text)
    assert caught.value.refusals[0].rule == "finding.format"


def test_the_schema_admits_no_citation_of_what_is_not_there() -> None:
    check = jsonschema.Draft202012Validator(finding_schema(EVIDENCE)).is_valid

    def said(*evidence: str) -> dict[str, Any]:
        return {"title": "t", "claims": [{"text": "x", "evidence": list(evidence)}]}

    assert check(said("s1.rows.0.n"))
    assert not check(said("s1.rows.1.n"))
    assert not check(said())
    assert not check({"title": "t", "claims": []})


@PROPERTY
@given(
    st.dictionaries(
        st.from_regex(r"s[1-9]\.rows\.[0-9]\.[a-z]{1,5}", fullmatch=True),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        min_size=1,
        max_size=20,
    )
)
def test_a_finding_without_a_model_holds_whatever_the_results_are(evidence: dict[str, Any]) -> None:
    finding = plain_finding("t", evidence)
    again = checked(Draft(title="t", claims=finding.claims), evidence, "", "rules")
    assert finding.valid
    assert [each for each in again.problems if each.startswith("cites")] == []
    assert json.loads(json.dumps(finding.plain()))["valid"] is True
    assert {path.partition(".")[0] for path in finding.cited} == {path.partition(".")[0] for path in evidence}


def test_a_finding_with_a_problem_is_not_valid() -> None:
    assert not Finding("t", (), {}, problems=("x",)).valid


NAMES = st.sampled_from(
    [
        "n",
        "payments",
        "amount",
        "total",
        "currency",
        "terminal",
        "event_time",
        "alerted",
        "more_rows",
        "share",
        "first",
    ]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(-1e12, 1e12).map(lambda value: round(value, 6))
    | st.from_regex(r"[a-zA-Z][a-zA-Z0-9]{0,20}", fullmatch=True)
    | st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds"))
)


@PROPERTY
@given(st.dictionaries(NAMES, VALUES, min_size=1), st.sampled_from([*CATALOGUE, "another_action"]))
def test_a_sentence_without_a_model_states_what_it_cites_and_nothing_else(
    row: dict[str, Any], action: str
) -> None:
    evidence = {f"s1.rows.0.{name}": value for name, value in row.items()}
    finding = plain_finding("t", evidence, [Step(id="s1", action=action)])
    assert checked(Draft(title="t", claims=finding.claims), evidence, "", "rules").problems == ()
    (claim,) = finding.claims
    assert claim.text.endswith(".")
    assert claim.text[0].isupper()
    assert "s1" not in claim.text
    assert "rows.0" not in claim.text


@pytest.mark.parametrize(
    ("action", "values", "text"),
    [
        (
            "query_aggregates",
            {"customer": "C17", "payments": 12, "hours": 3, "total": 2310.0, "currency": "EUR"},
            "Customer C17 has 12 payments, 3 hours and a total of 2,310.00 EUR.",
        ),
        (
            "query_aggregates",
            {"row_count": 40, "more_rows": True},
            "The answer has 40 rows and more rows than these.",
        ),
        (
            "entity_profile",
            {"id": "m1", "payments": 40, "median_amount": 2450.5, "first": "2026-05-01T09:30:00+00:00"},
            "Terminal m1 has 40 payments, a median amount of 2,450.5 and the first at 2026-05-01 09:30.",
        ),
        (
            "entity_history",
            {
                "transaction_id": "t1",
                "event_time": "2026-05-01T09:30:00",
                "amount": 5.0,
                "currency": "EUR",
                "alerted": True,
            },
            "Transaction t1 at 2026-05-01 09:30 has an amount of 5.00 EUR and is alerted.",
        ),
        (
            "replay_preview",
            {"added": 3, "candidate_recall": None},
            "The replay has 3 alerts added and no candidate recall.",
        ),
        ("notify", {"delivered": True}, "The message is delivered."),
        ("something_new", {"share": 0.25}, "The result has a share of 0.25."),
        ("something_new", {"terminal": "m1"}, "There is terminal m1."),
    ],
)
def test_results_of_any_action_read_as_sentences(action: str, values: dict[str, Any], text: str) -> None:
    assert sentence(action, values, "terminal") == text


def test_every_row_is_a_sentence_of_its_own_and_of_many_the_first_ones_are_told() -> None:
    evidence = {"s1.row_count": 40} | {f"s1.rows.{place}.terminal": f"m{place}" for place in range(40)}
    finding = plain_finding("t", evidence)
    assert [claim.evidence for claim in finding.claims[:2]] == [("s1.row_count",), ("s1.rows.0.terminal",)]
    assert 5 < len(finding.claims) < 20
