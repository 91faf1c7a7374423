"""Where a stream goes on: no record is passed over unless somebody has said so."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from streaming.batch.resuming import (
    Loss,
    UnreadSpan,
    records_lost,
    refusal,
    resume,
    resume_all,
    set_aside,
)
from streaming.kafka.topic_facts import TopicState

PARTITIONS = st.dictionaries(st.integers(0, 5).map(str), st.integers(0, 50), min_size=1)
BOUNDS = st.dictionaries(
    st.integers(0, 5).map(str),
    st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda pair: (min(pair), max(pair))),
    min_size=1,
)


@properties(deadline=None, derandomize=True)
@given(PARTITIONS, BOUNDS, st.sampled_from(["a", "b", None]))
def test_every_offset_yet_to_be_read_is_read_or_named_as_lost(
    reached: dict[str, int], bounds: dict[str, tuple[int, int]], found: str | None
) -> None:
    place = resume(reached, "a", TopicState(found, bounds))
    assert place.starts is not None
    assert place.starts.keys() == bounds.keys()
    lost = {str(span.partition): span for span in place.lost}
    for partition, (low, high) in bounds.items():
        start = place.starts[partition]
        assert low <= start <= high
        if found == "b" or partition not in reached:
            assert start == low
        elif partition not in lost:
            assert start == reached[partition]
        elif lost[partition].next is not None:
            assert (lost[partition].first, lost[partition].next) == (reached[partition], start)
    for partition, at in reached.items():
        within = partition in bounds and bounds[partition][0] <= at <= bounds[partition][1]
        assert (partition in lost) == (found == "b" or not within)


@properties(deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from("abc"), PARTITIONS),
    st.dictionaries(st.sampled_from("abc"), st.tuples(BOUNDS, st.sampled_from(["1", "2"]))),
)
def test_topics_are_resumed_each_by_itself(
    reached: dict[str, dict[str, int]], held: dict[str, tuple[dict[str, tuple[int, int]], str]]
) -> None:
    found = {topic: TopicState(topic_id, bounds) for topic, (bounds, topic_id) in held.items()}
    places = resume_all(reached, dict.fromkeys(reached, "1"), found)
    assert places.keys() == reached.keys() | found.keys()
    for topic, place in places.items():
        if topic not in found:
            assert place.starts is None
            assert {str(span.partition): span.first for span in place.lost} == reached[topic]
        elif topic not in reached:
            lows = {partition: low for partition, (low, _) in found[topic].bounds.items()}
            assert (place.starts, place.lost) == (lows, ())
        else:
            assert place == resume(reached[topic], "1", found[topic])
        assert not place.lost or f"topic {topic} " in refusal({topic: place})


def test_a_topic_whose_id_nobody_knows_is_taken_for_the_same() -> None:
    for pinned, found in (("a", None), (None, "a")):
        assert not resume({"0": 3}, pinned, TopicState(found, {"0": (0, 9)})).lost


def test_a_refusal_names_offsets_and_what_to_do() -> None:
    place = resume({"0": 3, "1": 7}, "a", TopicState("a", {"0": (5, 9), "1": (0, 9)}))
    assert place.lost == (UnreadSpan(0, 3, 5),)
    assert "offsets 3 to 4 of partition 0" in refusal({"in": place})
    assert '--accept-loss "why"' in refusal({"in": place})
    again = resume({"0": 3}, "a", TopicState("b", {"0": (0, 9)}))
    assert "deleted and created anew" in refusal({"in": again})


def test_losses_are_counted_as_far_as_they_are_known() -> None:
    loss = Loss("retention", "in", (UnreadSpan(0, 3, 5), UnreadSpan(1, 4, None)))
    assert loss.to_metadata()["records"] == 2
    assert records_lost([None, '{"records": 2}', '{"records": 5}']) == 7


def test_a_checkpoint_set_aside_leaves_room_for_another(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    for text in ("first", "second"):
        checkpoint.mkdir()
        (checkpoint / "metadata").write_text(text)
        set_aside(checkpoint)
        assert not checkpoint.exists()
        assert (tmp_path / "checkpoint.set-aside" / "metadata").read_text() == text
    set_aside(checkpoint)
