"""What is read of the lake now and then, beside the batches: sizes, labels, actions, drift.

A round takes at most a hundredth of the time that follows it, however large the lake is.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from datetime import datetime

from schemas.instants import Clock, utc_now
from schemas.lake_tables import TABLES, Table
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable
from streaming.home.placed_agent import PlacedAgent
from streaming.labels.agreement import agreement_with_labels
from streaming.labels.maturing import label_figures
from streaming.observe.audit_facts import AuditFacts
from streaming.observe.drift_watch import DriftFigures, DriftWatch
from streaming.observe.metrics import DecisionMetrics, LabelMetrics, Metrics
from streaming.store.object_files import ObjectFiles
from streaming.store.place import Place

_ROUND_SECONDS = 15.0
_TIMES_ITS_COST = 100.0
_ROUNDS_UNTIL_KEPT = 20


class LakeFacts:
    """Brings metrics up to date that no batch knows.

    Args:
        agent: whose lake it is.
        metrics: where it goes.
        drift: measured and kept.
        clock: the current time.
    """

    def __init__(
        self,
        agent: PlacedAgent,
        metrics: Metrics,
        drift: DriftWatch,
        clock: Clock = utc_now,
    ) -> None:
        self._agent, self._metrics, self._drift = agent, metrics, drift
        self._clock, self._audit = clock, AuditFacts(metrics.actions)
        self._reader = LakeReader.of(agent)
        self._tables: dict[Table, StoredTable] = {}
        self._judged: tuple[int, int] = (-1, -1)
        self._rounds = 0

    def round(self) -> float:
        """Read what is new; return the seconds until the next time.

        A hundredth of a processor is taken at most; what a round waits for others is no cost of its own.
        """
        began = time.thread_time()
        self._open()
        self._read_tables()
        self._read_labels()
        if "audit" in self._tables:
            self._audit.read(self._tables["audit"])
        self._read_disks()
        self._read_checkpoints()
        show_drift(self._metrics.decisions, self._drift.figures())
        self._rounds += 1
        if self._rounds % _ROUNDS_UNTIL_KEPT == 0:
            self._drift.keep()
        return max(_ROUND_SECONDS, _TIMES_ITS_COST * (time.thread_time() - began))

    def _open(self) -> None:
        """Open what has come since; see those tables that are open as they are now."""
        for table in self._tables.values():
            table.refresh()
        self._reader = self._reader.anew()
        for name in TABLES:
            if name not in self._tables and (found := self._reader.table(name)) is not None:
                self._tables[name] = found

    def _read_tables(self) -> None:
        for name, table in self._tables.items():
            sizes = table.file_sizes()
            self._metrics.state.files.put(len(sizes), name)
            self._metrics.state.bytes.put(sum(sizes), name)

    def _read_labels(self) -> None:
        """Compare alerts with labels where either are new."""
        named: tuple[Table, Table] = ("labels", "alerts")
        now = (self._version(named[0]), self._version(named[1]))
        if now == self._judged or min(now) < 0:
            return
        self._judged = now
        show_labels(self._metrics.labels, self._reader, self._agent.spec, self._clock())
        for source, worth in agreement_with_labels(self._reader, self._agent.spec).items():
            if worth.agreeing is not None:
                self._metrics.model.agreement.put(worth.agreeing, source)

    def _version(self, name: Table) -> int:
        table = self._tables.get(name)
        return -1 if table is None else table.version

    def _read_disks(self) -> None:
        for volume, folder in (("home", self._agent.settings.home), ("lake", self._reader.lake)):
            with suppress(OSError):  # a lake in an object store has no disk
                usage = shutil.disk_usage(str(folder))
                self._metrics.state.disk_free.put(usage.free, volume)
                self._metrics.state.disk_size.put(usage.total, volume)

    def _read_checkpoints(self) -> None:
        written = newest_checkpoint(self._agent.settings.profiles(self._agent.name))
        if written is not None:
            self._metrics.state.checkpoint_at.put(written)


def show_drift(decisions: DecisionMetrics, found: DriftFigures) -> None:
    """Bring the metrics of drift up to date; what no longer is measured is forgotten."""
    decisions.drift_events.put(found.reference, "reference")
    decisions.drift_events.put(found.recent, "recent")
    if found.score is not None:
        decisions.score_drift.put(found.score)
    decisions.feature_drift.replace({(name,): index for name, index in found.features.items()})
    windows = ("reference", "recent")
    shares: dict[tuple[str, ...], float] = {
        (rule, window): each
        for rule, both in found.rules.items()
        for window, each in zip(windows, both, strict=True)
    }
    decisions.rule_share.replace(shares)


def show_labels(labels: LabelMetrics, reader: LakeReader, spec: AgentSpec, now: datetime) -> None:
    """Bring the metrics of labels up to date."""
    found = label_figures(reader, spec, now)
    labels.labels.put(found.labels)
    for percentile, seconds in found.delays.items():
        labels.delay.put(seconds, percentile)
    for each in found.matured:
        maturity = f"{each.maturity.total_seconds() / 86_400:g}d"
        if each.labelled is not None:
            labels.labelled.put(each.labelled, maturity)
        if each.precision is not None:
            labels.precision.put(each.precision, maturity)


def newest_checkpoint(place: Place) -> float | None:
    """Return when the newest checkpoint was written, in seconds since 1970; in a store that is one request.

    There a checkpoint is its manifest, right below the place.
    """
    if not place.is_local:
        return ObjectFiles(place).newest_at()
    with suppress(OSError):
        return max((each.stat().st_mtime for each in place.path.glob("[0-9]*")), default=None)
    return None
