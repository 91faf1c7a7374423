"""Where the stream goes on, and what it was still to read that its topics no longer hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from streaming.events.record_table import RECORDS
from streaming.kafka.topic_facts import TopicState


@dataclass(frozen=True)
class UnreadSpan:
    """Offsets of one partition that were never read.

    Attributes:
        first: the first of them.
        next: the one after the last, None where the topic cannot tell.
    """

    partition: int
    first: int
    next: int | None


@dataclass(frozen=True)
class Resumption:
    """Where each partition of a topic is read from, and what is gone.

    Attributes:
        starts: partition → first offset to read, None where the topic is no longer there.
        lost: in the order of the partitions.
        recreated: the topic is another one than that which was read.
    """

    starts: Mapping[str, int] | None
    lost: tuple[UnreadSpan, ...] = ()
    recreated: bool = False

    def gone(self, topic: str) -> str:
        """Say what is gone."""
        spans = ", ".join(_in_words(span) for span in self.lost)
        why = "no longer holds"
        if self.recreated:
            why = "was deleted and created anew, so it no longer has"
        elif self.starts is None:
            why = "was deleted, and with it"
        return f"topic {topic} {why} {spans}"


def refusal(lost: Mapping[str, Resumption]) -> str:
    """Say what is gone of which topic and what to do about it."""
    gone = "; ".join(each.gone(topic) for topic, each in sorted(lost.items()))
    return (
        f"{gone}, which this agent has yet to read: restore them or, to record them "
        'as lost and go on with what is there, start once with `flagstream run --accept-loss "why"`'
    )


def resume_all(
    reached: Mapping[str, Mapping[str, int]], topic_ids: Mapping[str, str], found: Mapping[str, TopicState]
) -> dict[str, Resumption]:
    """Compare what was read of topics with what they hold now.

    Args:
        reached: topic → partition → next offset to read; topics that are no longer read left out.
        topic_ids: of the topics that were read, as far as they are on record.
        found: what is there now of those that are to be read.
    """
    return {
        topic: resume(reached.get(topic, {}), topic_ids.get(topic), found.get(topic))
        for topic in sorted({*reached, *found})
    }


def resume(reached: Mapping[str, int], topic_id: str | None, found: TopicState | None) -> Resumption:
    """Compare what was read of a topic with what it holds now.

    Partitions that came since are read from their beginning.

    Args:
        reached: partition → next offset to read.
        topic_id: of the topic that was read, None where that is not on record.
        found: None where it is no longer there.
    """
    all_of_it = tuple(UnreadSpan(int(partition), at, None) for partition, at in _in_order(reached))
    if found is None:
        return Resumption(None, all_of_it)
    lows = {partition: low for partition, (low, _) in found.bounds.items()}
    if topic_id is not None and found.topic_id is not None and topic_id != found.topic_id:
        return Resumption(lows, all_of_it, recreated=True)
    starts = dict(lows)
    gone = []
    for partition, at in _in_order(reached):
        low, high = found.bounds.get(partition, (at, at - 1))
        if low > at:
            gone.append(UnreadSpan(int(partition), at, low))
        elif high < at:
            gone.append(UnreadSpan(int(partition), at, None))
        if partition in lows:
            starts[partition] = min(max(at, low), max(low, high))
    return Resumption(starts, tuple(gone))


@dataclass(frozen=True)
class Loss:
    """Records that somebody has given up, and why."""

    why: str
    topic: str
    spans: tuple[UnreadSpan, ...]

    @property
    def records(self) -> int:
        """How many, as far as the topic could tell."""
        return sum(span.next - span.first for span in self.spans if span.next is not None)

    def to_metadata(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return {**asdict(self), "records": self.records}


def records_lost(noted: Iterable[str | None]) -> int:
    """Return how many records were given up, by column `lost` of `batches`."""
    return sum(json.loads(each)["records"] for each in noted if each is not None)


def set_aside(checkpoint: Path) -> None:
    """Move Spark's checkpoint away, so that a query begins where it is meant to."""
    if checkpoint.is_dir():
        beside = checkpoint.with_name(f"{checkpoint.name}.set-aside")
        shutil.rmtree(beside, ignore_errors=True)
        checkpoint.rename(beside)


def no_records() -> pa.Table:
    """Return a batch of no records."""
    return RECORDS.empty_table()


def _in_order(reached: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(reached.items(), key=lambda item: int(item[0]))


def _in_words(span: UnreadSpan) -> str:
    end = "on" if span.next is None else f"to {span.next - 1}"
    return f"offsets {span.first} {end} of partition {span.partition}"
