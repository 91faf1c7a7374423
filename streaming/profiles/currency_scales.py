"""What is usual in each currency, so that amounts of several can be compared without rates.

An amount in units of its currency's scale is comparable with any other: 4,500 where 4,500 is usual is one
unit, and 4,000 where 45 is usual are 89. The scale is a robust mean of the logarithms so far: the median of
the first sixteen amounts, and from there on a running mean that one amount moves as if it lay within a factor
of a hundred (winsorized, as in Huber, Robust Statistics, 1981, section 1.7). It moves on with each row, in
`sequence` order, so nothing depends on how a stream was cut into batches. The first amount of all in a
currency is its own scale, so it is as usual as can be.

At most 256 currencies have a scale of their own, those of refunds apart; what comes after them shares one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.arrow_arrays import Saved, matrix_column, matrix_of
from streaming.arrays.compilation import Flags, Floats, Ints, compiled
from streaming.profiles.directions import are_refunds, of_refunds

MOST_CURRENCIES = 256
_FIRST = 16
_MOST_ROWS = 65_536.0
_REACH = math.log(100.0)
MOST_AMOUNT = 1e300
_THE_REST = "*"


class ScaleState(NamedTuple):
    """The scales so far.

    Attributes:
        codes: what each scale belongs to, in the order in which they came.
        rows: float64[m], amounts behind each scale, up to 65,536.
        means: float64[m], logarithm of each scale.
        firsts: float64[m, 16], logarithms of its first amounts.
    """

    codes: tuple[str, ...]
    rows: Floats
    means: Floats
    firsts: Floats


class InUnits(NamedTuple):
    """Amounts in units that can be compared.

    Attributes:
        amounts: float64[n].
        log_amounts: float64[n]; NaN for amounts that are not above 0.
        units: float64[n], what one unit is in the row's currency.
        estimated: bool[n], which units follow from no rate; None where none do.
    """

    amounts: Floats
    log_amounts: Floats
    units: Floats
    estimated: Flags | None = None


class CurrencyScales:
    """The scales of a stream; see the module.

    Args:
        refunds: those among the transactions have scales of their own.
    """

    def __init__(self, *, refunds: bool = False) -> None:
        self._refunds = refunds
        self._most = MOST_CURRENCIES * (1 + refunds)
        self.state = blank_scales(())

    def advance(self, transactions: pa.Table, amounts: Floats, logs: Floats) -> tuple[InUnits, ScaleState]:
        """Return amounts in units, and the next state, leaving the current one as it is.

        Args:
            transactions: rows in `sequence` order with currency, and direction where refunds are known.
            amounts, logs: float64[n], of the rows in their own currencies.
        """
        return self.measure(self.named(transactions, currency_names(transactions)), amounts, logs)

    def measure(self, names: pa.ChunkedArray, amounts: Floats, logs: Floats) -> tuple[InUnits, ScaleState]:
        """Return amounts in units of scales by name, and the next state; see advance."""
        codes, slots = self._slots(names)
        state = _grown(self.state, codes)
        scaled, relative, units = (np.empty(len(logs)) for _ in range(3))
        _fold(slots, amounts, logs, state.rows, state.means, state.firsts, scaled, relative, units)
        return InUnits(scaled, relative, units), state

    def snapshot(self) -> Saved:
        """Return the state as it is saved in checkpoints."""
        columns = {
            "code": pa.array(self.state.codes, pa.string()),
            "rows": pa.array(self.state.rows),
            "mean": pa.array(self.state.means),
            "firsts": matrix_column(self.state.firsts),
        }
        return {"scales": pa.RecordBatch.from_pydict(columns)}

    def restore(self, saved: Saved) -> None:
        """Continue from what snapshot() returned."""
        batch = saved["scales"]
        rows, means = (np.array(batch[name].to_numpy()) for name in ("rows", "mean"))
        firsts = np.array(matrix_of(batch["firsts"])).reshape(len(rows), _FIRST)
        self.state = ScaleState(tuple(batch["code"].to_pylist()), rows, means, firsts)

    def named(self, transactions: pa.Table, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return names of scales, those of refunds apart where they are known."""
        if not self._refunds:
            return names
        refunds = pc.binary_join_element_wise(names, of_refunds(""), "")
        return pc.if_else(pa.array(are_refunds(transactions)), refunds, names)

    def _slots(self, names: pa.ChunkedArray) -> tuple[tuple[str, ...], Ints]:
        """Return all codes that have a scale after the rows, and each row's place among them."""
        encoded = names.combine_chunks().dictionary_encode()
        places = {code: place for place, code in enumerate(self.state.codes)}
        found = []
        for code in encoded.dictionary.to_pylist():
            known = code in places or len(places) < self._most - 1
            found.append(places.setdefault(code if known else _THE_REST, len(places)))
        return tuple(places), np.array(found, np.int64)[encoded.indices.to_numpy()]


def currency_names(transactions: pa.Table) -> pa.ChunkedArray:
    """Return what the scale of each row is called."""
    return pc.fill_null(transactions["currency"].cast(pa.string()), "")


def blank_scales(codes: tuple[str, ...]) -> ScaleState:
    """Return scales without an amount behind them."""
    count = len(codes)
    return ScaleState(codes, np.zeros(count), np.zeros(count), np.zeros((count, _FIRST)))


def _grown(state: ScaleState, codes: tuple[str, ...]) -> ScaleState:
    larger, held = blank_scales(codes), len(state.codes)
    for new, old in zip(larger[1:], state[1:], strict=True):
        new[:held] = old
    return larger


@compiled
def _fold(
    slots: Ints,
    amounts: Floats,
    logs: Floats,
    rows: Floats,
    means: Floats,
    firsts: Floats,
    scaled: Floats,
    relative: Floats,
    units: Floats,
) -> None:
    for row in range(len(slots)):
        slot, log = slots[row], logs[row]
        count = rows[slot]
        if count == 0.0:
            means[slot] = 0.0 if np.isnan(log) else log
        units[row] = math.exp(means[slot])
        relative[row] = log - means[slot]
        scaled[row] = min(amounts[row] / units[row], MOST_AMOUNT)
        if np.isnan(log):
            continue
        rows[slot] = min(count + 1.0, _MOST_ROWS)
        if count < _FIRST:
            firsts[slot, int(count)] = log
            means[slot] = np.median(firsts[slot, : int(count) + 1])
        else:
            means[slot] += min(max(log - means[slot], -_REACH), _REACH) / rows[slot]
