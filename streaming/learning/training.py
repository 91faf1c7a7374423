"""`flagstream train`: fits the supervised model on stored transactions, and never puts it in force.

Features are those of each row as it was scored: with the labels that it knew then (`recorded`), or, for
labels that were imported after the fact, with those decided by its own time (`decided`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.errors import ConfigurationError, nearest
from schemas.event_columns import DIRECTION
from schemas.instants import MICRO
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.detection.model import SupervisedModel, save, train
from streaming.detection.scoring import Scorer
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels, at_positions
from streaming.labels.label_pins import PIN_COLUMNS, LabelPins
from streaming.learning.labelled_run import NEVER, History, Run, run_history, run_recorded
from streaming.learning.protocol import average_precision, roc_auc
from streaming.store.folders import Folders
from streaming.store.place import Place

Known = Literal["recorded", "decided"]
KNOWN: tuple[Known, ...] = ("recorded", "decided")

_HELD_OUT = 0.2


@dataclass(frozen=True)
class TrainingOrder:
    """What to train on.

    Attributes:
        until: events from here on, and labels decided later, are left out; None for all.
        known: see the module.
        label_delay: rows this much older than `until` that nobody labelled count as genuine; None to go by
            labels alone.
        seed: of the sampling of rows and features.
    """

    until: datetime | None = None
    known: Known = "recorded"
    label_delay: timedelta | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check `known`.

        Raises:
            ConfigurationError: it is no such word.
        """
        if self.known not in KNOWN:
            raise ConfigurationError(nearest(self.known, KNOWN), where="--labels")


@dataclass(frozen=True)
class Trained:
    """A fitted model and what it was trained on, as its artefact notes it."""

    model: SupervisedModel
    training: dict[str, Any]


@dataclass(frozen=True)
class _Material:
    """Stored rows before `until`, and what is known of them by then.

    Attributes:
        frauds: bool[n].
        judged: bool[n], the row may be learned from.
        decided_at: int64[n], microseconds since 1970, NEVER without a label.
    """

    transactions: pa.Table
    frauds: Flags
    judged: Flags
    decided_at: Ints


def train_on_lake(
    agent: HasLake,
    entities: tuple[str, ...],
    order: TrainingOrder,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    *,
    refunds: bool = False,
) -> Trained:
    """Fit a model to the stored rows with a label, from the longest horizon after the first row on.

    The metrics are of a model fitted to the first four fifths of them, on the last fifth, beside those of the
    scores without a model; the model returned is fitted to all.

    Args:
        agent: whose lake it is; its profiles and detectors are used.
        entities: the contract's entity columns.
        order: what to train on.
        on_progress: called with the rows done and the rows there are.
        refunds: the contract tells refunds from payments.

    Raises:
        ConfigurationError: no transactions, no labels, or not both kinds of rows to learn from.
    """
    reader, spec = LakeReader.of(agent), agent.spec
    source = _Source(reader, spec, entities, _book(reader, spec), refunds)
    material = source.material(order)
    kept = _settled_rows(material, spec)
    scorer = Scorer(spec, entities, refunds=refunds)
    run = source.run(scorer, material, kept, order.known, on_progress)
    frauds, names = material.frauds[kept], scorer.feature_names
    model = train(run.features, frauds, names, seed=order.seed)
    training = {
        **source.noted(scorer, order),
        "sequences": [0, material.transactions.num_rows],
        "rows": len(frauds),
        "frauds": int(frauds.sum()),
        "held_out": _held_out(run.features, frauds, run.scores[kept], names, order.seed),
        "sha256": model.digest,
    }
    return Trained(model, training)


def save_next(trained: Trained, folders: Folders) -> Place:
    """Write the artefact as the next version among `folders` and return where it lies."""
    versions = [int(name) for name in folders.names() if name.isdecimal()]
    name = str(max(versions, default=0) + 1)
    with folders.writing(name) as folder:
        save(trained.model, folder, trained.training)
    return folders.place / name


def _settled_rows(material: _Material, spec: AgentSpec) -> Flags:
    """Mark the rows to learn from, bool[n], of which there is one at least."""
    kept = material.judged & _settled(material.transactions, spec)
    if not kept.any():
        labelled, settling = int(material.judged.sum()), spec.profiles.horizons[-1]
        raise ConfigurationError(
            f"none of {labelled} labelled rows comes later than {settling} (profiles.horizons) after the "
            "first transaction, when profiles have settled"
        )
    return kept


def _book(reader: LakeReader, spec: AgentSpec) -> LabelBook:
    path = reader.place("labels")
    if reader.table("labels") is None:
        raise ConfigurationError(
            "there are no labels to learn from; `flagstream labels import` adds them", where=str(path)
        )
    return LabelBook(path, retention=spec.replay_horizon)


@dataclass(frozen=True)
class _Source:
    """The tables that training reads."""

    reader: LakeReader
    spec: AgentSpec
    entities: tuple[str, ...]
    book: LabelBook
    refunds: bool

    def noted(self, scorer: Scorer, order: TrainingOrder) -> dict[str, Any]:
        """Return what an artefact notes of its origin."""
        delay = order.label_delay
        return {
            "agent": self.spec.name,
            "spec_version": self.spec.version,
            "scoring": scorer.definition_hash,
            "arithmetic": self.spec.arithmetic_in_force,
            "until": None if order.until is None else order.until.isoformat(),
            "verdicts": order.known,
            "label_delay_seconds": None if delay is None else delay.total_seconds(),
            "seed": order.seed,
            "transactions_version": self.reader.version("transactions"),
            "labels_version": self.book.version,
        }

    def material(self, order: TrainingOrder) -> _Material:
        """Read the stream and the labels as they stood at `order.until`."""
        columns = ["sequence", "transaction_id", "event_time", "amount", "currency", *self.entities]
        columns += Scorer(self.spec, self.entities, refunds=self.refunds).columns
        rows = self.reader.rows("transactions", columns)
        if rows.num_rows == 0:
            where = str(self.reader.place("transactions"))
            raise ConfigurationError("there are no transactions yet", where=where)
        rows = _before(rows.sort_by("sequence"), order.until)
        said = self._labels(rows, order.until)
        return _Material(
            rows,
            said["is_fraud"].fill_null(value=False).to_numpy(),
            said["is_fraud"].is_not_null().to_numpy() | _taken_for_genuine(rows, order),
            said["decided_at"].dt.epoch("us").fill_null(NEVER).to_numpy(),
        )

    def run(
        self,
        scorer: Scorer,
        material: _Material,
        kept: Flags,
        known: Known,
        on_progress: Callable[[int, int], None],
    ) -> Run:
        """Score the rows anew, keeping the features of some."""
        rows = material.transactions

        def progress(done: int) -> None:
            on_progress(done, rows.num_rows)

        if known == "decided":
            history = History(rows, material.frauds, material.decided_at)
            return run_history(scorer, history, keep=kept, on_progress=progress)
        pins = LabelPins.of_batches(self.reader.frame("batches", PIN_COLUMNS))
        folders = self.reader.place("transactions"), self.reader.place("alerts")
        named = (*self.entities, DIRECTION) if self.refunds else self.entities
        recorded = EntityLabels(self.book, *folders, named).derive(0, pins).table
        labels = at_positions(recorded, 0, rows.num_rows)
        return run_recorded(scorer, rows, labels, keep=kept, on_progress=progress)

    def _labels(self, rows: pa.Table, until: datetime | None) -> pl.DataFrame:
        """Return one row per transaction, its columns null without a label."""
        latest = pl.DataFrame(self.book.latest(as_of=until))
        ids = pl.DataFrame(rows.select(["transaction_id"]))
        wanted = latest.select("transaction_id", "is_fraud", "decided_at")
        return ids.join(wanted, on="transaction_id", how="left", maintain_order="left")


def _before(rows: pa.Table, until: datetime | None) -> pa.Table:
    """Return the rows up to the first one from `until` on: the stream as it stood then."""
    if until is None:
        return rows
    reached = np.flatnonzero(_times(rows) >= _micros(until))
    return rows.slice(0, int(reached[0])) if len(reached) else rows


def _taken_for_genuine(rows: pa.Table, order: TrainingOrder) -> Flags:
    times = _times(rows)
    if order.label_delay is None or not len(times):
        return np.zeros(len(times), np.bool_)
    until = int(times.max()) if order.until is None else _micros(order.until)
    return np.asarray(times < until - order.label_delay // MICRO)


def _settled(rows: pa.Table, spec: AgentSpec) -> Flags:
    times = _times(rows)
    first = int(times.min()) if len(times) else 0
    return np.asarray(times >= first + spec.profiles.horizons[-1] // MICRO)


def _held_out(
    features: Any, frauds: Flags, scores: Floats, names: tuple[str, ...], seed: int
) -> dict[str, Any] | None:
    """Return how a model of the earlier rows ranks the later ones; None where one side lacks a kind."""
    cut = int(len(frauds) * (1.0 - _HELD_OUT))
    earlier, later = frauds[:cut], frauds[cut:]
    if not (earlier.any() and later.any()) or earlier.all() or later.all():
        return None
    margins = train(features[:cut], earlier, names, seed=seed).margins(features[cut:])
    return {
        "rows": len(later),
        "frauds": int(later.sum()),
        "model": {"auc": roc_auc(later, margins), "ap": average_precision(later, margins)},
        "no_model": {"auc": roc_auc(later, scores[cut:]), "ap": average_precision(later, scores[cut:])},
    }


def _times(rows: pa.Table) -> Ints:
    return np.asarray(rows["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
