"""The end of an agent's alerts on Kafka: which topic they leave on, and who sends them there."""

from __future__ import annotations

from streaming.batch.alerts_lane import AlertsLane, LaneChange, choose_lane, kept_lane
from streaming.batch.outbox import Outbox
from streaming.delta.lake import Lake
from streaming.kafka.outbox_record import PublisherSettings
from streaming.kafka.publish import Publisher
from streaming.kafka.topic import topic_exists
from streaming.run.surroundings import Surroundings


class AlertsEnd:
    """Chooses the lane of an agent's alerts and opens it.

    Args:
        agent: the agent's name.
        lake: its tables, claimed.
    """

    def __init__(self, around: Surroundings, agent: str, lake: Lake) -> None:
        self._bootstrap, self._hooks, self._headers = around.bootstrap, around.hooks, around.observer.headers
        self._agent, self._lake = agent, lake

    def choose(self, topic: str, *, move: bool) -> LaneChange:
        """Decide which lane the alerts leave on; see choose_lane.

        Args:
            topic: that the spec names.
            move: the next alerts may leave on another topic than those before.
        """
        newest = self._lake.transactions.newest_metadata()
        return choose_lane(
            topic,
            kept_lane(self._lake.batches, None if newest is None else newest["pins"]),
            self._lake.alerts.next_number("outbox_seq"),
            move=move,
            left=self._left_on,
        )

    def outbox(self, change: LaneChange) -> Outbox:
        """Return the outbox that ends on a lane; on another than before, it holds alerts back."""
        lane, alerts = change.lane, self._lake.alerts
        publisher = self._publisher(lane)
        return Outbox(self._agent, alerts, publisher, lane, held=change.moved, headers=self._headers)

    def _left_on(self, lane: AlertsLane) -> int:
        """Return the next outbox_seq that has not left on a lane, by Kafka or, where it is gone, the lake."""
        if not topic_exists(self._bootstrap, lane.topic):
            return max(self._lake.batches.maximum("next_outbox_seq") or 0, lane.first)
        publisher = self._publisher(lane)
        try:
            publisher.open(self._lake.alerts.next_number("outbox_seq"))
            return publisher.marker
        finally:
            publisher.close()

    def _publisher(self, lane: AlertsLane) -> Publisher:
        return (self._hooks.publisher or Publisher)(
            PublisherSettings(self._bootstrap, lane.topic, self._agent, first=lane.first),
            before_commit=self._hooks.before_commit,
            check_ours=self._lake.alerts.check_ours,
        )
