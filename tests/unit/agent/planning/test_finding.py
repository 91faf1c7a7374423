"""A finding cites values that are there, and states no number that it does not cite."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.planning.finding import Claim, Draft, Finding, checked, finding_schema, parsed_draft, told_plainly
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
    finding = told_plainly("t", evidence)
    again = checked(Draft(title="t", claims=finding.claims), evidence, "", "rules")
    assert finding.valid
    assert [each for each in again.problems if each.startswith("cites")] == []
    assert json.loads(json.dumps(finding.plain()))["valid"] is True
    assert {path.partition(".")[0] for path in finding.cited} == {path.partition(".")[0] for path in evidence}


def test_a_finding_with_a_problem_is_not_valid() -> None:
    assert not Finding("t", (), {}, problems=("x",)).valid
