"""Drift: how far what comes now is distributed otherwise than what came at first.

Measured by the population stability index over ten bins that each hold a tenth of the reference,

    PSI = sum over bins of (a - e) * ln(a / e),

with a and e the shares of the recent and of the reference window in a bin (N. Siddiqi, Credit Risk
Scorecards, 2006, chapter 10; B. Yurdakul, Statistical Properties of Population Stability Index, 2018). Below
0.1 nothing has changed, above 0.25 much has. Each bin counts half an event more than it holds, so that empty
ones stay finite.

Numbers are counted by the leading bits of their 32-bit form: sign, exponent and three bits more, so each of
4,096 cells holds numbers within an eighth of one another, and those that are not known have cells of their
own. So a window takes the same memory whatever comes, needs no bounds in advance, and is the same in any
order and however it was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.arrays.compilation import Floats, Ints

CELLS = 4096
_DROPPED_BITS = np.uint32(20)
_SIGN = CELLS // 2
_BINS = 10
_EMPTY = 0.5
# From where on an index says that some has changed, and that much has; see above.
PSI_SLIGHT, PSI_MUCH = 0.1, 0.25

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DriftSizes:
    """How many events make which window.

    Attributes:
        skipped: at first, while profiles are blank, none count.
        reference: the next ones, from then on, stay the reference.
        recent: the newest ones are between a half and the whole of this.
    """

    skipped: int = 10_000
    reference: int = 20_000
    recent: int = 10_000


def cells_of(values: Values) -> Ints:
    """Return the cell of each number, int64 of the same shape, in ascending order of the numbers.

    What is no number has a cell of its own; negative zero counts as zero.
    """
    bits = (np.where(np.isnan(values), np.float32(np.nan), values) + np.float32(0.0)).view(np.uint32)
    leading = (bits >> _DROPPED_BITS).astype(np.int64)
    return np.where(leading >= _SIGN, CELLS - 1 - leading, leading + _SIGN)


def stability_index(reference: Ints, recent: Ints) -> Floats:
    """Return the PSI of each row, float64[n], of two arrays of counts, int64[n, cells]; 0 without events."""
    found = np.zeros(len(reference))
    for row, (then, now) in enumerate(zip(reference, recent, strict=True)):
        if then.any() and now.any():
            found[row] = _index_of(then, now)
    return found


def _index_of(then: Ints, now: Ints) -> float:
    """Bins are cut where the reference passes a tenth; one cell that holds more than that is one bin."""
    passed = np.cumsum(then)
    tenth = np.minimum((passed - then // 2 - then % 2) * _BINS // passed[-1], _BINS - 1)
    bins = np.maximum.accumulate(np.maximum(tenth, 0))
    expected, actual = (np.bincount(bins, each, _BINS) for each in (then, now))
    used = (expected + actual) > 0
    shares = [(each[used] + _EMPTY) / (each.sum() + _EMPTY * used.sum()) for each in (expected, actual)]
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


class Window:
    """Counts of some events, by column.

    Attributes:
        events: how many.
        counts: int64[columns, cells].
        hits: int64[rules], how many events each rule has alerted, of `seen`.
        seen: events that rules have judged.
    """

    def __init__(self, columns: int, rules: int) -> None:
        self.events = self.seen = 0
        self.counts = np.zeros((columns, CELLS), np.int64)
        self.hits = np.zeros(rules, np.int64)

    def add(self, values: Values, hits: Ints, seen: int) -> None:
        """Take in events, float32[n, columns], and what rules have made of `seen` events."""
        columns = len(self.counts)
        places = cells_of(values) + np.arange(columns) * CELLS
        np.add.at(self.counts.reshape(-1), places.reshape(-1), 1)
        self.events += len(values)
        self.hits += hits
        self.seen += seen


class Drift:
    """Compares a stream with its own past.

    Args:
        names: of the columns.
        rules: names of the rules.
        sizes: of the windows.
    """

    def __init__(self, names: Sequence[str], rules: Sequence[str], sizes: DriftSizes = DriftSizes()) -> None:
        self.names, self.rules, self._sizes = tuple(names), tuple(rules), sizes
        self.skipped = 0
        self.reference, self._older, self._newer = (self._window() for _ in range(3))

    def add(self, values: Values, hits: Ints, seen: int) -> None:
        """Take in a sample of a batch.

        Args:
            values: float32[n, columns], of the sampled events.
            hits: int64[rules], how many alerts of the whole batch each rule has hit.
            seen: events of the whole batch.
        """
        if self.skipped < self._sizes.skipped:
            self.skipped += len(values)
        elif self.reference.events < self._sizes.reference:
            self.reference.add(values, hits, seen)
        else:
            self._add_recent(values, hits, seen)

    @property
    def windows(self) -> dict[str, Window]:
        """All that is counted in, by name; the recent events are in two."""
        return {"reference": self.reference, "older": self._older, "newer": self._newer}

    @property
    def recent(self) -> Window:
        """The newest events."""
        both = self._window()
        for each in (self._older, self._newer):
            both.counts += each.counts
            both.hits += each.hits
            both.events, both.seen = both.events + each.events, both.seen + each.seen
        return both

    @property
    def is_known(self) -> bool:
        """Whether there is enough of both windows."""
        whole = self.reference.events >= self._sizes.reference
        return whole and self._older.events + self._newer.events >= self._sizes.recent // 2

    def _add_recent(self, values: Values, hits: Ints, seen: int) -> None:
        self._newer.add(values, hits, seen)
        if self._newer.events >= self._sizes.recent // 2:
            self._older, self._newer = self._newer, self._window()

    def _window(self) -> Window:
        return Window(len(self.names), len(self.rules))
