"""Says when one id holds much of what comes in: mostly a placeholder that stands for nobody in particular.

Every payment of `UNKNOWN` would make one enormous customer of many. Per kind of entities the most frequent
ids are counted, in bounded memory: of what is left out at most one part in `_COUNTED` is missed (Misra and
Gries, "Finding repeated elements", 1982; summaries add up as Agarwal et al., "Mergeable summaries", say).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

_COUNTED = 128
_FEWEST = 1_000
# The counts of older payments are halved once so many have come, so that a change shows.
_REMEMBERED = 200_000


class EntityShares:
    """Counts the newest payments by id.

    Args:
        kinds: columns of the entities.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self._counted = {kind: _Counted() for kind in kinds}
        self._rows = 0.0

    def take(self, rows: pa.Table) -> None:
        """Count the payments of a batch."""
        self._rows += rows.num_rows
        for kind, counted in self._counted.items():
            counted.add(rows[kind])
        if self._rows > _REMEMBERED:
            self._rows /= 2
            for counted in self._counted.values():
                counted.halve()

    def above(self, share: float) -> tuple[str, ...]:
        """Return the kinds of which one id has more than a share of the newest payments."""
        if self._rows < _FEWEST or share >= 1.0:
            return ()
        return tuple(kind for kind, each in self._counted.items() if each.most > share * self._rows)


class _Counted:
    """The most frequent ids of one kind, and how often each came."""

    def __init__(self) -> None:
        self._counts = pl.DataFrame(schema={"id": pl.String, "count": pl.Float64})

    @property
    def most(self) -> float:
        """How often the most frequent one came."""
        return float(self._counts["count"].max() or 0.0)  # type: ignore[arg-type]  # a column of numbers

    def add(self, ids: pa.ChunkedArray) -> None:
        """Count ids; null is nobody."""
        new = pl.DataFrame({"id": pl.Series(pl.from_arrow(ids)).cast(pl.String)}).drop_nulls()
        counted = new.group_by("id").agg(pl.len().cast(pl.Float64).alias("count"))
        both = pl.concat([self._counts, counted]).group_by("id").agg(pl.col("count").sum())
        self._counts = _trimmed(both)

    def halve(self) -> None:
        """Let older ids count half."""
        self._counts = self._counts.with_columns(pl.col("count") / 2)


def _trimmed(counts: pl.DataFrame) -> pl.DataFrame:
    if counts.height <= _COUNTED:
        return counts
    ranked = counts.sort("count", "id", descending=[True, False])
    rest = ranked["count"][_COUNTED]
    kept = ranked.head(_COUNTED).with_columns(pl.col("count") - rest)
    return kept.filter(pl.col("count") > 0.0)
