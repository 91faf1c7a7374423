"""Where the topics of a stream are read from: each by itself, and no planned batch is left half done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DataLossError
from schemas.subscription import Subscription
from streaming.batch import stream_topics
from streaming.batch.decision import Origin
from streaming.batch.stream_settings import Offsets, StreamSettings, is_settled
from streaming.batch.stream_topics import StreamTopics
from streaming.kafka.topic_facts import TopicState

READS = Subscription(("a", "b"))


class Facts:
    """A broker that says what it is made to say."""

    def __init__(self, found: Mapping[str, TopicState]) -> None:
        self.found = dict(found)

    def state(self) -> dict[str, TopicState]:
        return self.found

    def topic_ids(self, names: Any) -> dict[str, str]:
        return {name: str(self.found[name].topic_id) for name in names if name in self.found}


class Decided:
    """Takes in the batches that say what was given up."""

    def __init__(self) -> None:
        self.batches: list[tuple[Origin, Offsets]] = []

    def process(
        self, _: object, __: str, ___: int, offsets: Callable[[], Offsets], *, origin: Origin
    ) -> None:
        self.batches.append((origin, offsets()))


def state(topic_id: str, **bounds: tuple[int, int]) -> TopicState:
    return TopicState(topic_id, {name.removeprefix("p"): each for name, each in bounds.items()})


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Facts:
    found = Facts({"a": state("A", p0=(0, 50), p1=(0, 20)), "b": state("B", p0=(0, 9))})
    monkeypatch.setattr(stream_topics, "TopicFacts", lambda *_: found)
    return found


def planned(checkpoint: Path, offsets: Offsets, batch: int = 0, query: str = "q") -> None:
    for name in ("offsets", "commits"):
        (checkpoint / name).mkdir(parents=True, exist_ok=True)
    (checkpoint / "metadata").write_text(json.dumps({"id": query}))
    (checkpoint / "offsets" / str(batch)).write_text(f"v1\n{{}}\n{json.dumps(offsets)}")


def topics(checkpoint: Path, decided: Decided, **changes: Any) -> StreamTopics:
    known = {"reached": {"a": {"0": 40, "1": 20}, "b": {"0": 3}}, "topic_ids": {"a": "A", "b": "B"}}
    settings = StreamSettings(
        "one:9092", READS, checkpoint, 1, 1, **{"starting": "earliest", **known, **changes}
    )
    return StreamTopics(settings, decided, lambda _: None)  # type: ignore[arg-type]  # what it needs of one


def test_each_topic_goes_on_where_it_was(facts: Facts, tmp_path: Path) -> None:
    reads = topics(tmp_path, Decided())
    assert json.loads(reads.begin()) == {"a": {"0": 40, "1": 20}, "b": {"0": 3}}
    assert reads.origin.topic_ids == {"a": "A", "b": "B"}
    facts.found["b"] = state("B", p0=(0, 9), p1=(4, 6))
    assert json.loads(topics(tmp_path, Decided()).begin())["b"] == {"0": 3, "1": 4}


def test_without_anything_read_it_begins_as_the_spec_says(facts: Facts, tmp_path: Path) -> None:
    assert facts.state()
    assert topics(tmp_path, Decided(), reached=None, topic_ids={}).begin() == "earliest"


def test_where_a_stream_begins_that_is_read_from_its_end_is_on_record_before_it_may_move(
    facts: Facts, tmp_path: Path
) -> None:
    assert facts.state()
    new, decided = {"reached": None, "topic_ids": {}, "starting": "latest"}, Decided()
    assert topics(tmp_path, decided, **new).begin() == "latest"
    assert decided.batches == []
    ends = {"a": {"0": 50, "1": 20}, "b": {"0": 9}}
    assert json.loads(topics(tmp_path, decided, moves=True, **new).begin()) == ends
    ((origin, offsets),) = decided.batches
    assert (origin.lost, origin.topic_ids, offsets) == (None, {"a": "A", "b": "B"}, ends)


def test_a_topic_that_is_read_no_more_stays_in_the_offsets(facts: Facts, tmp_path: Path) -> None:
    reached = {"a": {"0": 40, "1": 20}, "b": {"0": 3}, "old": {"0": 7}}
    ids = {"a": "A", "b": "B", "old": "O"}
    planned(tmp_path / "c", {"a": {"0": 50, "1": 20}, "b": {"0": 9}})
    reads = topics(tmp_path / "c", Decided(), reached=reached, topic_ids=ids)
    assert facts.state().keys() == json.loads(reads.begin()).keys() == {"a", "b"}
    assert reads.reached_by(0) == {"a": {"0": 50, "1": 20}, "b": {"0": 9}, "old": {"0": 7}}
    assert reads.origin.topic_ids == ids


def test_losses_are_refused_by_name_then_recorded_topic_by_topic(facts: Facts, tmp_path: Path) -> None:
    facts.found = {"a": state("A", p0=(45, 50), p1=(0, 20)), "b": state("anew", p0=(0, 2))}
    with pytest.raises(
        DataLossError, match=r"topic a no longer holds offsets 40 to 44 .*; topic b was deleted"
    ):
        topics(tmp_path, Decided()).begin()
    planned(tmp_path / "c", {"a": {"0": 50}})
    decided = Decided()
    assert json.loads(topics(tmp_path / "c", decided, accept_loss="old").begin()) == {
        "a": {"0": 45, "1": 20},
        "b": {"0": 0},
    }
    (first, moved), (second, both) = decided.batches
    assert first.lost is not None
    assert second.lost is not None
    assert [(each["topic"], each["records"]) for each in (first.lost, second.lost)] == [("a", 5), ("b", 0)]
    assert moved == {"a": {"0": 45, "1": 20}, "b": {"0": 3}}, "a crash here leaves b to be asked about"
    assert both == {"a": {"0": 45, "1": 20}, "b": {"0": 0}}
    assert not (tmp_path / "c").exists(), "a query that begins anew needs no checkpoint"


@pytest.mark.parametrize(
    ("known", "settled", "anew"),
    [
        ({"a": {"0": 40, "1": 20}, "b": {"0": 3}}, True, False),
        ({"a": {"0": 40, "1": 20}}, True, False),
        ({"a": {"0": 40, "1": 20}, "b": {"0": 3}, "old": {"0": 7}}, True, True),
        ({"a": {"0": 40, "1": 20}, "b": {"0": 3}, "old": {"0": 7}}, False, False),
        ({"a": {"0": 40}, "b": {"0": 3}}, True, True),
    ],
    ids=["the same", "one more", "one less", "one less, but a batch is open", "a partition that begins late"],
)
def test_a_checkpoint_with_another_plan_is_set_aside_once_its_batches_are_closed(
    facts: Facts, tmp_path: Path, known: Offsets, settled: bool, anew: bool
) -> None:
    facts.found["a"] = state("A", p0=(0, 50), p1=(5, 20))
    planned(tmp_path / "c", known)
    topics(tmp_path / "c", Decided(), settled=settled).begin()
    assert (tmp_path / "c").exists() is not anew


@pytest.mark.parametrize(
    ("before", "known", "anew"),
    [
        ({"a": {"0": 40, "1": 20}, "b": {"0": 3}}, {"a": {"0": 41, "1": 20}, "b": {"0": 3}}, False),
        ({"a": {"0": 40}, "b": {"0": 3}}, {"a": {"0": 41}, "b": {"0": 3, "1": 2}}, False),
        ({"a": {"0": 40}, "old": {"0": 3}}, {"a": {"0": 41}, "old": {"0": 4}}, False),
        ({"a": {"0": 40}, "old": {"0": 3}}, {"a": {"0": 41}}, True),
        ({"a": {"0": 40}}, {"a": {"0": 41, "1": 20}}, True),
        ({"a": {"0": 40}}, {"a": {"0": 41}, "old": {"0": 4}}, True),
    ],
    ids=[
        "the same",
        "one more from 0 on",
        "both of a topic",
        "one less",
        "one begins late",
        "one came and left",
    ],
)
def test_a_planned_batch_that_spark_refuses_at_every_start_is_set_aside(
    facts: Facts, tmp_path: Path, before: Offsets, known: Offsets, anew: bool
) -> None:
    facts.found = {"a": state("A", p0=(0, 50), p1=(5, 20)), "b": state("B", p0=(0, 9), p1=(0, 2))}
    planned(tmp_path / "c", before, batch=3)
    planned(tmp_path / "c", known, batch=4)
    topics(tmp_path / "c", Decided(), settled=False).begin()
    assert (tmp_path / "c").exists() is not anew


def test_a_checkpoint_is_settled_once_what_it_has_planned_is_closed(tmp_path: Path) -> None:
    assert is_settled(tmp_path / "none", {})
    planned(tmp_path / "c", {"a": {"0": 1}}, batch=4)
    assert [is_settled(tmp_path / "c", closed) for closed in ({}, {"q": 3}, {"other": 9}, {"q": 4})] == [
        False,
        False,
        False,
        True,
    ]


def test_a_topic_that_comes_has_its_id_from_its_first_batch_on(facts: Facts, tmp_path: Path) -> None:
    new = facts.found.pop("b")
    known = {"reached": {"a": {"0": 40, "1": 20}}, "topic_ids": {"a": "A"}}
    reads = topics(tmp_path / "c", Decided(), **known)
    reads.begin()
    facts.found["b"] = new
    planned(tmp_path / "c", {"a": {"0": 50, "1": 20}, "b": {"0": 9}})
    reads.expect(0)
    assert reads.origin.topic_ids == {"a": "A", "b": "B"}
    facts.found["b"] = state("anew", p0=(0, 9))
    with pytest.raises(DataLossError, match="topic b was deleted and created anew while it was read"):
        reads.reached_by(0)


def test_a_crash_between_two_losses_leaves_the_other_topic_known_as_another_one(
    facts: Facts, tmp_path: Path
) -> None:
    facts.found = {"a": state("anew", p0=(0, 5)), "b": state("anew too", p0=(0, 9))}
    decided = Decided()
    topics(tmp_path, decided, accept_loss="both are new").begin()
    (origin, moved), _ = decided.batches
    went_on = topics(tmp_path, Decided(), reached=moved, topic_ids=origin.topic_ids)
    with pytest.raises(DataLossError, match="topic b was deleted and created anew"):
        went_on.begin()
