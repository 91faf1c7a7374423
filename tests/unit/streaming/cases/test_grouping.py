"""Which case an alert belongs to follows from the alerts before it, however they are cut into passes."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.cases import CaseSettings
from streaming.cases.case_store import CaseMemory, completed
from streaming.cases.grouping import Grouping, KnownCases
from streaming.testing.live_lake import DAY
from tests.unit.streaming.cases.case_samples import alert_frame, alert_row

HOURLY = {"factor": 2, "least": 2, "past": "4h"}


def grouping(**changes: Any) -> Grouping:
    settings = {"window": "1h", "rules": ["ring"], "incidents": HOURLY, **changes}
    return Grouping(CaseSettings.model_validate(settings), "customer", "tester")


def pass_of(memory: CaseMemory, rows: list[dict[str, Any]], how: Grouping) -> None:
    events = how.events(alert_frame(rows), KnownCases(memory.cases, memory.members))
    first = memory.next_number
    numbers = pl.int_range(first, first + events.height, dtype=pl.Int64)
    memory.take(completed(events.with_columns(numbers.alias("number"), pl.lit(DAY).alias("at"))))


def cases_of(rows: list[dict[str, Any]], how: Grouping, cuts: list[int]) -> CaseMemory:
    memory, at = CaseMemory(), 0
    for cut in [*cuts, len(rows)]:
        if rows[at : at + cut]:
            pass_of(memory, rows[at : at + cut], how)
        at += cut
    return memory


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return alerts in their order, late events and revisions among them."""
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 25))):
        again = draw(st.sampled_from([*rows, None, None])) if rows else None
        if again is not None:
            rows.append({**again, "outbox_seq": number, "revision": 2, "severity": "low"})
            continue
        minutes, customer = draw(st.integers(0, 600)), draw(st.sampled_from(["c1", "c2", None]))
        rules = draw(st.lists(st.sampled_from(["large", "fast", "ring"]), max_size=3))
        rows.append(alert_row(number, customer, minutes, rules=rules))
    return rows


@properties(max_examples=25)
@given(streams(), st.lists(st.integers(1, 8), max_size=6))
def test_how_alerts_are_cut_into_passes_changes_nothing(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    at_once, in_parts = cases_of(rows, grouping(), []), cases_of(rows, grouping(), cuts)
    homes = [dict(each.members.select("alert_id", "case_id").iter_rows()) for each in (at_once, in_parts)]
    assert homes[0] == homes[1]
    assert at_once.members.height == len(rows)
    assert at_once.members.group_by("alert_id").agg(pl.col("case_id").n_unique())["case_id"].max() == 1
    assert at_once.cases["alerts"].sum() == len({row["alert_id"] for row in rows})


def test_alerts_of_an_entity_are_one_case_while_they_follow_within_the_window() -> None:
    minutes = [0, 50, 100, 20, 170, 40]
    rows = [alert_row(number, "c1", each) for number, each in enumerate(minutes)]
    memory = cases_of(rows, grouping(), [])
    assert memory.cases["alerts"].to_list() == [4, 2]
    assert memory.cases["entity_id"].to_list() == ["c1", "c1"]


def test_alerts_of_a_chosen_rule_are_one_case_whoever_they_are_about() -> None:
    rows = [alert_row(n, f"c{n}", n, rules=["large", "ring"]) for n in range(3)]
    memory = cases_of([*rows, alert_row(3, None, 3), alert_row(4, None, 4)], grouping(), [1])
    assert memory.cases.select("kind", "rule", "alerts").rows() == [
        ("rule", "ring", 3),
        ("alert", f"{3:032x}", 1),
        ("alert", f"{4:032x}", 1),
    ]


def test_alerts_after_a_case_was_closed_begin_another_and_those_of_a_merged_one_follow_it() -> None:
    memory = cases_of([alert_row(0, "c1"), alert_row(1, "c2")], grouping(), [])
    one, two = memory.cases["case_id"]
    merged = {
        "number": memory.next_number,
        "at": DAY,
        "event": "merged",
        "case_id": one,
        "other": two,
        "action": "m",
    }
    memory.take(completed(pl.DataFrame([merged])))
    pass_of(memory, [alert_row(2, "c1", 5)], grouping())
    assert memory.cases["alerts"].to_list() == [0, 3]
    closed = {"number": memory.next_number, "at": DAY, "event": "closed", "case_id": two, "reason": "other"}
    memory.take(completed(pl.DataFrame([closed])))
    pass_of(memory, [alert_row(3, "c1", 6), alert_row(4, "c2", 7)], grouping())
    assert memory.cases["alerts"].to_list() == [0, 3, 1, 1]


def test_a_later_revision_changes_the_severity_of_its_case_and_begins_none() -> None:
    first = alert_row(0, severity="critical")
    memory = cases_of([first, {**first, "outbox_seq": 1, "revision": 2, "severity": "low"}], grouping(), [1])
    assert memory.cases.select("severity", "alerts").rows() == [("low", 1)]


def test_a_rule_beyond_its_norm_makes_one_incident() -> None:
    usual = [alert_row(n, f"c{n}", n * 20, rules=["large"]) for n in range(12)]
    burst = [alert_row(n, f"c{n}", 245 + n / 100, rules=["large"]) for n in range(12, 1_012)]
    found = cases_of([*usual, *burst], grouping(), [5, 100, 1]).cases
    incident = found.filter(kind="incident")
    # Three an hour is the norm, so the seventh of an hour is beyond twice that.
    assert incident.select("rule", "alerts").rows() == [("large", 1_000 - 6)]
    assert found.height == 12 + 6 + 1


def test_below_the_least_nothing_is_an_incident() -> None:
    rows = [alert_row(n, f"c{n}", n / 10, rules=["rare"]) for n in range(20)]
    assert cases_of(rows, grouping(incidents={"least": 10, "factor": 2}), []).cases.height == 20
