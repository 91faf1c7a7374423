"""Where alerts and cases stand among events is what going through all of them says."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from streaming.cases import text_rows
from streaming.cases.case_store import CaseMemory
from streaming.cases.folding import homes_of, without_undone
from streaming.cases.text_rows import TextRows
from tests.unit.streaming.cases.test_folding import frame, histories

TEXTS = st.sampled_from(["a", "b", "ab", "", "\u00e9", "c" * 40, None])


@pytest.fixture(autouse=True)
def _sorted_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_rows, "_MOST_RECENT", 3)


@given(st.lists(st.lists(TEXTS, max_size=5), max_size=6), st.sets(TEXTS.filter(bool), max_size=4))
def test_rows_are_those_that_hold_a_text(parts: list[list[str | None]], wanted: set[str]) -> None:
    rows, column = TextRows(), pl.Series([], dtype=pl.String)
    for part in parts:
        column = column.append(pl.Series(part, dtype=pl.String))
        expected = [at for at, each in enumerate(column) if each in wanted]
        assert rows.of(column, wanted).tolist() == expected


@properties(max_examples=25)
@given(histories(), st.integers(1, 6))
def test_an_alert_belongs_to_the_case_that_its_first_row_leads_to(
    rows: list[dict[str, object]], step: int
) -> None:
    memory = CaseMemory()
    for at in range(0, len(rows), step):
        memory.take(frame(rows[at : at + step]))
        alerts = memory.members["alert_id"].unique().to_list()
        homes = homes_of(without_undone(memory.moves))
        first = dict(memory.members.select("alert_id", "case_id").reverse().iter_rows())
        assert memory.homes_of_alerts([*alerts, "nobody"]) == {
            alert: homes.get(case, case) for alert, case in first.items()
        }
        for case in memory.cases["case_id"]:
            moves, members = memory.of(case)
            assert set(moves["case_id"]) | set(members["case_id"]) >= {case}
            assert moves.equals(memory.moves.filter(pl.col("case_id").is_in(moves["case_id"].implode())))
