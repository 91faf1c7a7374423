"""Joins reference tables and exchange rates to decoded events, as they stood at the events' own times.

What is joined becomes columns of `transactions` when the batch is stored: recovery and replay read it there
and never join again. An event whose key is in no table gets null.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, FlagstreamError
from schemas.event_columns import REFERENCE_AMOUNT
from schemas.references import RATE, ExchangeRates, ReferenceTable
from streaming.batch.conversion import MissingRates, converted
from streaming.batch.reference_files import MOMENT, SINCE, LoadedTable, as_text, load_table, mark_of, place_of
from streaming.service.health import Condition, Health
from streaming.service.last_read import LastRead

_CHECK_SECONDS, _CHECK_STORE_SECONDS = 1.0, 30.0
_RATES = "data_sources.rates"


class References:
    """The reference tables of a contract, and exchange rates, read anew between batches where they changed.

    Args:
        contract: names the tables.
        health: hears of a table that cannot be read any more; what was read of it before stays in force.
        clock: seconds that only go on; tables are looked for changes at most once a second, those in a
            store every 30 s.
        rates: what the spec converts amounts by.
        last_read: what the run has read of them before.

    Raises:
        ConfigurationError: of a table that was not read before, it is missing, is none, or lacks a column.
    """

    def __init__(
        self,
        contract: EventContract,
        health: Health | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        rates: ExchangeRates | None = None,
        last_read: LastRead | None = None,
    ) -> None:
        self._last_read = last_read or LastRead()
        self._contract, self._health, self._clock = contract, health or Health(), clock
        self._checked_at, self._rates = clock(), rates
        self._missing = MissingRates("" if rates is None else rates.to)
        self._wanted = {f"references.{name}": each for name, each in contract.references.items()}
        self._wanted |= {} if rates is None else {_RATES: rates.table}
        self._faults = dict[str, str]()
        self._in_store = {key for key, each in self._wanted.items() if not place_of(each.path).is_local}
        self._store_asked_at = self._checked_at
        self._tables = {key: self._begun(key) for key in self._wanted}
        self._say()

    def renew(self) -> None:
        """Read what has changed since; a fault is a condition, and what was read before stays in force."""
        if not self._tables or self._clock() < self._checked_at + _CHECK_SECONDS:
            return
        self._checked_at = self._clock()
        for key in self._due():
            table = self._wanted[key]
            self._faults.pop(key, None)
            try:
                if mark_of(Path(table.path)) != self._tables[key].mark:
                    self._tables[key] = load_table(key, table)
                    self._last_read.note(_named(key, table), self._tables[key])
            except FlagstreamError as fault:
                self._faults[key] = str(fault)
        self._say()

    def _due(self) -> list[str]:
        """Return what may have changed; to see that in a store is a request, and the next batch waits."""
        if self._checked_at < self._store_asked_at + _CHECK_STORE_SECONDS:
            return [key for key in self._wanted if key not in self._in_store]
        self._store_asked_at = self._checked_at
        return [*self._wanted]

    def _begun(self, key: str) -> LoadedTable:
        table = self._wanted[key]

        def broken(fault: ConfigurationError) -> None:
            self._faults[key] = str(fault)

        return self._last_read.or_before(_named(key, table), lambda: load_table(key, table), broken)

    def _say(self) -> None:
        if self._faults:
            said = f"{'; '.join(self._faults.values())}; what was read before stays in force"
            self._health.begins(Condition.REFERENCE_UNREADABLE, said)
        else:
            self._health.ends(Condition.REFERENCE_UNREADABLE)

    def pins(self) -> dict[str, Any]:
        """Return the version of each table, as a batch pins them; nothing without tables."""
        versions = {name: self._tables[f"references.{name}"].version for name in self._contract.references}
        rates = {} if self._rates is None else {"rates": self._tables[_RATES].version}
        return {**({"references": versions} if versions else {}), **rates}

    def join(self, events: pa.Table) -> pa.Table:
        """Return decoded events with the columns of reference tables and rates, in the same order.

        Args:
            events: as decode() returns them, with other columns after the contract's or without.
        """
        if not self._tables:
            return events
        for name, table in self._contract.references.items():
            found = self._found(events, f"references.{name}")
            for column in table.columns:
                kind = self._contract.reference_columns[column]
                events = events.append_column(pa.field(column, kind), found[column].to_arrow().cast(kind))
        if self._rates is not None:
            events = self._converted(events, self._rates)
        return events.select(_order(self._contract, events.column_names))

    def _found(self, events: pa.Table, key: str) -> pl.DataFrame:
        table = self._wanted[key]
        return _joined(pl.DataFrame(events.select(["event_time", *table.on])), table, self._tables[key])

    def _converted(self, events: pa.Table, rates: ExchangeRates) -> pa.Table:
        paid = pl.DataFrame(events.select(["amount", "currency"]))
        amounts = converted(paid, self._found(events, _RATES)[RATE], rates)
        self._missing.note(paid["currency"], amounts)
        return events.append_column(pa.field(REFERENCE_AMOUNT, pa.float64()), amounts.to_arrow())


def _named(key: str, table: ReferenceTable) -> tuple[str, str]:
    return key, table.model_dump_json()


def _order(contract: EventContract, present: list[str]) -> list[str]:
    known = [name for name in contract.arrow_schema().names if name in present]
    return [*known, *(name for name in present if name not in known)]


def _joined(events: pl.DataFrame, table: ReferenceTable, loaded: LoadedTable) -> pl.DataFrame:
    """Return the rows' columns in the events' order; a key that is null fits nothing."""
    keys = [as_text(events.schema, name) for name in table.on]
    asked = events.select(pl.col("event_time").cast(MOMENT), *keys).with_row_index("flagstream_row")
    if table.since is None:
        found = asked.join(loaded.rows, on=list(table.on), how="left", maintain_order="left")
        return found.select(list(table.columns))
    found = asked.sort("event_time", maintain_order=True).join_asof(
        loaded.rows,
        left_on="event_time",
        right_on=SINCE,
        by=list(table.on),
        strategy="backward",
        check_sortedness=False,
    )
    return found.sort("flagstream_row").select(list(table.columns))
