"""What an agent has cost so far, from its closed batches: tokens as booked, and the machine's busy time.

A batch's tokens, those of its late answers among them, were asked of the model and under the prompt that it
pins, at the prices then in force. Calls and tokens are shared out in whole numbers: where
they do not come out even, the first of those who share have one more, so that every sum is right.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.errors import ConfigurationError, nearest
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Floats, Ints
from streaming.batch.late_windows import MARKS, deferred
from streaming.delta.lake_reader import HasLake, LakeReader

Grouping = Literal["alert", "batch", "day", "model", "prompt"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

NONE_ASKED = "none"
_SUMMED = ("alerts", "llm_calls", "input_tokens", "output_tokens", "llm_usd", "busy_seconds", "compute_usd")
_COLUMNS = [
    "query_id",
    "batch_id",
    "closed_at",
    "stored",
    "alerts",
    "llm_calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "pins",
    "durations",
]
ALERT_COLUMNS = ["query_id", "batch_id", "alert_id", "outbox_seq", "classification_source"]
_COUNTS = ("llm_calls", "input_tokens", "output_tokens")
OF_CALLS = (*_COUNTS, "cost_usd")
WINDOW = ("first_outbox_seq", "next_outbox_seq")
LATE_COLUMNS = [*WINDOW, *OF_CALLS]
_SHARED_COUNTS = ("input_tokens", "output_tokens")
_BATCH = ["query_id", "batch_id"]
WAITING_COLUMNS = [*MARKS, *_BATCH, "outbox_seq"]
_PINS_KEPT = 64  # batches under the same pins follow each other


def booked(agent: HasLake, by: str, compute_price: float | None) -> dict[str, Any]:
    """Return what was spent: rows by alert, batch, day, model or prompt, totals, and models without a price.

    Args:
        compute_price: USD per hour of the machine; that of the spec where None.

    Raises:
        ConfigurationError: `by` is none of these.
    """
    if by not in GROUPINGS:
        raise ConfigurationError(nearest(by, GROUPINGS), where="--by")
    batches = closed_batches(agent, price_of(agent.spec, compute_price))
    rows = cost_by(by, batches, LakeReader.of(agent))
    return {"rows": rows.to_dicts(), "total": totals(batches), "unpriced": unpriced(batches, agent.spec)}


def price_of(spec: AgentSpec, given: float | None) -> float:
    """Return what an hour of the machine costs in USD: what is given, else what the spec says."""
    return spec.compute_price if given is None else given


def known_price(spec: AgentSpec, given: float | None) -> float | None:
    """Return what price_of does, None where nobody has said what the machine costs."""
    return price_of(spec, given) or given


def closed_batches(agent: HasLake, compute_price: float) -> pl.DataFrame:
    """Return the closed batches in order with what each took; empty before the first.

    Args:
        agent: whose lake it is.
        compute_price: USD per hour of the machine.

    Returns:
        Counts and tokens as in `batches`, with those of late answers; `llm_usd` as booked; `busy_seconds`
        from a batch's opening to its close, with the waiting for the model, and `compute_usd` for them;
        `day` in UTC, `model`, `prompt`.
    """
    reader = LakeReader.of(agent)
    frame = reader.frame("batches", _COLUMNS, repeated=["pins"])
    asked = [_asked(each) for each in frame["pins"]]
    busy = [sum(json.loads(each).values()) for each in frame["durations"]]
    frame = _with_late_answers(frame, reader)
    return (
        frame.with_columns(
            day=pl.Series([moment.date().isoformat() for moment in frame["closed_at"]], dtype=pl.String),
            model=pl.Series([model for model, _ in asked], dtype=pl.String),
            prompt=pl.Series([prompt for _, prompt in asked], dtype=pl.String),
            busy_seconds=pl.Series(busy, dtype=pl.Float64),
        )
        .with_columns(compute_usd=pl.col("busy_seconds") * compute_price / 3_600)
        .rename({"cost_usd": "llm_usd"})
        .sort("closed_at", "batch_id")
        .drop("pins", "durations")
    )


@lru_cache(_PINS_KEPT)
def _asked(pins: str) -> tuple[str, str]:
    """Return the model and the prompt of a batch."""
    known = json.loads(pins)
    return known["model"] or NONE_ASKED, known["prompt"]


def _with_late_answers(batches: pl.DataFrame, reader: LakeReader) -> pl.DataFrame:
    rounds = reader.frame("late", LATE_COLUMNS)
    return (
        with_late_answers(batches, rounds, reader.rows("alerts", WAITING_COLUMNS))
        if rounds.height
        else batches
    )


def with_late_answers(batches: pl.DataFrame, rounds: pl.DataFrame, alerts: pa.Table) -> pl.DataFrame:
    """Add what was asked after a batch to the batch whose alerts it was asked about.

    Args:
        batches: columns `query_id`, `batch_id` and `OF_CALLS`.
        rounds: of questions, columns `LATE_COLUMNS`.
        alerts: all within the rounds' windows, columns `WAITING_COLUMNS`.
    """
    waiting = pl.DataFrame(deferred(alerts).select([*_BATCH, "outbox_seq"])).sort("outbox_seq")
    starts, ends = (np.searchsorted(waiting["outbox_seq"], rounds[edge]) for edge in WINDOW)
    taken: dict[str, Ints | Floats] = {
        name: shares(starts, ends, rounds[name].to_numpy(), len(waiting)) for name in _COUNTS
    }
    taken["cost_usd"] = _even(starts, ends, rounds["cost_usd"].to_numpy(), len(waiting))
    shared = waiting.with_columns(pl.Series(name, each) for name, each in taken.items())
    late = shared.group_by(_BATCH).agg(pl.col(OF_CALLS).sum())
    added = batches.join(late, on=_BATCH, how="left", suffix="_late", maintain_order="left")
    return added.with_columns((pl.col(name) + pl.col(f"{name}_late").fill_null(0)) for name in OF_CALLS).drop(
        f"{name}_late" for name in OF_CALLS
    )


def shares(starts: Ints, ends: Ints, counts: Ints, many: int) -> Ints:
    """Share out what each round of questions took among the alerts of its window, in whole numbers.

    Args:
        starts: the first alert of each round's window, int64[rounds].
        ends: the one after its last, int64[rounds]; a window without alerts takes nothing.
        counts: what each round took, int64[rounds].
        many: alerts.

    Returns:
        What falls to each alert, int64[many].
    """
    each, over = np.divmod(counts, np.maximum(ends - starts, 1))
    steps = np.zeros(many + 1, dtype=np.int64)
    for first, last, share in ((starts, ends, each), (starts, np.minimum(starts + over, ends), 1)):
        np.add.at(steps, first, share)
        np.add.at(steps, last, np.negative(share))
    return np.cumsum(steps)[:-1]


def _even(starts: Ints, ends: Ints, amounts: Floats, many: int) -> Floats:
    """Share out what can be divided; see shares. float64[many]."""
    each = amounts / np.maximum(ends - starts, 1)
    steps = np.zeros(many + 1)
    np.add.at(steps, starts, each)
    np.add.at(steps, ends, -each)
    return np.maximum(np.cumsum(steps)[:-1], 0.0)  # sums that end leave last bits behind


def cost_by(grouping: Grouping, batches: pl.DataFrame, reader: LakeReader) -> pl.DataFrame:
    """Sum up what batches took, one row per alert, batch, day, model or prompt version, in order of time.

    An alert's part is an equal share of its batch's tokens, in whole ones, among the alerts that the model
    answered for, or among all where it answered for none. The machine's time is not shared out among alerts.
    """
    if grouping == "alert":
        return by_alert(batches, read_alerts(reader))
    keys = _BATCH if grouping == "batch" else [grouping]
    return batches.group_by(keys, maintain_order=True).agg(pl.col(_SUMMED).sum())


def read_alerts(reader: LakeReader) -> pl.DataFrame:
    """Return each alert's id, batch, place in publishing order, and who classified it in the end."""
    return newest_of(reader.frame("alerts", ALERT_COLUMNS))


def newest_of(revisions: pl.DataFrame) -> pl.DataFrame:
    """Return the newest revision of each alert, in publishing order."""
    return revisions.sort("outbox_seq").unique("alert_id", keep="last", maintain_order=True)


def by_alert(batches: pl.DataFrame, alerts: pl.DataFrame) -> pl.DataFrame:
    """Share out the tokens of `closed_batches` among `alerts`, see cost_by."""
    pays = paying()
    payers, place = pl.col("pays").sum().over(_BATCH), pl.col("pays").cum_sum().over(_BATCH)
    taken = batches.select(*_BATCH, *_SHARED_COUNTS, "llm_usd")
    return (
        alerts.sort("outbox_seq")
        .with_columns(pays=pays)
        .with_columns(payers=payers, place=place)
        .join(taken, on=_BATCH, how="inner", maintain_order="left")
        .select(
            "alert_id",
            *(pl.when("pays").then(_whole_share(pl.col(name))).otherwise(0) for name in _SHARED_COUNTS),
            pl.when("pays").then(pl.col("llm_usd") / pl.col("payers")).otherwise(0.0),
        )
    )


def paying() -> pl.Expr:
    """Say which alerts share what their batch took: those that the model answered for, or all without one."""
    by_model = pl.col("classification_source") == "llm"
    return by_model | ~by_model.any().over(_BATCH)


def _whole_share(count: pl.Expr) -> pl.Expr:
    """Return the part of the alert that is the `place`-th of `payers`; the first have what is over."""
    each, over = count // pl.col("payers"), count % pl.col("payers")
    return (each + (pl.col("place") <= over).cast(pl.Int64)).alias(count.meta.output_name())


def unpriced(batches: pl.DataFrame, spec: AgentSpec) -> list[str]:
    """Return the models that were asked and have no price in the spec."""
    asked = batches.filter(pl.col("llm_calls") > 0)["model"].unique().sort().to_list()
    return [model for model in asked if model not in spec.llm.prices]


def totals(batches: pl.DataFrame) -> dict[str, Any]:
    """Return the sums over all batches."""
    return batches.select(pl.col(_SUMMED).sum()).row(0, named=True)
