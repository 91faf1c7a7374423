"""The topics of a stream: where each is read from, and that they stay the ones they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from schemas.errors import DataLossError
from streaming.batch.decision import Origin
from streaming.batch.pipeline import ClosedBatch, Pipeline
from streaming.batch.queries import BEGIN, LOSS, new_query
from streaming.batch.resuming import Loss, Resumption, no_records, refusal, resume_all, set_aside
from streaming.batch.stream_settings import Offsets, StreamSettings
from streaming.kafka.source import begins_of, last_planned, offsets_of
from streaming.kafka.topic_facts import TopicFacts, TopicState


class StreamTopics:
    """What a query reads.

    Where one is no longer read, because the spec names it no more, its offsets stay on record: named again it
    is read from there.

    Args:
        settings: topics and checkpoint.
        pipeline: takes in that records were given up.
        on_batch: called with the batches that say so.
    """

    def __init__(
        self, settings: StreamSettings, pipeline: Pipeline, on_batch: Callable[[ClosedBatch], None]
    ) -> None:
        self._settings, self._pipeline, self._on_batch = settings, pipeline, on_batch
        self._facts = TopicFacts(settings.bootstrap, settings.reads)
        reached = settings.reached or {}
        self._unread = {topic: at for topic, at in reached.items() if not settings.reads.includes(topic)}
        self._ids = {
            topic: settings.topic_ids[topic] for topic in self._unread if topic in settings.topic_ids
        }

    @property
    def origin(self) -> Origin:
        """What a batch is read from."""
        return Origin(dict(self._ids) or None)

    def begin(self) -> str:
        """Return where the query begins, once nothing that it was to read is gone or that is on record.

        Raises:
            DataLossError: something is gone, and nobody has given it up.
        """
        settings, found = self._settings, self._facts.state()
        self._ids |= {name: each.topic_id for name, each in found.items() if each.topic_id is not None}
        if settings.reached is None:
            return self._begin_anew(found)
        read = {topic: at for topic, at in settings.reached.items() if topic not in self._unread}
        places = resume_all(read, settings.topic_ids, found)
        lost = {topic: each for topic, each in places.items() if each.lost}
        if lost and settings.accept_loss is None:
            raise DataLossError(refusal(lost))
        if lost:
            self._record(lost, read, places, settings.accept_loss or "")
        if lost or settings.superseded or self._has_another_plan(found):
            set_aside(settings.checkpoint)
        return json.dumps(_starts(places))

    def _begin_anew(self, found: Mapping[str, TopicState]) -> str:
        """Return where the first batch begins; the end of a topic is another one on another machine."""
        settings = self._settings
        if not settings.moves or settings.starting != "latest":
            return settings.starting
        ends = {
            topic: {partition: high for partition, (_, high) in state.bounds.items()}
            for topic, state in found.items()
        }
        self._put_on_record(BEGIN, ends, self._ids, None)
        return json.dumps(ends)

    def expect(self, batch_id: int) -> None:
        """Learn the ids of topics that a batch is the first to be read from."""
        new = offsets_of(self._settings.checkpoint, batch_id).keys() - self._ids.keys()
        if new:
            self._ids |= self._facts.topic_ids(new)

    def reached_by(self, batch_id: int) -> Offsets:
        """Return the end offsets of a batch that was read, if its topics are still those it began with.

        Raises:
            DataLossError: one is another.
        """
        planned = offsets_of(self._settings.checkpoint, batch_id)
        known = {topic: each for topic, each in self._ids.items() if topic in planned}
        changed = sorted(
            topic for topic, each in self._facts.topic_ids(known).items() if each != known[topic]
        )
        if changed:
            raise DataLossError(
                f"topic {', '.join(changed)} was deleted and created anew while it was read: start again, "
                "which names the offsets that are gone and what to do"
            )
        return {**self._unread, **planned}

    def _has_another_plan(self, found: Mapping[str, TopicState]) -> bool:
        """Whether the checkpoint knows topics that are no longer read, or not those that begin above 0.

        Spark would take either for a loss. A batch that it has planned and that is not closed comes first,
        unless Spark takes that very batch for one: it would refuse it at every start.
        """
        planned = last_planned(self._settings.checkpoint)
        if planned is None:
            return False
        known = offsets_of(self._settings.checkpoint, planned)
        if self._settings.settled:
            return not known.keys() <= found.keys() or bool(_places(_late(found)) - _places(known))
        before = begins_of(self._settings.checkpoint, planned)
        if before is None:
            return False
        come, gone = _places(known) - _places(before), _places(before) - _places(known)
        return bool(gone or come & _places(_late(found)) or come - _places(_bounds(found)))

    def _record(
        self, lost: Mapping[str, Resumption], read: Offsets, places: Mapping[str, Resumption], why: str
    ) -> None:
        """For each topic a batch of no records says what was given up, and moves the stream past it."""
        starts = _starts(places)
        offsets = {**self._unread, **starts, **{topic: read[topic] for topic in lost}}
        # Until a topic's own loss is on record it stays known as the one that was read.
        before = {topic: each for topic, each in self._settings.topic_ids.items() if topic in lost}
        for topic, place in sorted(lost.items()):
            del offsets[topic]
            before.pop(topic, None)
            offsets |= {name: at for name, at in starts.items() if name == topic}
            self._close(Loss(why, topic, place.lost), dict(offsets), {**self._ids, **before})

    def _close(self, loss: Loss, offsets: Offsets, topic_ids: Mapping[str, str]) -> None:
        ids = {topic: each for topic, each in topic_ids.items() if topic in offsets}
        self._put_on_record(LOSS, offsets, ids, loss)

    def _put_on_record(
        self, what: str, offsets: Offsets, topic_ids: Mapping[str, str], loss: Loss | None
    ) -> None:
        """Close a batch of no records, after which the stream goes on from offsets."""
        origin = Origin(dict(topic_ids) or None, None if loss is None else loss.to_metadata())
        closed = self._pipeline.process(no_records, new_query(what), 0, lambda: offsets, origin=origin)
        if closed is not None:
            self._on_batch(closed)


def _places(offsets: Mapping[str, Iterable[str]]) -> set[tuple[str, str]]:
    return {(topic, partition) for topic, partitions in offsets.items() for partition in partitions}


def _bounds(found: Mapping[str, TopicState]) -> dict[str, Iterable[str]]:
    return {topic: state.bounds for topic, state in found.items()}


def _late(found: Mapping[str, TopicState]) -> dict[str, Iterable[str]]:
    """Return the partitions that begin above 0, by topic."""
    return {
        topic: [partition for partition, (low, _) in state.bounds.items() if low > 0]
        for topic, state in found.items()
    }


def _starts(places: Mapping[str, Resumption]) -> Offsets:
    return {topic: dict(each.starts) for topic, each in places.items() if each.starts is not None}
