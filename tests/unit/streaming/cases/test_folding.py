"""Cases are a fold over events: their order of coming, and how often they come, changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

import polars as pl
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from schemas.rules import SEVERITIES
from streaming.cases.case_frames import FRAME, CaseEvent, members_of, moves_of
from streaming.cases.case_store import CaseMemory
from streaming.cases.folding import CASES, fold
from streaming.testing.live_lake import DAY

NAMES = ["a", "b", "c", "d"]
PEOPLE = ["anna", "bert", None]
ACTIONS = [f"x{number}" for number in range(6)]


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return events in their order, sensible or not: what a later version writes may be neither."""
    events = draw(st.lists(st.sampled_from(get_args(CaseEvent)), min_size=1, max_size=25))
    rows: list[dict[str, Any]] = []
    for number, event in enumerate(["opened", *events]):
        case = draw(st.sampled_from(NAMES))
        alert = draw(st.integers(0, 5))
        rows.append(
            {
                "number": number,
                "at": DAY + timedelta(minutes=number),
                "event": event,
                "case_id": case,
                "action": draw(st.sampled_from(ACTIONS)),
                "other": draw(st.sampled_from([*NAMES, *ACTIONS])),
                "who": draw(st.sampled_from(PEOPLE)),
                "assignee": draw(st.sampled_from(PEOPLE)),
                "reason": draw(st.sampled_from(["fraud", "genuine", "other"])),
                "alert_id": f"{case}{alert}",
                "revision": draw(st.integers(1, 2)),
                "severity": draw(st.sampled_from(SEVERITIES)),
                "amount": float(alert),
                "currency": draw(st.sampled_from(["EUR", "USD"])),
                "event_time": DAY + timedelta(minutes=alert),
                "alerted_at": DAY + timedelta(minutes=number),
            }
        )
    return rows


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=FRAME)


def folded(rows: pl.DataFrame) -> pl.DataFrame:
    return fold(moves_of(rows), members_of(rows))


@properties(max_examples=25)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_in_which_rows_come_and_repetitions_change_nothing(
    rows: list[dict[str, Any]], random: Any
) -> None:
    mixed = [*rows, *random.sample(rows, len(rows) // 2)]
    random.shuffle(mixed)
    assert_frame_equal(folded(frame(mixed)), folded(frame(rows)))


@properties(max_examples=25)
@given(histories(), st.lists(st.integers(1, 6), min_size=1, max_size=10))
def test_what_is_kept_up_to_date_is_what_a_fold_of_all_gives(
    rows: list[dict[str, Any]], steps: list[int]
) -> None:
    memory, at = CaseMemory(), 0
    for step in [*steps, len(rows)]:
        # The last rows of the part before come once more, as they do after a lost answer.
        memory.take(frame(rows[max(at - 2, 0) : at + step]))
        at += step
    assert_frame_equal(memory.cases, folded(frame(rows)))
    assert memory.cases.schema == CASES
    assert memory.next_number == len(rows)


@properties(max_examples=25)
@given(histories())
def test_no_alert_is_lost_or_counted_twice_by_merges_and_undone_actions(rows: list[dict[str, Any]]) -> None:
    cases = folded(frame(rows))
    known = cases["case_id"].to_list()
    alerts = {row["alert_id"] for row in rows if row["event"] == "alerted"}
    homeless = {row["alert_id"] for row in rows if row["event"] == "alerted" and row["case_id"] not in known}
    merged_away = cases.filter(pl.col("merged_into").is_not_null() & ~pl.col("merged_into").is_in(known))
    assert cases["alerts"].sum() <= len(alerts)
    if merged_away.height == 0 and set(cases.filter(status="merged")["merged_into"]) <= set(known):
        assert cases["alerts"].sum() >= len(alerts) - len(homeless) - _into_nowhere(rows, known)


def _into_nowhere(rows: list[dict[str, Any]], known: list[str]) -> int:
    """Alerts of cases that were merged into something that is no case."""
    lost = {row["case_id"] for row in rows if row["event"] == "merged" and row["other"] not in known}
    return len({row["alert_id"] for row in rows if row["event"] == "alerted" and row["case_id"] in lost})
