"""What scoring a batch gives: scores, the reasons behind them, and the state that committing it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.alert import Reason
from schemas.event_columns import DIRECTION, PAYMENT
from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.detection.alert_budget import StreamRate
from streaming.detection.calibration import TotalsHistogram
from streaming.detection.detectors import RISK, Evidence, evidence
from streaming.detection.entity_states import EntityStep
from streaming.detection.features import ALL_ROWS, Features, Rows, features_of
from streaming.detection.model import SupervisedModel
from streaming.detection.reasons import Payment, sentence
from streaming.detection.tails import Counts


@dataclass(frozen=True)
class AfterBatch:
    """The state of the stream as a whole once a batch is committed.

    Attributes:
        tails: how often amounts of a population lie how far out, by the population's name.
        histogram: of the evidence of all rows.
        pace: how fast rows come.
    """

    tails: Mapping[str, Counts]
    histogram: TotalsHistogram
    pace: StreamRate


@dataclass(frozen=True)
class ScoredBatch:
    """Scores of one batch, and the state that committing it leads to.

    Attributes:
        first_sequence: `sequence` of the first row.
        score: float64[n] in (0, 1); 0.99 means about 1 in 100 transactions score that high.
        threshold: float64[n], a row at or above it is flagged.
        log_odds: float64[n], ln(score / (1 - score)) = base + sum of contributions, within 1e-9.
        base: float64[n], log-odds of a transaction without any evidence.
        reason_names: `detector.entity` per column of contributions.
        evidence: float64[n, reasons], nats of each reason; a row's sum is what its score stands for.
        step: what the batch shows of its entities, and the state it leads to.
        after: what else committing it leads to.
    """

    first_sequence: int
    score: Floats
    threshold: Floats
    log_odds: Floats
    base: Floats
    reason_names: tuple[str, ...]
    evidence: Floats
    step: EntityStep
    after: AfterBatch
    _payment_columns: pa.Table
    _model: SupervisedModel | None

    @property
    def late(self) -> Flags:
        """See EntityStep."""
        return self.step.late

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.score)

    def reasons(self, row: int) -> list[Reason]:
        """Return the reasons of one row; for many rows reasons_of is faster."""
        return self.reasons_of(np.array([row], np.int64))[0]

    def reasons_of(self, rows: Ints) -> list[list[Reason]]:
        """Return each row's reasons, largest contribution first, zero ones left out.

        Args:
            rows: int64[m], positions within the batch.
        """
        numbers = {entity: evidence(view.seen, rows) for entity, view in self.step.views.items()}
        sentences = {
            name: texts for each in self.step.results for name, texts in each.sentences(rows).items()
        }
        payments, parts = self._payments(rows), self.contributions_of(rows).tolist()
        nats = self.evidence[rows].tolist()
        return [
            self._reasons(
                payments[place],
                parts[place],
                nats[place],
                {name: texts[place] for name, texts in sentences.items()},
                {entity: seen[place] for entity, seen in numbers.items()},
            )
            for place in range(len(rows))
        ]

    @property
    def contributions(self) -> Floats:
        """Contributions of all rows, float64[n, reasons]."""
        return self.contributions_of(np.arange(len(self)))

    def contributions_of(self, rows: Ints) -> Floats:
        """Return what each reason adds to the log-odds of `rows`, float64[m, reasons]; see `log_odds`."""
        parts = self.evidence[rows]
        if self._model is not None:
            parts = self._model.contributions(self.features()[rows], parts, self.reason_names)
        wholes, rise = parts.sum(axis=1), (self.log_odds - self.base)[rows]
        slopes: Floats = np.divide(rise, wholes, out=np.zeros(len(rows)), where=wholes != 0.0)
        return parts * slopes[:, None]

    def features(self, rows: Rows = ALL_ROWS) -> Features:
        """Return the features of rows as they stood when they were scored, float32[m, features]."""
        return features_of(list(self.step.views.values()), self.evidence, self.step.results, rows)

    def own_evidence(self) -> Floats:
        """Return the nats that each transaction shows by itself, whatever its entities are known for."""
        own = [not name.startswith(f"{RISK}.") for name in self.reason_names]
        return np.asarray(self.evidence[:, np.flatnonzero(own)].sum(axis=1))

    def _reasons(
        self,
        payment: Payment,
        parts: list[float],
        nats: list[float],
        sentences: dict[str, str],
        seen: dict[str, Evidence],
    ) -> list[Reason]:
        found = []
        for column in sorted(range(len(parts)), key=parts.__getitem__, reverse=True):
            if parts[column] != 0.0:
                name = self.reason_names[column]
                detector, entity = name.split(".", 1)
                text = sentences.get(name) or sentence(
                    detector, entity, payment, seen.get(entity), nats[column]
                )
                found.append(Reason(name, parts[column], text))
        return found

    def _payments(self, rows: Ints) -> list[Payment]:
        first = next(iter(self.step.views.values()), None)
        longest = 0.0 if first is None else float(first.seen.horizons[-1])
        chosen = self._payment_columns.take(pa.array(rows)).to_pylist()
        units, several = _units_of(self.step, rows), _several_of(self.step, rows)
        return [
            Payment(
                row["amount"] or 0.0,
                row["currency"] or "",
                longest,
                f"{row['event_time']:%A %H:%M} UTC",
                row.get(DIRECTION) or PAYMENT,
                unit,
                self.step.reference,
                estimated,
                mixed,
            )
            for row, (unit, estimated), mixed in zip(chosen, units, several, strict=True)
        ]


def _units_of(step: EntityStep, rows: Ints) -> list[tuple[float | None, bool]]:
    """Return what one unit of usual amounts is in the currencies of `rows`, and whether it is estimated."""
    if step.units is None:
        return [(None, False)] * len(rows)
    estimated = np.zeros(len(rows), np.bool_)
    if step.units.estimated is not None:
        estimated = step.units.estimated[rows]
    return list(zip(step.units.units[rows].tolist(), estimated.tolist(), strict=True))


def _several_of(step: EntityStep, rows: Ints) -> list[bool]:
    """Return which of `rows` are compared as they stand with amounts of other currencies, where known."""
    return [False] * len(rows) if step.several is None else step.several[rows].tolist()
