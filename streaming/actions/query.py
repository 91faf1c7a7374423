"""Answers checked queries: an embedded engine over Delta snapshots, cut off from everything else."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from agent.planning.actions import ActionResult, Scalar
from agent.planning.sql_guard import CheckedQuery
from schemas.errors import ConfigurationError, MachineError, RetryableError
from schemas.policy import QueryLimits
from streaming.delta.whole_tables import dataset_of
from streaming.store.place import Place

_SHUT_IN: Mapping[str, str] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "threads": "1",  # sums of floats depend on how many add them up
}
_NEXT_INTERRUPT_SECONDS = 0.05
# The last ones on the way to Python, which has no such interval, and of texts that are none.
_UNANSWERABLE = (duckdb.Error, OverflowError, RuntimeError, UnicodeError)


class QueryEngine:
    """Answers queries over the curated views of one lake.

    Args:
        places: name of a view → where its table lies.
        schemas: name of a view → schema of its table, for one that does not exist yet.
    """

    def __init__(self, places: Mapping[str, Place], schemas: Mapping[str, pa.Schema]) -> None:
        self._places, self._schemas = places, schemas

    def answer(
        self, query: CheckedQuery, values: tuple[str, ...], limits: QueryLimits, seconds: float
    ) -> ActionResult:
        """Answer a query from the newest snapshot of each table.

        Raises:
            RetryableError: it took longer than `seconds`.
            MachineError: it needs more memory than its limit.
            ConfigurationError: the engine cannot answer it, for example for a value of another type.
        """
        with self._connection(query, limits) as connection, _ended_after(seconds, connection):
            try:
                found = connection.execute(query.sql, list(values))
                names = [column[0] for column in found.description or ()]
                rows = found.fetchmany(limits.rows + 1)
            except duckdb.InterruptException:
                raise RetryableError(f"the query took longer than {seconds:.3g} s") from None
            except duckdb.OutOfMemoryException:
                raise MachineError(f"the query needs more than {limits.megabytes} MB") from None
            except _UNANSWERABLE as fault:
                raise ConfigurationError(f"the query cannot be answered: {type(fault).__name__}") from None
        listed = tuple(_row(names, row) for row in rows[: limits.rows])
        facts = {"row_count": len(listed), "more_rows": len(rows) > limits.rows}
        return ActionResult(facts, listed, query.reveals, without=query.without)

    @contextmanager
    def _connection(self, query: CheckedQuery, limits: QueryLimits) -> Iterator[duckdb.DuckDBPyConnection]:
        shut_in: dict[str, Any] = {**_SHUT_IN, "memory_limit": f"{limits.megabytes}MB"}
        with duckdb.connect(":memory:", config=shut_in) as connection:
            for name, view in query.views.items():
                # A name that no query can guess: what the view leaves out stays out of reach.
                stored = f"stored_{secrets.token_hex(16)}"
                connection.register(stored, dataset_of(self._places[name], self._schemas[name]))
                connection.execute(f'CREATE VIEW "{name}" AS {view.sql(stored)}')
            connection.execute("SET lock_configuration = true")
            yield connection


@contextmanager
def _ended_after(seconds: float, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """An interrupt that comes before the query has begun is lost, so they go on until it has ended."""
    ended = threading.Event()

    def interrupt() -> None:
        wait = max(seconds, 0.0)
        while not ended.wait(wait):
            connection.interrupt()
            wait = _NEXT_INTERRUPT_SECONDS

    # No worker: it is a timer, which ends with the block, and the query's own end shows what came of it.
    thread = threading.Thread(target=interrupt, name="query-limit", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # an interrupt after the connection's end would meet whatever comes next


def _row(names: list[str], values: tuple[Any, ...]) -> dict[str, Scalar]:
    return {name: plain(value) for name, value in zip(names, values, strict=True)}


def plain(value: Any) -> Scalar:
    """Return a value as JSON has it: times in ISO 8601, numbers that are none as null."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
