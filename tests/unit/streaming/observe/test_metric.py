"""Metrics have few series whatever comes, sums that stay right, and names by the conventions."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streaming.observe.metric import MOST_VALUES, OTHER, MetricBook
from streaming.observe.metrics import Metrics

UNITS = ("_total", "_seconds", "_bytes", "_ratio", "_info", "_psi")
PLAIN = {
    "alerts_unpublished", "batch_step_duration_seconds", "checkpoint_behind_events", "condition_active",
    "drift_window_events", "executor_buckets", "executors", "labels", "lag_records", "late_answers_waiting",
    "model_circuit_open", "profile_entities", "ready", "score_threshold", "table_files",
}  # fmt: skip
FORBIDDEN = ("id", "transaction", "customer", "card", "alert_id", "query_id", "run_id", "offset", "key")


TEXTS = st.text(st.characters(), max_size=12)  # halves of surrogate pairs, too


@example(["\ud800", "x"], 3)
@given(st.lists(TEXTS, min_size=1, max_size=60), st.integers(1, 20))
def test_a_label_has_no_more_values_than_were_meant_and_nothing_is_lost(names: list[str], most: int) -> None:
    book = MetricBook("a")
    family = book.counter("hits_total", "Hits.", "rule", most=most)
    for name in names:
        family.add(1, name)
    values = [each for each in samples(book) if each.name == "flagstream_hits_total"]
    assert len(values) <= most + 1
    assert sum(each.value for each in values) == len(names)
    assert all(each.labels["rule"] for each in values)


def test_ten_thousand_rules_make_a_hundred_series_and_one_for_the_others() -> None:
    metrics = Metrics("a")
    for number in range(10_000):
        metrics.decisions.rules.add(1, f"rule_{number}")
    found = Counter(
        {
            each.labels["rule"]: int(each.value)
            for each in samples(metrics.book)
            if each.name == "flagstream_rule_alerts_total"
        }
    )
    assert len(found) == MOST_VALUES + 1
    assert found[OTHER] == 10_000 - MOST_VALUES


def test_a_gauge_that_is_replaced_loses_what_is_gone() -> None:
    book = MetricBook("a")
    lag = book.gauge("lag_records", "Lag.", "topic", "partition")
    lag.replace({("t", "0"): 5.0, ("t", "1"): 7.0})
    lag.replace({("t", "1"): 8.0})
    assert [(each.labels["partition"], each.value) for each in samples(book)] == [("1", 8.0)]


def test_gauges_beyond_what_is_kept_apart_are_added_up() -> None:
    book = MetricBook("a")
    lag = book.gauge("lag_records", "Lag.", "topic", "partition", most=2)
    for _ in range(2):
        lag.replace({("t", str(number)): 10.0**number for number in range(5)})
        found = {each.labels["partition"]: each.value for each in samples(book)}
        assert found == {"0": 1.0, "1": 10.0, OTHER: 11_100.0}
    lag.replace({("t", "0"): 3.0})
    assert [(each.labels["partition"], each.value) for each in samples(book)] == [("0", 3.0)]


def test_every_name_follows_the_conventions_and_every_meaning_is_a_sentence() -> None:
    for each in Metrics("a").book.meanings:
        name = each.name.removeprefix("flagstream_")
        assert each.name.startswith("flagstream_")
        assert name in PLAIN or name.endswith(UNITS), name
        assert (each.kind == "counter") == name.endswith("_total"), name
        assert each.kind != "histogram" or name.endswith("_seconds"), name
        assert each.meaning[0].isupper() or each.meaning[0].isdigit()
        assert each.meaning.endswith(".")
        assert not set(each.labels) & set(FORBIDDEN), name


def test_every_series_names_the_agent() -> None:
    ours = [each for each in samples(Metrics("mine").book) if each.name.startswith("flagstream_")]
    assert len(ours) > 20
    assert {each.labels["agent"] for each in ours} == {"mine"}


def test_a_counter_cannot_be_set_and_a_gauge_not_be_added_to() -> None:
    book = MetricBook("a")
    with pytest.raises(AssertionError):
        book.counter("x_total", "X.").put(1)
    with pytest.raises(AssertionError):
        book.gauge("y", "Y.").add(1)


def samples(book: MetricBook):  # type: ignore[no-untyped-def]  # the library's samples have no public type
    text = generate_latest(book.registry).decode()
    return [each for family in text_string_to_metric_families(text) for each in family.samples]
