"""Every metric of a running agent. docs/observability.md has a table of them, which is made from here.

Those of `serve` and `notify run` are in `streaming.observe.desk_metrics`.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from streaming.observe.bucket_work import BucketMetrics
from streaming.observe.executor_metrics import ExecutorMetrics
from streaming.observe.health_metrics import HealthMetrics, StateMetrics
from streaming.observe.metric import MetricBook

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0)
_MOST_PARTITIONS = 1_000


class StreamMetrics:
    """How events go through."""

    def __init__(self, book: MetricBook) -> None:
        self._of_records(book)
        self._of_batches(book)
        self._of_progress(book)

    def _of_records(self, book: MetricBook) -> None:
        count = book.counter
        self.read = count("records_read_total", "Records read from the topics.")
        self.stored = count("events_stored_total", "Events stored in `transactions`.")
        self.quarantined = count(
            "records_quarantined_total", "Records rejected into the quarantine, by reason.", "reason"
        )
        self.filtered = count(
            "records_filtered_total", "Records that the contract does not want, by reason.", "reason"
        )
        self.duplicates = count("records_duplicate_total", "Records whose transaction was stored before.")
        self.late = count("events_late_total", "Stored events that are older than what earlier batches held.")

    def _of_batches(self, book: MetricBook) -> None:
        self.batches = book.counter(
            "batches_total", "Batches, by what became of the attempt (closed or failed).", "outcome"
        )
        self.batches.add(0, "failed")  # so that the first one is seen as one more
        self.steps = book.histogram(
            "batch_step_duration_seconds", "Time that the steps of a batch take.", "step", buckets=SECONDS
        )
        self.latency = book.histogram(
            "alert_latency_seconds",
            "From an event's timestamp on Kafka to its alert committed to Delta.",
            buckets=_LONG_SECONDS,
        )

    def _of_progress(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.lag = gauge(
            "lag_records",
            "Records on the topics that are not read yet.",
            "topic",
            "partition",
            most=_MOST_PARTITIONS,
        )
        self.begun_at = gauge(
            "batch_started_timestamp_seconds", "When the newest batch was begun, in seconds since 1970."
        )
        self.closed_at = gauge(
            "batch_closed_timestamp_seconds", "When the newest batch was closed, in seconds since 1970."
        )
        self.unpublished = gauge(
            "alerts_unpublished", "Alerts committed to Delta beyond the marker: not on the topic yet."
        )


class DecisionMetrics:
    """What is flagged and alerted, and how scores and features drift."""

    def __init__(self, book: MetricBook) -> None:
        self._of_alerts(book)
        self._of_drift(book)

    def _of_alerts(self, book: MetricBook) -> None:
        count = book.counter
        self.flagged = count("events_flagged_total", "Events over the threshold or hit by a rule.")
        self.rules = count("rule_alerts_total", "Alerts that a rule has hit, by rule.", "rule")
        self.alerts = count(
            "alerts_total",
            "Alerts as they first left, by severity, classification and who classified (llm or rules).",
            "severity",
            "classification",
            "source",
        )
        self.refused = count("alerts_refused_total", "Alerts left out since they are on record already.")

    def _of_drift(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.threshold = gauge("score_threshold", "Score from which events are flagged, of the newest event.")
        self.score_drift = gauge(
            "score_drift_psi", "Population stability index of the scores against the reference window."
        )
        self.feature_drift = gauge(
            "feature_drift_psi",
            "Population stability index of a feature against the reference window, by feature.",
            "feature",
            most=400,
        )
        self.rule_share = gauge(
            "rule_alert_ratio",
            "Share of events that a rule has alerted, by rule and window (reference or recent).",
            "rule",
            "window",
        )
        self.drift_events = gauge(
            "drift_window_events", "Sampled events in a window (reference or recent) of drift.", "window"
        )


class ModelMetrics:
    """How models are asked, and what their answers are worth."""

    def __init__(self, book: MetricBook) -> None:
        self._of_calls(book)
        self._of_limits(book)
        self._of_late_answers(book)

    def _of_calls(self, book: MetricBook) -> None:
        count = book.counter
        self.calls = count("model_calls_total", "Requests to a model, by how they ended.", "model", "outcome")
        self.call_seconds = book.histogram(
            "model_call_duration_seconds",
            "Time that requests to a model take.",
            "model",
            buckets=_LONG_SECONDS,
        )
        self.tokens = count(
            "model_tokens_total", "Tokens of models, by direction (input or output).", "direction"
        )
        self.cost = count("model_cost_usd_total", "Cost of models in US dollars, by the prices of the spec.")
        self.answers = count(
            "model_answers_total",
            "Answers about groups of alerts: `answered` is accepted, all else says why not.",
            "outcome",
        )
        self.degraded = count(
            "alerts_degraded_total",
            "Alerts that fell back to the classification by rules although a model was to be asked.",
        )

    def _of_limits(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.breaker = gauge(
            "model_circuit_open", "1 while a model that has failed again and again is left alone.", "model"
        )
        self.budget = gauge(
            "model_budget_used_ratio",
            "Share of a limit of the budget that is used, by window (minute, day) and unit (tokens, usd).",
            "window",
            "unit",
        )
        self.over_budget = book.counter(
            "model_budget_refusals_total",
            "Requests that did not fit into the budget, by window (minute, day).",
            "window",
        )

    def _of_late_answers(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.waiting = gauge("late_answers_waiting", "Alerts that wait for a late answer of the model.")
        self.late = book.counter(
            "late_answers_total",
            "Late answers, by what became of the alert (answered or given_up).",
            "outcome",
        )
        self.agreement = gauge(
            "classification_agreement_ratio",
            "Share of decided classifications that agree with the labels that came, by who classified.",
            "source",
        )


class LabelMetrics:
    """What labels say, and how late they come."""

    def __init__(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.labels = gauge("labels", "Labels on record.")
        self.delay = gauge(
            "label_delay_seconds",
            "From an event to the label recorded of it, of the newest labels, by percentile (50, 90 or 99).",
            "percentile",
        )
        self.precision = gauge(
            "alert_precision_ratio",
            "Share of frauds among the labelled alerts whose event is at least so old, by maturity.",
            "maturity",
        )
        self.labelled = gauge(
            "alerts_labelled_ratio",
            "Share of the alerts whose event is at least so old that have a label, by maturity.",
            "maturity",
        )


class ActionMetrics:
    """What people and planned runs did, as the audit log has it."""

    def __init__(self, book: MetricBook) -> None:
        self.actions = book.counter(
            "actions_total", "Actions in the audit log, by action and outcome.", "action", "outcome"
        )
        self.seconds = book.histogram(
            "time_to_action_seconds",
            "From the first event of a planned run to the end of each of its actions.",
            buckets=_LONG_SECONDS,
        )
        self.accesses = book.counter(
            "data_accesses_total", "Tables that commands of people have read, by table.", "table"
        )


class Metrics:
    """All metrics of one agent, and those of its process.

    Args:
        agent: the agent's name.
    """

    def __init__(self, agent: str) -> None:
        self.book = MetricBook(agent)
        self.stream, self.decisions = StreamMetrics(self.book), DecisionMetrics(self.book)
        self.model, self.labels = ModelMetrics(self.book), LabelMetrics(self.book)
        self.actions, self.state = ActionMetrics(self.book), StateMetrics(self.book)
        self.health, self.executors = HealthMetrics(self.book), ExecutorMetrics(self.book)
        self.buckets = BucketMetrics(self.book)
        self.registry = self.book.registry
        add_those_of_the_process(self.registry)


def add_those_of_the_process(registry: CollectorRegistry) -> None:
    """Have memory, processor time and garbage of this process shown beside what is declared."""
    # A second series for each, which nothing here needs.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves its type out
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
