"""Ranges of offsets: of the batch that Spark has planned, as options of its reader, and in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from streaming.kafka.source import (
    begins_of,
    last_planned,
    offsets_of,
)

Place = tuple[str, int]
Range = tuple[int, int]


def planned_records(checkpoint: Path, batch_id: int) -> int:
    """Return how many offsets a batch spans at most, by what Spark has planned.

    Raises:
        DataLossError: the checkpoint holds no such batch.
    """
    begins = begins_of(checkpoint, batch_id) or {}
    return sum(
        end - begins.get(topic, {}).get(partition, 0)
        for topic, ends in offsets_of(checkpoint, batch_id).items()
        for partition, end in ends.items()
    )


def planned_spans(checkpoint: Path) -> str:
    """Say which offsets the newest batch spans that Spark has planned."""
    newest = last_planned(checkpoint)
    if newest is None:
        return "the first records"
    begins = begins_of(checkpoint, newest) or {}
    ranges = {
        (topic, int(partition)): (begins.get(topic, {}).get(partition, 0), end)
        for topic, ends in offsets_of(checkpoint, newest).items()
        for partition, end in ends.items()
    }
    return ranges_in_words({place: span for place, span in ranges.items() if span[0] < span[1]})


def assigned_partitions(ranges: Mapping[Place, Range]) -> dict[str, list[int]]:
    """Return the partitions of some ranges by topic, as `assign` takes them."""
    found: dict[str, list[int]] = {}
    for topic, partition in sorted(ranges):
        found.setdefault(topic, []).append(partition)
    return found


def offsets_option(ranges: Mapping[Place, Range], end: int) -> str:
    """Return where ranges begin (0) or end (1), as `startingOffsets` and `endingOffsets` take it."""
    found: dict[str, dict[str, int]] = {}
    for (topic, partition), bounds in ranges.items():
        found.setdefault(topic, {})[str(partition)] = bounds[end]
    return json.dumps(found)


def ranges_in_words(ranges: Mapping[Place, Range]) -> str:
    """Name the offsets of ranges, for people."""
    return ", ".join(
        f"offsets {first} to {after - 1} of {topic}/{partition}"
        for (topic, partition), (first, after) in sorted(ranges.items())
    )
