"""A payment on which a condition fails is no hit of that rule, stops nothing, and is named as a condition."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.batch.alerting import report_rules
from streaming.batch.decider import Judged
from streaming.rules.rule_set import RuleSet
from streaming.service.health import Condition, Health
from streaming.testing.live_lake import LARGE, agent, events
from streaming.testing.trial import trial
from tests.unit.streaming.rules.test_rules import SCHEMA, rule

# Of a text that outsiders write: none of the samples is too large for a number of characters.
OF_A_MEMO = "left('', try_cast(memo AS DOUBLE)) ILIKE '%a_'"
FAILING = [
    f"{OF_A_MEMO} OR amount > 100",
    "1.0 / age > 0.6",
    "amount > 100 OR mod(0.5, age) > 0.4",
    f"{OF_A_MEMO} OR 1.0 / amount > 0",
]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "amount": st.sampled_from([0.0, -0.0, 1.0, 200.0, None]),
            "age": st.sampled_from([0, 1, 2, None]),
            "memo": st.sampled_from(["1e400", "-1", "a", None]),
        }
    ),
    max_size=40,
)


@pytest.mark.parametrize("when", FAILING)
@settings(deadline=None, derandomize=True, max_examples=30)
@given(rows=ROWS)
def test_a_row_counts_alike_whatever_rows_around_it_fail(when: str, rows: list[dict[str, Any]]) -> None:
    rules = RuleSet.compile([rule(when), rule("amount > 100", "sound")], SCHEMA)
    table = pa.Table.from_pylist(rows, SCHEMA)
    held = rules.held(table)
    alone = [rules.held(table.slice(row, 1)) for row in range(len(rows))]
    assert held.hits.tolist() == [each.hits[0].tolist() for each in alone]
    assert held.hits[:, 1].tolist() == [(each["amount"] or 0.0) > 100 for each in rows]
    assert set(held.unjudged) == {name for each in alone for name in each.unjudged} <= {"tested"}


@pytest.mark.parametrize(
    ("when", "row"),
    list(zip(FAILING, [{"memo": "1e400"}, {"age": 0}, {"age": 0}, {"memo": "1e400"}], strict=True)),
)
def test_each_of_these_fails_on_some_row(when: str, row: dict[str, Any]) -> None:
    held = RuleSet.compile([rule(when)], SCHEMA).held(pa.Table.from_pylist([row], SCHEMA))
    assert held.unjudged == ("tested",)
    assert not np.any(held.hits)


def test_rows_that_are_equal_in_all_that_a_condition_names_are_judged_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    selections, select = [], pl.DataFrame.select

    def counted(frame: pl.DataFrame, *given: Any, **named: Any) -> pl.DataFrame:
        selections.append(frame.height)
        return select(frame, *given, **named)

    rules = RuleSet.compile([rule(OF_A_MEMO)], SCHEMA)
    monkeypatch.setattr(pl.DataFrame, "select", counted)
    rows = [{"memo": "1e400", "amount": float(number), "age": 1} for number in range(4000)]
    held = rules.held(pa.Table.from_pylist(rows, SCHEMA))
    assert held.unjudged == ("tested",)
    assert len(selections) < 10


def test_an_agent_goes_on_and_replays(tmp_path: Path) -> None:
    odd = {**LARGE, "name": "odd", "when": f"{OF_A_MEMO} OR amount > 250"}
    told = [{**each, "memo": "1e400" if place % 7 == 0 else None} for place, each in enumerate(events(90))]
    with trial(tmp_path, agent(rules=[odd, LARGE], threshold=0.9999)) as tried:
        tried.send(told[:45])
        tried.send(told[45:])
        assert tried.stored("transactions", "sequence").num_rows == 90
        large = {each["tx_id"]: each["memo"] for each in told if each["amount"] > 250}
        hits = {each["transaction_id"]: each["rules"] for each in tried.alerts}
        assert (
            hits.items()
            >= {name: ["large"] if memo else ["odd", "large"] for name, memo in large.items()}.items()
        )
        assert set(large.values()) == {"1e400", None}
        assert tried.replay().differences == ()


def judged(*unjudged: str, rows: int = 1) -> Judged:
    return cast("Judged", SimpleNamespace(unjudged=unjudged, scored=range(rows)))


def test_rules_that_fail_are_a_condition_until_none_does() -> None:
    health = Health()
    report_rules(health, [judged("odd"), judged("odd", "other")])
    (state,) = health.active
    assert state.condition is Condition.RULE_FAILING
    assert state.cause.startswith("odd, other: ")
    report_rules(health, [judged(rows=0)])
    assert health.active
    report_rules(health, [judged(), judged()])
    assert health.active == ()
