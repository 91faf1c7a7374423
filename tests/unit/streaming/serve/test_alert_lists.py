"""What a filter has chosen is kept for the next page, but never where it depends on the time."""

from __future__ import annotations

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
