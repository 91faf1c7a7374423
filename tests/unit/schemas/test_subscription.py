"""Which topics a stream reads: named, or matched by what every client understands alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, TransactionSource, load_spec
from schemas.subscription import Subscription, check_pattern
from streaming.testing.streams import write_spec


def spec_with(folder: Path, labels: str | None = None, **source: object) -> AgentSpec:
    sources = {"transactions": {"contract": "simulator", **source}, "labels": {"topic": labels}}
    return load_spec(write_spec(folder, lambda name: name, data_sources=sources))


def test_a_pattern_means_whole_names_and_none_of_kafka_s_own() -> None:
    reads = Subscription(pattern=r"pay\..*|cash")
    assert reads.among(["pay.b", "pay.a", "xpay.a", "cash", "cashier", "pays"]) == ["cash", "pay.a", "pay.b"]
    assert not Subscription(pattern=".*").includes("__consumer_offsets")


@pytest.mark.parametrize(
    "pattern", [r"pay\..*", "a|b", "x[0-9]{2}", r"t-\d+", "t{2,}-x{1,3}", "(eu|us)-.+", "[^a]b?"]
)
def test_patterns_of_every_day_are_taken(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "(", "a(?i)b", r"\p{L}", "a&&b", "[a[b]]", "a b", r"\bpay", "*a", "a:b"),
        *("a{,3}", "a{", "a}", "a{x}", "a{2,1}", "a{9999999999}", "a{\N{ARABIC-INDIC DIGIT THREE}}"),
    ],
)
def test_what_clients_read_in_two_ways_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, "expected one of topic, topics and topic_pattern"),
        ({"topics": []}, "expected one of topic, topics and topic_pattern"),
        ({"topic": "a", "topics": ["b"]}, "not topic and topics"),
        ({"topics": ["a", "a"]}, "named twice"),
        ({"topics": ["a", "alerts"]}, "alerts.topic must differ"),
        ({"topic_pattern": "al.*"}, "alerts.topic must differ"),
        ({"topic_pattern": "lab.*"}, "transactions and labels"),
        ({"topic_pattern": "("}, "topic_pattern"),
    ],
)
def test_a_spec_names_its_topics_in_one_way(tmp_path: Path, source: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        spec_with(tmp_path, "labels", **source)


def test_a_spec_of_one_topic_keeps_its_digest() -> None:
    source = TransactionSource(contract="simulator", topic="events")
    assert source.model_dump() == {
        "contract": "simulator",
        "topic": "events",
        "max_records_per_batch": 500_000,
        "starting_offsets": "earliest",
    }
    assert (source.subscription.names, source.subscription.is_one) == (("events",), True)


def test_what_a_spec_names_is_read(tmp_path: Path) -> None:
    named = spec_with(tmp_path, topics=["b", "a"]).data_sources.transactions.subscription
    assert (named.names, named.first, named.is_one, str(named)) == (("b", "a"), "b", False, "b, a")
    pattern = spec_with(tmp_path, topic_pattern="in-.*").data_sources.transactions.subscription
    assert (pattern.includes("in-1"), pattern.is_one) == (True, False)
    with pytest.raises(ConfigurationError, match="names no topic"):
        _ = pattern.first
