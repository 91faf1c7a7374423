"""Runs of replay, what-if and resending: which span, over which history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import pyarrow as pa

from schemas.alert_documents import alert_documents
from schemas.errors import ConfigurationError
from schemas.loading import parse_duration
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.asking import RECORDED, Asking, candidate_answers
from streaming.history.decided import DecidedHistory
from streaming.history.replay import Replayer
from streaming.history.replayed import ExactReplay
from streaming.history.snapshots import SnapshotHistory, find_snapshot
from streaming.history.spans import Span, raised_in
from streaming.history.what_if import what_if
from streaming.history.what_if_found import WhatIf
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.outbox_record import OutboxRecord, PublisherSettings
from streaming.kafka.publish import Publisher
from streaming.kafka.topic_admin import ensure_topic
from streaming.store.opening import folders_of
from streaming.versions.arithmetic import with_arithmetic


@dataclass(frozen=True)
class ReplaySpan:
    """Which span to replay: one alert's batch, a range of versions or of event time, a snapshot, or all."""

    alert: str | None = None
    from_version: int | None = None
    to_version: int | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None
    snapshot: str | None = None

    def history(self, agent: PlacedAgent) -> DecidedHistory:
        """Return what was decided: the agent's, or that of the snapshot named.

        Raises:
            ConfigurationError: nothing was decided, or there is no such snapshot.
            DataLossError: the snapshot is damaged.
        """
        if self.snapshot is None:
            return DecidedHistory(agent)
        found = find_snapshot(
            folders_of(agent.settings.snapshots(agent.name), agent.settings.spool), self.snapshot
        )
        found.check()
        return SnapshotHistory(found, agent.spec)

    def span(self, history: DecidedHistory) -> Span:
        """Return the span.

        Raises:
            ConfigurationError: more than one way was given, or nothing lies in it.
        """
        versions = (self.from_version, self.to_version) != (None, None)
        times = (self.from_time, self.to_time) != (None, None)
        if (self.alert is not None) + versions + times + (self.snapshot is not None) > 1:
            raise ConfigurationError(
                "choose one of --alert, --from/--to-version, --from/--to-time and --snapshot"
            )
        if self.alert is not None:
            return history.of_alert(self.alert)
        if versions:
            return history.of_versions(self.from_version or 0, self._through(history))
        if times:
            return history.of_times(
                *(each and each.replace(tzinfo=UTC) for each in (self.from_time, self.to_time))
            )
        return history.whole

    def _through(self, history: DecidedHistory) -> int:
        return history.newest_version if self.to_version is None else self.to_version


OnProgress = Callable[[int, int], None]
"""Called with the rows replayed since the last call, and all rows of the span."""


def _nowhere(_: int, __: int) -> None:
    """Progress that nobody watches."""


def run_replay(placed: PlacedAgent, wanted: ReplaySpan, on_progress: OnProgress = _nowhere) -> ExactReplay:
    """Replay exactly.

    Raises:
        ConfigurationError: see streaming.history.replay.Replayer.exactly.
    """
    history = wanted.history(placed)
    span = wanted.span(history)
    contract = history.contract(span)
    agent = (
        AgentDefinition.of(placed.spec) if contract is None else AgentDefinition.pinned(placed.spec, contract)
    )
    return Replayer(placed.settings, agent, history, _within(span, on_progress)).exactly(span)


def run_what_if(
    placed: PlacedAgent,
    candidate: AgentSpec,
    wanted: ReplaySpan,
    warm_up: timedelta | None = None,
    asking: Asking = RECORDED,
    on_progress: OnProgress = _nowhere,
) -> WhatIf:
    """Replay under a candidate.

    Args:
        warm_up: see streaming.history.what_if.
        asking: whether the candidate's model may be asked, and up to which cap; nobody is unless given.

    Raises:
        ConfigurationError: see streaming.history.what_if and streaming.history.candidate_answers.
    """
    decides = AgentDefinition.load(with_arithmetic(candidate, placed), "the candidate")
    agent = AgentDefinition.of(placed.spec)
    history = wanted.history(placed)
    span = history.streamed(wanted.span(history))
    run = f"{decides.spec.version}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    sandbox = placed.settings.sandbox(placed.name) / run
    replayer = Replayer(placed.settings, agent, history, _within(span, on_progress))
    with candidate_answers(placed, decides, history, span, asking, run) as answers:
        return what_if(replayer, history, agent, decides, span, sandbox, warm_up, answers=answers)


def warm_up_of(text: str | None) -> timedelta | None:
    """Return how long a candidate's profiles are to be warmed up.

    Raises:
        ConfigurationError: it is no duration.
    """
    try:
        return None if text is None else parse_duration(text)
    except ValueError as fault:
        raise ConfigurationError(str(fault), where="--warm-up") from None


def send_again(agent: PlacedAgent, wanted: ReplaySpan, bootstrap: str, topic: str) -> dict[str, object]:
    """Send the alerts of a span to another topic, each once however often this is called; return how many.

    Raises:
        ConfigurationError: the topic is one of the agent's own, or the span cannot be had.
        RetryableError: the broker does not answer.
    """
    check_topic(agent.spec, topic)
    history = wanted.history(agent)
    span = wanted.span(history)
    first = raised_in(history.tables(span).alerts, span)
    alerts = pa.concat_tables([first, history.late_answers(span)]).sort_by("outbox_seq")
    ensure_topic(bootstrap, topic, partitions=1, config={"retention.ms": "-1"})
    lane = PublisherSettings(bootstrap, topic, agent.name, replay=f"{span.first}-{span.end}")
    publisher = Publisher(lane)
    try:
        publisher.open(alerts.num_rows)
        keys = alerts["transaction_id"].to_pylist()
        records = zip(count(), keys, alert_documents(alerts), strict=False)
        sent = publisher.publish(OutboxRecord(place, key.encode(), value) for place, key, value in records)
    finally:
        publisher.close()
    return {"topic": topic, "replay": lane.replay, "alerts": alerts.num_rows, "sent": sent}


def check_topic(spec: AgentSpec, topic: str) -> None:
    """Check that alerts may be sent to a topic again.

    Raises:
        ConfigurationError: it is one of the agent's own.
    """
    sources = spec.data_sources
    used = (spec.alerts.topic, sources.labels.topic)
    if topic in used or sources.transactions.subscription.includes(topic):
        raise ConfigurationError("name a topic that the agent does not use itself", where=topic)


def _within(span: Span, on_progress: OnProgress) -> Callable[[int], None]:
    return lambda rows: on_progress(rows, span.end - span.first)
