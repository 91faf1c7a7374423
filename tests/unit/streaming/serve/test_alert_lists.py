"""What a filter has chosen is kept for the next page, but never where it depends on the time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streaming.inbox.alert_columns import AlertColumns
from streaming.inbox.fields import InboxFields
from streaming.inbox.inbox import Inbox
from streaming.serve.alert_lists import AlertLists
from tests.unit.streaming.inbox.alert_rows import NOW, row, rows_table


def lists_at(moments: list[Any]) -> tuple[AlertLists, Any]:
    columns = AlertColumns(InboxFields(("customer",)))
    columns.take(rows_table([row("t1", entities={"customer": "c -1h"})]))
    view = columns.view(1)
    inbox = cast("Inbox", SimpleNamespace(view=view, fields=view.fields))
    return AlertLists(inbox, lambda: moments.pop(0)), view


@pytest.mark.parametrize(
    "text",
    [
        "time>-2h", "time > -2h", 'time>"-2h"', "time>\t-2h", "not(time<=-2h)", "(time>=-2h)",
        "severity=low or(created>-2h)", "severity = medium and not (time < -2h or amount > 100)",
    ],
)  # fmt: skip
def test_an_age_is_counted_from_now_each_time(text: str) -> None:
    lists, view = lists_at([NOW + timedelta(hours=1), NOW + timedelta(hours=3)])
    assert lists.chosen(view, text).tolist() == [True]
    assert lists.chosen(view, text).tolist() == [False]


@pytest.mark.parametrize("text", ["", "time > 2026-05-01", "amount > -1", 'customer = "c -1h"'])
def test_what_does_not_depend_on_the_time_is_chosen_once(text: str) -> None:
    lists, view = lists_at([NOW])
    assert lists.chosen(view, text) is lists.chosen(view, text)
    assert lists.chosen(view, text).tolist() == [True]


def test_a_page_is_made_once_while_the_alerts_stay_as_they_are() -> None:
    lists, view = lists_at([NOW] * 4)
    page = lists.page("", "newest", None, 10, ("severity",))
    assert lists.page("", "newest", None, 10, ("severity",)) is page
    others = [
        lists.page(text, order, None, limit, facets)
        for text, order, limit, facets in (
            ("amount > 1e9", "newest", 10, ("severity",)),
            ("", "oldest", 10, ("severity",)),
            ("", "newest", 9, ("severity",)),
            ("", "newest", 10, ()),
        )
    ]
    assert [(len(each.alerts), bool(each.facets)) for each in others] == [
        (0, True), (1, True), (1, True), (1, False)
    ]  # fmt: skip
    lists._inbox.view = replace(view)
    assert lists.page("", "newest", None, 10, ("severity",)) is not page


def test_a_page_of_ages_is_made_each_time() -> None:
    lists, _ = lists_at([NOW + timedelta(hours=1), NOW + timedelta(hours=3)])
    totals = [lists.page("time > -2h", "newest", None, 10, ()).total for _ in range(2)]
    assert totals == [1, 0]
