"""Alerts that were decided twice: whatever differs is found, however many rows are the same."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import ALERT_KIND
from streaming.history.comparison import differences_between

MODEL = ("m", "triage", "3")
RECORDED = frozenset({(*MODEL, "account_takeover", "high")})
PLACES = st.sets(st.integers(0, 30), min_size=1, max_size=8)
OTHERWISE = {"amount": 99.0, "reasons": [], "rules": ["r"], "score": 0.1, "passed_by": 7}


def alert(sequence: int, *, by_model: bool) -> dict[str, Any]:
    model, prompt, version = MODEL if by_model else (None, None, None)
    return {
        "alert_id": f"a{sequence}",
        "transaction_id": f"t{sequence}",
        "sequence": sequence,
        "kind": ALERT_KIND,
        "passed_by": None,
        "amount": 12.5,
        "score": 0.9,
        "reasons": [{"name": "amount", "contribution": 1.5}],
        "rules": ["large"],
        "classification": "account_takeover" if by_model else "unusual_spend",
        "severity": "high",
        "rationale": "said" if by_model else "reckoned",
        "classification_source": "llm" if by_model else "rules",
        "model": model,
        "prompt_id": prompt,
        "prompt_version": version,
        "batch_id": sequence // 3,
    }


SCHEMA = pa.Table.from_pylist([alert(0, by_model=True) | {"passed_by": 1}]).schema


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def replayed(row: dict[str, Any]) -> dict[str, Any]:
    """What a replay decides of an alert, which asks no model and runs in other batches."""
    by_rules = {"classification": "unusual_spend", "severity": "low", "classification_source": "rules"}
    told = by_rules if row["classification_source"] == "llm" else {}
    return {**row, **told, "rationale": "reckoned", "batch_id": 0, "model": None}


@given(PLACES, PLACES, st.randoms())
def test_the_same_in_any_order_does_not_differ(places: set[int], by_model: set[int], order: Any) -> None:
    before = [alert(place, by_model=place in by_model) for place in places]
    after = [replayed(row) for row in before]
    order.shuffle(after)
    assert list(differences_between(table(before), table(after), RECORDED)) == []


@given(PLACES, PLACES, st.data())
def test_one_that_differs_is_found_among_all(
    places: set[int], by_model: set[int], data: st.DataObject
) -> None:
    before = [alert(place, by_model=place in by_model) for place in sorted(places)]
    after = [replayed(row) for row in before]
    number = data.draw(st.integers(0, len(before) - 1))
    name = data.draw(st.sampled_from([*OTHERWISE, "classification", "severity", "rationale"]))
    other = OTHERWISE.get(name, "other" if name != "severity" else "critical")
    # What a model said is compared with what is on record of it, and not with what rules say.
    of_the_model = before[number]["classification_source"] == "llm" and name not in OTHERWISE
    changed = before if of_the_model and name != "rationale" else after
    changed[number] = {**changed[number], name: other}
    found = list(differences_between(table(before), table(after), RECORDED))
    if of_the_model and name == "rationale":
        assert found == []
    else:
        (difference,) = found
        assert (difference.what, difference.sequence) == ("changed", before[number]["sequence"])
        assert name in difference.fields


@given(PLACES, st.data())
def test_one_that_is_gone_or_came_is_found(places: set[int], data: st.DataObject) -> None:
    rows = [alert(place, by_model=False) for place in sorted(places)]
    left_out = data.draw(st.integers(0, len(rows) - 1))
    fewer = [row for number, row in enumerate(rows) if number != left_out]
    for before, after, what in ((rows, fewer, "missing"), (fewer, rows, "added")):
        (difference,) = differences_between(table(before), table(after), RECORDED)
        assert (difference.what, difference.sequence) == (what, rows[left_out]["sequence"])


def test_one_in_the_place_of_another_is_found() -> None:
    before, after = table([alert(1, by_model=False)]), table([alert(2, by_model=False)])
    found = {each.what for each in differences_between(before, after, RECORDED)}
    assert found == {"missing", "added"}


def test_a_column_that_came_later_and_holds_nothing_is_no_difference() -> None:
    before = table([alert(1, by_model=False)])
    assert list(differences_between(before, before.drop_columns(["passed_by"]), RECORDED)) == []
