"""Which topic an agent's alerts leave on, and from which of them on.

A lane is pinned in the lake, so that a spec that names another topic does not send every alert there once
more: moving has to be asked for, and what has left on one topic does not leave on the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import pyarrow.compute as pc

from schemas.errors import ConfigurationError
from streaming.batch.queries import newest_batch
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable

MOVED = "moved"  # what the batch pins that says so
_TOPIC = "alerts.topic"


@dataclass(frozen=True)
class AlertsLane:
    """A topic and the outbox_seq of the first alert that leaves on it."""

    topic: str
    first: int = 0

    def to_json(self) -> str:
        """Return the form kept in column `lane` of `batches`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, kept: str) -> AlertsLane:
        """Read the form kept in column `lane` of `batches`."""
        return cls(**json.loads(kept))


@dataclass(frozen=True)
class LaneChange:
    """The lane from now on, and whether it is another than before."""

    lane: AlertsLane
    moved: bool = False


def choose_lane(
    wanted: str, before: AlertsLane | None, stored: int, *, move: bool, left: Callable[[AlertsLane], int]
) -> LaneChange:
    """Decide which lane an agent opens.

    Args:
        wanted: the topic that the spec names.
        before: the lane on record.
        stored: the next outbox_seq; 0 while there are no alerts.
        move: alerts may leave on another topic from now on.
        left: tells the next outbox_seq that has not left on a lane.

    Raises:
        ConfigurationError: the topic is another one, and `move` does not say that this is meant.
    """
    if before is None or stored == 0:
        return LaneChange(AlertsLane(wanted))
    if before.topic == wanted:
        return LaneChange(before)
    if not move:
        raise ConfigurationError(
            f"alerts have left on topic {before.topic} so far; to have the next ones leave on {wanted}, "
            "start once with `flagstream run --move-alerts`, or name the topic of before",
            key=_TOPIC,
        )
    return LaneChange(AlertsLane(wanted, left(before)), moved=True)


def kept_lane(batches: StoredTable, newest_pins: dict[str, Any] | None) -> AlertsLane | None:
    """Return the lane on record: that of the batch closed last.

    Args:
        newest_pins: of the newest decided batch, for a lake from before lanes were noted.
    """
    newest = newest_batch(batches, ["lane"])
    if newest is not None and newest["lane"] is not None:
        return AlertsLane.from_json(newest["lane"])
    return None if newest_pins is None else AlertsLane(newest_pins["spec"]["alerts"]["topic"])


def lanes_of(reader: LakeReader, wanted: str) -> list[AlertsLane]:
    """Return all lanes that an agent's alerts have left on, the first of them first.

    Args:
        reader: of the lake.
        wanted: the topic that the spec names, for a lake without batches.
    """
    lanes_noted = reader.rows("batches", ["lane"])["lane"].unique().to_pylist()
    lanes = {AlertsLane.from_json(each) for each in lanes_noted if each is not None}
    if None in lanes_noted and not any(lane.first == 0 for lane in lanes):
        pins = reader.first("batches", ["pins"], pc.field("lane").is_null())["pins"].to_pylist()
        lanes |= {AlertsLane(json.loads(each)["spec"]["alerts"]["topic"]) for each in pins}
    return sorted(lanes or {AlertsLane(wanted)}, key=lambda lane: lane.first)


def unseen(lanes: Sequence[AlertsLane], present: Collection[str]) -> list[range]:
    """Return the outbox_seq of alerts that left on topics of before which are gone.

    Args:
        lanes: the first of them first.
        present: topics that are there.
    """
    return [range(lane.first, then.first) for lane, then in pairwise(lanes) if lane.topic not in present]
