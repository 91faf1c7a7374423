"""`flagstream bench windows`: the handbook's 14 features, reproduced row for row by streaming.

The handbook (Le Borgne et al., 2022, section 3.3) computes them with pandas over the whole history of each
customer and terminal; here the live scorer meets the rows one slice after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from agent import SPECS
from benchmarks.baselines import load_rows
from benchmarks.harness import report, say
from schemas.detection import ProfileSettings
from schemas.spec import AgentSpec, load_spec
from streaming.arrays.compilation import Floats
from streaming.detection.scoring import Scorer
from streaming.learning.labelled_run import History, run_history

# Of single precision, in which features are kept.
TOLERANCE = 1e-6
# Differences of amounts below a cent count relative to a cent: the file holds -7e-15 where it means 0.
_CENT = 0.01
_SPANS = {1: "1_day", 7: "7_days", 30: "30_days"}
_DELAY_US = 7 * 86_400_000_000
_NIGHT_HOURS, _SATURDAY = 7.0, 5.0
_WARM_UP_ROWS = 1_000
_ENTITIES = {"customer": "CUSTOMER_ID", "terminal": "TERMINAL_ID"}
_TIME = "TX_DATETIME"
# Which of a customer's payments of the same second came first shows only in how often each was counted.
_PLACE_IN_TIE = "CUSTOMER_ID_NB_TX_1DAY_WINDOW"
_OURS = {
    "CUSTOMER_ID_NB_TX": "window_count.customer",
    "CUSTOMER_ID_AVG_AMOUNT": "window_mean_amount.customer",
    "TERMINAL_ID_NB_TX": "delayed_count.terminal",
    "TERMINAL_ID_RISK": "fraud_share.terminal",
}


@dataclass(frozen=True)
class Streamed:
    """The features of all rows by the handbook's names, in the order of the rows, and what they took."""

    features: Mapping[str, Floats]
    seconds: float


def measure(transactions: Path, features: Path, *, as_json: bool) -> bool:
    """Compare all features of all rows and print the result; returns whether they agree within 1e-6.

    Payments of one customer within the same second have no order of their own, and the file counted some
    pairs the other way round than transaction ids have it. Where rows differ, the stream is run again with
    such payments in the file's order, and both results are printed.

    Args:
        transactions: folder of the handbook's transactions, in Parquet.
        features: folder of its 14 features.
        as_json: print JSON instead of lines.
    """
    say("reading")
    rows = load_rows(transactions, features)
    _stream(rows.head(_WARM_UP_ROWS), windows=True)
    say("streaming with and without windows")
    streamed, without = _stream(rows, windows=True), _stream(rows, windows=False)
    by_id = differences(streamed.features, rows)
    differing = int((np.column_stack(list(by_id.values())).max(axis=1) > TOLERANCE).sum())
    final = by_id
    if differing:
        say("streaming again, payments of the same second in the file's order")
        ordered = rows.sort(_TIME, _PLACE_IN_TIE, "TRANSACTION_ID")
        final = differences(_stream(ordered, windows=True).features, ordered)
    largest = {name: float(each.max()) for name, each in final.items()}
    agree = max(largest.values()) <= TOLERANCE
    counted = {"rows_compared": rows.height, "rows_tied": tied_rows(rows), "rows_differing_by_id": differing}
    found = {f"difference.{name}": each for name, each in largest.items()}
    speeds = {
        "events_per_s": round(rows.height / streamed.seconds),
        "events_per_s_without_windows": round(rows.height / without.seconds),
    }
    report({**counted, **found, **speeds, "agree": agree}, as_json=as_json)
    return agree


def differences(features: Mapping[str, Floats], rows: pl.DataFrame) -> dict[str, Floats]:
    """Return the relative difference of each feature to the column of its name, float64[n] each."""
    found = {}
    for name, ours in features.items():
        theirs = rows[name].cast(pl.Float64).to_numpy()
        found[name] = np.abs(ours - theirs) / np.maximum(np.abs(theirs), _CENT)
    return found


def tied_rows(rows: pl.DataFrame) -> int:
    """Count the rows whose customer paid more than once within that second."""
    return int(rows.select(pl.struct(_ENTITIES["customer"], _TIME).is_duplicated().sum()).item())


def _stream(rows: pl.DataFrame, *, windows: bool) -> Streamed:
    spec = _spec(windows=windows)
    scorer = Scorer(spec.anew(), tuple(_ENTITIES))
    began = time.perf_counter()
    run = run_history(scorer, _history(rows), keep=np.full(rows.height, windows))
    seconds = time.perf_counter() - began
    columns = dict(zip(scorer.feature_names, run.features.T.astype(np.float64), strict=True))
    return Streamed(_by_the_book(columns.__getitem__) if windows else {}, seconds)


def _spec(*, windows: bool) -> AgentSpec:
    spec = load_spec(SPECS / "handbook.yaml")
    chosen = {"customer": {}, "terminal": {"delay": "7d"}} if windows else {}
    return spec.model_copy(update={"profiles": ProfileSettings.model_validate({"windows": chosen})})


def _history(rows: pl.DataFrame) -> History:
    columns = {name: rows[column].cast(pl.String).to_arrow() for name, column in _ENTITIES.items()}
    times = rows[_TIME].cast(pl.Datetime("us"))
    transactions = {
        "sequence": pa.array(np.arange(rows.height)),
        "event_time": times.dt.replace_time_zone("UTC").to_arrow(),
        "amount": rows["TX_AMOUNT"].to_arrow(),
        "currency": pa.repeat("EUR", rows.height),
        **{name: column.cast(pa.string()) for name, column in columns.items()},
    }
    frauds = rows["TX_FRAUD"].cast(pl.Boolean).to_numpy()
    return History(pa.table(transactions), frauds, times.cast(pl.Int64).to_numpy() + _DELAY_US)


def _by_the_book(column: Callable[[str], Floats]) -> dict[str, Floats]:
    named = {
        "TX_DURING_WEEKEND": (column("weekday") >= _SATURDAY).astype(float),
        "TX_DURING_NIGHT": (column("hour") < _NIGHT_HOURS).astype(float),
    }
    return named | {
        f"{theirs}_{days}DAY_WINDOW": column(f"{ours}.{span}")
        for theirs, ours in _OURS.items()
        for days, span in _SPANS.items()
    }
