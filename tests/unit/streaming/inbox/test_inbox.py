"""The list of alerts is what folding the lake row by row gives: filters, counts, pages, labels, revisions."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import alert_id
from schemas.errors import ConfigurationError, StoreError
from schemas.rules import SEVERITIES
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.inbox import inbox as inbox_module
from streaming.inbox.alert_columns import AlertColumns
from streaming.inbox.alert_rows import AlertRows
from streaming.inbox.cursor import Cursor, Order
from streaming.inbox.fields import InboxFields
from streaming.inbox.filter_language import (
    AnyPart,
    EveryPart,
    FieldAmong,
    FieldCompared,
    Filter,
    NoPart,
    parse_filter,
)
from streaming.inbox.inbox import Inbox
from streaming.inbox.view import InboxView
from streaming.labels.book import LabelBook
from streaming.testing.live_lake import agent, judge
from tests.unit.streaming.inbox.alert_rows import NOW, AlertWriter, row, rows_table

SPEC = agent()
KINDS = ("customer", "terminal")


def inbox_of(settings: Settings) -> Inbox:
    return Inbox(LakeReader(settings.lake(SPEC.name), SPEC.tables), SPEC, KINDS)


def listed(
    view: InboxView, text: str = "", order: Order = "newest", limit: int = 1_000
) -> list[dict[str, Any]]:
    chosen = view.chosen(parse_filter(text), NOW)
    return view.alerts(view.page(chosen, order, None, limit))


def ids(view: InboxView, text: str = "", order: Order = "newest") -> list[str]:
    return [each["transaction_id"] for each in listed(view, text, order)]


def test_a_lake_without_alerts_has_none(settings: Settings) -> None:
    inbox = inbox_of(settings)
    assert not inbox.is_read
    assert not inbox.refresh()
    assert inbox.is_read
    assert listed(inbox.view) == []
    assert inbox.view.counts(inbox.view.chosen(parse_filter(""), NOW), ["severity"]) == {"severity": {}}


def test_revisions_are_one_alert_at_the_place_of_the_first(settings: Settings) -> None:
    writer, inbox = AlertWriter(settings, SPEC), inbox_of(settings)
    writer.write([row("t1"), row("t2", severity="high")])
    assert inbox.refresh()
    before = inbox.view
    writer.write([row("t3"), row("t1", revision=2, severity="critical", classification_source="llm")])
    assert inbox.refresh()
    assert ids(inbox.view) == ["t3", "t2", "t1"]
    (first,) = listed(inbox.view, "transaction = t1")
    assert (first["severity"], first["source"], first["revision"]) == ("critical", "llm", 2)
    assert first["outbox_seq"] == 3
    assert ids(inbox.view, order="severity")[0] == "t1"
    assert ids(before) == ["t2", "t1"], "who has begun to read sees what was there"
    assert (before.next_outbox_seq, inbox.view.next_outbox_seq) == (2, 4)
    assert not inbox.refresh()


def test_whoever_refreshes_at_once_each_alert_is_there_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "_SLICE", 5)  # many reads, between which others would come in
    AlertWriter(settings, SPEC).write([row(f"t{number}") for number in range(200)])
    inbox, begin = inbox_of(settings), threading.Barrier(4)

    def refresh() -> None:
        begin.wait()
        inbox.refresh()

    several = [threading.Thread(target=refresh) for _ in range(4)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert len(ids(inbox.view)) == len(set(ids(inbox.view))) == 200


def test_both_revisions_in_one_commit_and_a_revision_whose_first_is_gone(settings: Settings) -> None:
    writer, inbox = AlertWriter(settings, SPEC), inbox_of(settings)
    writer.write([row("t1"), row("t1", revision=2, severity="low"), row("t9", revision=2, severity="high")])
    inbox.refresh()
    assert [(each["transaction_id"], each["severity"]) for each in listed(inbox.view)] == [
        ("t9", "high"),
        ("t1", "low"),
    ]


def test_labels_come_and_change_and_know_alerts_that_come_later(settings: Settings) -> None:
    writer, inbox = AlertWriter(settings, SPEC), inbox_of(settings)
    writer.write([row("t1"), row("t2"), row("t1", kind="absence.silent")])
    inbox.refresh()
    assert ids(inbox.view, "label = none") == ["t1", "t2", "t1"]
    judge(PlacedAgent(settings, SPEC), ["t1", "t5"])
    assert inbox.refresh()
    assert ids(inbox.view, "label = fraud") == ["t1", "t1"]
    writer.write([row("t5")])
    inbox.refresh()
    assert ids(inbox.view, "label = fraud") == ["t5", "t1", "t1"]
    assert inbox.view.counts(np.ones(4, np.bool_), ["label"])["label"] == {"fraud": 3, "none": 1}


def test_alerts_are_shown_where_their_labels_cannot_be_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, inbox = AlertWriter(settings, SPEC), inbox_of(settings)
    judge(PlacedAgent(settings, SPEC), ["t1"])
    inbox.refresh()
    writer.write([row("t1")])

    def away(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as broken:
        broken.setattr(LabelBook, "latest_on", away)
        for _ in range(2):
            with pytest.raises(StoreError):
                inbox.refresh()
            assert (ids(inbox.view), inbox.view.next_outbox_seq) == (["t1"], 1)
    assert inbox.refresh()
    assert ids(inbox.view, "label = fraud") == ["t1"]


def test_rewritten_rows_are_read_anew(settings: Settings) -> None:
    writer, inbox = AlertWriter(settings, SPEC), inbox_of(settings)
    writer.write([row("t1", entities={"customer": "c1"}), row("t2", entities={"customer": "c2"})])
    inbox.refresh()
    assert ids(inbox.view, "customer = c1") == ["t1"]
    writer.rewrite_without("c1")
    inbox.refresh()
    assert ids(inbox.view, "customer = c1") == []
    assert ids(inbox.view) == ["t2"]


def test_alerts_of_a_table_that_was_restored_from_an_older_copy_are_those_that_it_has(
    settings: Settings, tmp_path: Path
) -> None:
    """Also once it has as many rows as before."""
    place = settings.lake(SPEC.name).path / SPEC.tables.alerts
    writer, inbox = AlertWriter(settings, SPEC), inbox_of(settings)
    writer.write([row("t1")])
    shutil.copytree(place, tmp_path / "copy")
    writer.write([row("t2")])
    inbox.refresh()
    assert sorted(ids(inbox.view)) == ["t1", "t2"]
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "copy", place)
    again = AlertWriter(settings, SPEC)
    again._next = again._batch = 1
    again.write([row("t3")])
    inbox.refresh()
    assert sorted(ids(inbox.view)) == ["t1", "t3"]


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from([f"t{number}" for number in range(30)]),
        severity=st.sampled_from(SEVERITIES),
        rules=st.lists(st.sampled_from(["large", "silent", "night"]), unique=True, max_size=3),
        amount=st.sampled_from([0.0, 5.0, 5.0, 120.5]),
        score=st.sampled_from([0.5, 0.9, 0.9, 0.999]),
        currency=st.sampled_from(["EUR", "USD"]),
        entities=st.sampled_from([{}, {"customer": "c1"}, {"customer": "c 2", "terminal": "m1"}]),
        revision=st.sampled_from([1, 1, 2]),
    ),
    max_size=40,
)


def folded(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for place, each in enumerate(rows):
        before = found.get(each["alert_id"])
        if before is None:
            found[each["alert_id"]] = {**each, "place": place}
        else:
            revised = ("severity", "classification", "score", "revision", "rules")
            before.update({name: each[name] for name in revised})
    return list(found.values())


COMPARISONS = st.one_of(
    st.builds(
        FieldCompared,
        st.just("severity"),
        st.sampled_from(["=", "!=", "<", ">="]),
        st.sampled_from(SEVERITIES),
    ),
    st.builds(
        FieldCompared,
        st.just("rule"),
        st.sampled_from(["=", "!=", "~"]),
        st.sampled_from(["large", "il", "x"]),
    ),
    st.builds(
        FieldCompared,
        st.sampled_from(["amount", "score"]),
        st.sampled_from(["<", "<=", "=", "!=", ">"]),
        st.sampled_from(["5", "0.9", "-1"]),
    ),
    st.builds(
        FieldCompared,
        st.just("customer"),
        st.sampled_from(["=", "!=", "~"]),
        st.sampled_from(["c1", "c", "zz"]),
    ),
    st.builds(
        FieldAmong,
        st.just("currency"),
        st.lists(st.sampled_from(["EUR", "USD", "GBP"]), min_size=1).map(tuple),
    ),
    st.builds(
        FieldAmong,
        st.just("transaction"),
        st.lists(st.sampled_from(["t1", "t2", "t3"]), min_size=1).map(tuple),
    ),
    st.builds(
        FieldAmong, st.just("rule"), st.lists(st.sampled_from(["large", "night"]), min_size=1).map(tuple)
    ),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(NoPart, inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: EveryPart(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AnyPart(tuple(parts))),
    ),
    max_leaves=5,
)


def fits(wanted: Filter, each: dict[str, Any]) -> bool:
    if isinstance(wanted, NoPart):
        return not fits(wanted.part, each)
    if isinstance(wanted, EveryPart | AnyPart):
        joined = all if isinstance(wanted, EveryPart) else any
        return joined(fits(part, each) for part in wanted.parts)
    held = {
        "severity": [each["severity"]],
        "rule": each["rules"],
        "customer": [each["entities"].get("customer")],
        "transaction": [each["transaction_id"]],
    }.get(wanted.name, [each.get(wanted.name)])
    if isinstance(wanted, FieldAmong):
        return bool(set(wanted.values) & set(held))
    if wanted.name in ("amount", "score"):
        return compared(wanted.operator, each[wanted.name], float(wanted.value))
    if wanted.name == "severity":
        return compared(wanted.operator, SEVERITIES.index(each["severity"]), SEVERITIES.index(wanted.value))
    hit = [wanted.value in one if wanted.operator == "~" else wanted.value == one for one in held if one]
    return (not any(hit)) if wanted.operator == "!=" else any(hit)


def compared(operator: str, one: float, other: float) -> bool:
    return {
        "=": one == other, "!=": one != other, "<": one < other, "<=": one <= other, ">": one > other,
        ">=": one >= other,
    }[operator]  # fmt: skip


def view_of(rows: Sequence[dict[str, Any]], cut: int = 7) -> InboxView:
    columns = AlertColumns(InboxFields(KINDS))
    for first in range(0, len(rows), cut):
        columns.take(rows_table(rows[first : first + cut], first))
    return columns.view(0)


@given(ROWS, FILTERS, st.integers(1, 9))
def test_a_filter_chooses_what_it_says_of_the_newest_revisions(
    rows: list[dict[str, Any]], wanted: Filter, cut: int
) -> None:
    view, expected = view_of(rows, cut), folded(rows)
    found = view.alerts(np.flatnonzero(view.chosen(wanted, NOW)))
    assert [each["alert_id"] for each in found] == [
        each["alert_id"] for each in expected if fits(wanted, each)
    ]


@given(ROWS, FILTERS)
def test_counts_are_those_of_the_chosen(rows: list[dict[str, Any]], wanted: Filter) -> None:
    view = view_of(rows)
    expected = [each for each in folded(rows) if fits(wanted, each)]
    found = view.counts(view.chosen(wanted, NOW), ["severity", "rule", "currency"])
    assert found["severity"] == Counter(each["severity"] for each in expected)
    assert found["rule"] == Counter(rule for each in expected for rule in each["rules"])
    assert list(found["severity"].values()) == sorted(found["severity"].values(), reverse=True)


@pytest.mark.long
@given(ROWS, ROWS, st.sampled_from(get_args(Order)), st.integers(1, 5))
def test_pages_show_each_alert_once_in_order_whatever_is_appended_meanwhile(
    rows: list[dict[str, Any]], later: list[dict[str, Any]], order: Order, limit: int
) -> None:
    columns = AlertColumns(InboxFields(KINDS))
    columns.take(rows_table(rows))
    view, shown, cursor = columns.view(0), list[str](), None
    expected = [
        each["alert_id"] for each in view.alerts(view.page(np.ones(view.rows, np.bool_), order, None, 999))
    ]
    fresh = [each for each in later if each["revision"] == 1 and each["alert_id"] not in expected]
    while True:
        page = view.page(np.ones(view.rows, np.bool_), order, cursor, limit)
        shown += [each["alert_id"] for each in view.alerts(page)]
        if len(page) < limit:
            break
        cursor = Cursor.parse(view.cursor(order, int(page[-1])).text(), order)
        columns.take(rows_table(fresh[:1], len(rows) + len(later) - len(fresh)))
        fresh, view = fresh[1:], columns.view(0)
    assert [each for each in shown if each in expected] == expected
    assert len(set(shown)) == len(shown)


def test_orders_are_what_they_are_called() -> None:
    view = view_of(
        [
            row("t1", amount=5.0, score=0.9, severity="low"),
            row("t2", amount=7.0, score=0.9, severity="critical"),
            row("t3", amount=6.0, score=0.99, severity="high"),
        ]
    )
    assert [ids(view, order=order) for order in get_args(Order)] == [
        ["t3", "t2", "t1"],
        ["t1", "t2", "t3"],
        ["t3", "t2", "t1"],
        ["t2", "t3", "t1"],
        ["t2", "t3", "t1"],
    ]


def test_times_are_compared_as_dates_moments_and_ages() -> None:
    view = view_of([row("t1", event_time=NOW - timedelta(hours=3)), row("t2", event_time=NOW)])
    for text in ("time >= -2h", "time > 2026-05-01T10:00:00+00:00", 'time > "2026-05-01T10:00:00Z"'):
        assert ids(view, text) == ["t2"], text
    assert ids(view, "time < 2026-05-02 and created > 2026-05-01") == ["t2", "t1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("severty = high", "did you mean 'severity'"),
        ("severity = hihg", "did you mean 'high'"),
        ("severity ~ hi", "takes"),
        ("customer < c1", "takes"),
        ("time = 2026-05-01", "takes"),
        ("amount > much", "a number"),
        ("amount > nan", "a number"),
        ("time > yesterday", "a time"),
        ("time > -99999999999999d", "a time"),
        ("time in (2026-05-01)", "takes"),
    ],
)
def test_what_cannot_be_compared_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ids(view_of([row("t1")]), text)


@given(st.text(max_size=60), st.sampled_from(get_args(Order)))
def test_no_text_is_taken_for_a_cursor_that_is_none(text: str, order: Order) -> None:
    with pytest.raises(ConfigurationError, match="no cursor"):
        Cursor.parse(text, order)


@given(
    st.sampled_from(get_args(Order)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 2**63 - 1),
)
def test_a_cursor_reads_back_in_its_own_order_alone(order: Order, key: float, place: int) -> None:
    text = Cursor(order, key, place).text()
    assert Cursor.parse(text, order) == Cursor(order, key, place)
    other = next(each for each in get_args(Order) if each != order)
    with pytest.raises(ConfigurationError, match="no cursor"):
        Cursor.parse(text, other)


def test_alerts_are_found_again_once_there_are_many() -> None:
    rows = AlertRows()
    ids_ = pa.chunked_array([[alert_id("a", str(number)) for number in range(50_000)]])
    for first in range(0, 50_000, 12_500):
        part = ids_.slice(first, 12_500)
        assert len(rows.append(part, first)) == 12_500
    assert rows.of(ids_).tolist() == list(range(50_000))
    assert rows.of(pa.chunked_array([[alert_id("b", "1")]])).tolist() == [-1]
    assert [rows.find(each) for each in ids_.to_pylist()[::997]] == list(range(0, 50_000, 997))
    assert rows.find(alert_id("b", "1")) is None


def test_an_entity_called_like_a_field_is_asked_by_another_name() -> None:
    columns = AlertColumns(InboxFields(("source", "customer")))
    columns.take(rows_table([row("t1", entities={"source": "s1", "customer": "c1"})]))
    view = columns.view(0)
    assert ids(view, "entity_source = s1 and source = rules") == ["t1"]
    assert listed(view)[0]["entities"] == {"source": "s1", "customer": "c1"}
