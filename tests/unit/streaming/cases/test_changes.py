"""What is said of a change of a case follows from what was before it, and from nothing later."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.cases import CaseChange
from schemas.errors import FlagstreamError
from streaming.cases.book import CaseBook
from streaming.cases.choosing import CaseFilter
from streaming.cases.orders import Order
from tests.unit.streaming.cases.case_samples import Desk, alert_row

ALL = get_args(CaseChange)
ORDERS = {
    "escalate": Order("escalate", text="see this"),
    "fraud": Order("close", reason="fraud"),
    "other": Order("close", reason="other"),
    "reopen": Order("reopen"),
    "comment": Order("comment", text="a word"),
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*ORDERS, "merge", "undo", "alert"]), st.integers(0, 2)), max_size=6
)


def told(desk: Desk) -> list[dict[str, Any]]:
    """All changes, as a process that has just begun reads them."""
    book = desk.book()
    book.refresh()
    return book.changes(0, ALL)


def do(desk: Desk, book: CaseBook, step: str, which: int) -> None:
    cases = sorted(each.case_id for each in book.page(CaseFilter(status=())).cases)
    with suppress(FlagstreamError):  # what is refused changes nothing
        if step == "alert":
            desk.alert(alert_row(10 + desk.written, f"c{which}", 90, severity="critical"))
            book.group()
        elif step == "undo":
            book.undo(cases[which], "anna")
        else:
            order = ORDERS.get(step, Order("merge", into=cases[(which + 1) % 3]))
            book.act(cases[which], order, "anna")


@pytest.mark.long
@settings(max_examples=12)  # each with a table on disk
@given(STEPS)
def test_a_change_is_said_in_the_same_words_whatever_happens_later(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        desk.alert(*(alert_row(number, f"c{number % 3}", number) for number in range(4)))
        book = desk.grouped()
        before = told(desk)
        assert [each["event"] for each in before] == ["opened"] * 3
        for step in steps:
            do(desk, book, *step)
            after = told(desk)
            assert after[: len(before)] == before
            before = after
    numbers = [each["number"] for each in before]
    assert numbers == sorted(set(numbers))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    found = Desk(tmp_path)
    found.alert(alert_row(0, "c1"), alert_row(1, "c1", 5, severity="critical"))
    return found


def test_a_case_is_shown_as_it_was_right_after_the_change(desk: Desk) -> None:
    book = desk.grouped()
    (case,) = book.page().cases
    book.act(case.case_id, ORDERS["escalate"], "anna")
    book.act(case.case_id, ORDERS["fraud"], "bert")
    opened, escalated, closed = told(desk)
    assert (opened["case"]["alerts"], opened["case"]["severity"]) == (1, "high"), "the alert that opens it"
    assert (escalated["who"], escalated["text"]) == ("anna", "see this")
    assert (escalated["case"]["level"], escalated["case"]["status"]) == (1, "open")
    assert (escalated["case"]["alerts"], escalated["case"]["severity"]) == (2, "critical")
    assert (closed["reason"], closed["case"]["status"], closed["who"]) == ("fraud", "closed", "bert")
    assert {each["case"]["entity_id"] for each in (opened, escalated, closed)} == {"c1"}


def test_those_are_told_that_are_wanted_from_where_somebody_was(desk: Desk) -> None:
    book = desk.grouped()
    (case,) = book.page().cases
    for name in ("escalate", "other", "reopen", "escalate"):
        book.act(case.case_id, ORDERS[name], "anna")
    first, second = book.changes(0, ["escalated"])
    assert book.changes(first["number"] + 1, ["escalated"]) == [second]
    assert book.changes(0, ["escalated"], most=1) == [first]
    assert [each["event"] for each in book.changes(0, ["closed_other", "reopened"])] == ["closed", "reopened"]
    assert book.changes(0, ["closed_fraud"]) == []
    assert book.changes(0, ["escalated"], case_id="0" * 16) == []
