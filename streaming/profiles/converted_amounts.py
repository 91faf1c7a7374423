"""Amounts in one reference currency, by the rates that were joined when they were stored.

An amount without a rate is brought there by what is usual: it counts as many times what is usual in the
reference currency as it is times what is usual in its own (streaming.profiles.currency_scales). Until the
first amount with a rate one unit of the reference currency stands for what is usual in it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.event_columns import REFERENCE_AMOUNT
from streaming.arrays.compilation import Flags, Floats, read_only
from streaming.profiles.currency_scales import (
    MOST_AMOUNT,
    CurrencyScales,
    InUnits,
    ScaleState,
    blank_scales,
    currency_names,
)
from streaming.profiles.directions import are_refunds, of_refunds
from streaming.profiles.profile_kernels import log_amounts

# Longer than a currency may be, so that no sender's currency is taken for it.
_CONVERTED = "amounts converted to the reference currency"


class ConvertedAmounts(CurrencyScales):
    """The scales of a stream whose amounts have been converted; see the module.

    Args:
        to: the reference currency; what is paid in it needs no rate, also where it was stored without one.
        refunds: those among the transactions have scales of their own.
    """

    def __init__(self, to: str, *, refunds: bool = False) -> None:
        super().__init__(refunds=refunds)
        self._to = to
        self._converted = (_CONVERTED, of_refunds(_CONVERTED))[: 1 + refunds]
        self.state = blank_scales(self._converted)

    def advance(self, transactions: pa.Table, amounts: Floats, logs: Floats) -> tuple[InUnits, ScaleState]:
        """Return amounts in the reference currency, and the next state; see CurrencyScales.

        Args:
            transactions: with the converted amount, too; null where there was no rate.
            amounts, logs: float64[n], of the rows in their own currencies.
        """
        rows = len(amounts)
        given = pc.fill_null(transactions[REFERENCE_AMOUNT].cast(pa.float64()), np.nan).to_numpy()
        currencies = currency_names(transactions)
        plain = np.isnan(given) & pc.equal(currencies, self._to).to_numpy(zero_copy_only=False)
        given = np.where(plain, amounts, given)
        known = ~np.isnan(given)
        values = np.where(known, given, amounts)
        names = pc.if_else(pa.array(known), _CONVERTED, currencies)
        value_logs = np.where(known, log_amounts(read_only(given)), logs)
        found, state = self._measured(self.named(transactions, names), values, value_logs)
        usual = self._usual(found.units, known & (values > 0.0), self._directions(transactions))
        with np.errstate(over="ignore"):
            own = np.where(values > 0.0, amounts, 1.0) / np.where(values > 0.0, values, 1.0)
            brought = np.minimum(found.amounts[:rows] * usual, MOST_AMOUNT)
            units = np.where(known, own, found.units[:rows] / usual)
        units = np.clip(units, 1.0 / MOST_AMOUNT, MOST_AMOUNT)
        converted = np.where(known, given, brought)
        return InUnits(converted, log_amounts(read_only(converted)), units, ~known), state

    def _measured(self, names: pa.ChunkedArray, values: Floats, logs: Floats) -> tuple[InUnits, ScaleState]:
        """Measure the values, and behind them a probe of each reference scale, which teaches nothing."""
        probes = np.zeros(len(self._converted))
        probed = pa.chunked_array([*names.chunks, pa.array(self._converted, pa.string())], pa.string())
        measured = read_only(np.append(values, probes))
        return self.measure(probed, measured, np.append(logs, np.full(len(probes), np.nan)))

    def _directions(self, transactions: pa.Table) -> list[Flags]:
        """Return which rows each reference scale is for, bool[n]."""
        if not self._refunds:
            return [np.ones(transactions.num_rows, np.bool_)]
        refunds = are_refunds(transactions)
        return [~refunds, refunds]

    def _usual(self, units: Floats, teaching: Flags, directions: list[Flags]) -> Floats:
        """Return what is usual in the reference currency as each row finds it, float64[n].

        Args:
            units: float64[n + scales], scales before each row, and at the end those of the probes.
            teaching: bool[n], rows by which a reference scale moves on.
        """
        rows, usual = len(teaching), np.ones(len(teaching))
        for slot, of_direction in enumerate(directions):
            taught = teaching & of_direction
            # Between two rows that move it on, the scale is what the later one finds.
            scales, met = np.append(units[:rows][taught], units[rows + slot]), np.cumsum(taught)
            begun = of_direction & ((met > 0) | (self.state.rows[slot] > 0.0))
            usual[begun] = scales[met[begun]]
        return usual
