"""What becomes of labels that are handed in: which of them can be stored, and how many there are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa

from schemas.label import GIVEN, LABEL_REJECTS

MAX_AHEAD = timedelta(minutes=5)
ROW = "row"
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
MOMENT = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Recorded:
    """What became of the labels handed in; each is counted once.

    Attributes:
        stored: labels that are new.
        repeated: labels that say what is on record already.
        rejects: the others, of schema `LABEL_REJECTS`.
    """

    stored: int
    repeated: int
    rejects: pa.Table

    @property
    def rejected(self) -> int:
        """Number of rejects."""
        return int(self.rejects.num_rows)

    @property
    def read(self) -> int:
        """Number of labels handed in."""
        return self.stored + self.repeated + self.rejected

    def with_rejects(self, more: pa.Table) -> Recorded:
        """Return the same with more rejects, all in order of their position."""
        return replace(self, rejects=pa.concat_tables([self.rejects, more]).sort_by("source_position"))


@dataclass(frozen=True)
class LabelStatus:
    """Counts over the labels table; `transactions`, `frauds` and `fraud_share` are by the latest label.

    Times are those of the newest label and of the newest recording, None without labels.
    """

    labels: int = 0
    transactions: int = 0
    frauds: int = 0
    fraud_share: float | None = None
    newest_decided_at: datetime | None = None
    newest_recorded_at: datetime | None = None

    def facts(self) -> dict[str, object]:
        """Return the counts by name, times in ISO 8601."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }


def sound_labels(labels: pa.Table, now: datetime) -> tuple[pa.Table, pa.Table]:
    """Part labels that can be stored from those that cannot.

    Args:
        labels: a table of schema `GIVEN`.
        now: labels decided more than five minutes later are refused: nothing could overrule them.

    Returns:
        Sound labels of schema `GIVEN` and rejects of schema `LABEL_REJECTS`, both in the order given.
    """
    problem = (
        pl.when(pl.col("transaction_id").fill_null("") == "").then(pl.lit("no transaction id"))
        .when(pl.col("is_fraud").is_null()).then(pl.lit("no verdict"))
        .when(pl.col("decided_by").fill_null("") == "").then(pl.lit("nobody decided it"))
        .when(pl.col("decided_at") > pl.lit(now + MAX_AHEAD, MOMENT))
        .then(pl.format("decided at {}, which is still to come", pl.col("decided_at").cast(pl.String)))
        .when(pl.col("decided_at") < pl.lit(BEGINNING, MOMENT)).then(pl.lit("decided before the year 1"))
    )  # fmt: skip
    problems = numbered(labels).select("source_position", problem.alias("reason"))
    bad = problems["reason"].is_not_null()
    if not bad.any():
        return labels, LABEL_REJECTS.empty_table()
    return labels.filter((~bad).to_arrow()), rejects_table(problems.filter(bad))


def rejects_table(rejects: pl.DataFrame) -> pa.Table:
    """Return a frame of positions and reasons as a table of schema `LABEL_REJECTS`."""
    return rejects.select(LABEL_REJECTS.names).to_arrow().cast(LABEL_REJECTS)


def numbered(labels: pa.Table) -> pl.DataFrame:
    """Return labels of schema `GIVEN` as a frame, with their place among them in column `ROW`."""
    return pl.DataFrame(labels.select(GIVEN.names).cast(GIVEN)).with_row_index(ROW)
