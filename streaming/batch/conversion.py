"""Converts the amounts of events by exchange rates, as they stood at the events' own times."""

from __future__ import annotations

import logging

import polars as pl

from schemas.references import RATE, ExchangeRates
from streaming.output.log import log

_MOST_NAMED = 256
# Beyond any currency there has been; what lies outside is a slip, and amounts stay within what floats hold.
_LEAST_RATE, _LARGEST_RATE = 1e-30, 1e30


def converted(events: pl.DataFrame, found: pl.Series, rates: ExchangeRates) -> pl.Series:
    """Return the amounts in the reference currency; null where there is no rate that can be used.

    Args:
        events: with amount and currency.
        found: what the table's column of rates holds for each event.
    """
    held = pl.col(RATE)
    usable = pl.when(held.is_between(_LEAST_RATE, _LARGEST_RATE)).then(1.0 / held if rates.inverse else held)
    amount = pl.col("amount") * pl.when(pl.col("currency") == rates.to).then(1.0).otherwise(usable)
    rows = events.with_columns(found.alias(RATE))
    return rows.select(pl.when(amount.is_finite()).then(amount)).to_series()


class MissingRates:
    """Logs each currency once that an amount could not be converted from, up to 256 of them.

    Args:
        to: the currency that amounts are converted to.
    """

    def __init__(self, to: str) -> None:
        self._to, self._named = to, set[str]()

    def note(self, currencies: pl.Series, amounts: pl.Series) -> None:
        """Log the currencies of converted amounts that are null, but for those that have been logged."""
        missing = currencies.filter(amounts.is_null()).unique().drop_nulls().sort()
        for currency in missing.to_list():
            if currency not in self._named and len(self._named) < _MOST_NAMED:
                self._named.add(currency)
                log(
                    "rate_missing",
                    f"no rate from {currency} to {self._to} at the time of a payment: such payments are "
                    "measured by what is usual in their own currency",
                    level=logging.WARNING,
                    currency=currency,
                )
