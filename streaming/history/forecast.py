"""What an agent would cost at a given rate of events: an estimate that says what each figure rests on.

What the lake has shown counts; what it has not is assumed, on the expensive side.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl

from agent.model.model_client import LOCAL_MODEL
from schemas.counts import count_of
from schemas.spec import AgentSpec
from streaming.history.cost import NONE_ASKED

_SECONDS_PER_DAY = 86_400.0
_DAYS_PER_MONTH = 30
_ENOUGH_EVENTS = 1_000
_LARGE_BATCH = 10_000
_USUAL_EVENTS_PER_SECOND = 100_000.0
_USUAL_BATCH_SECONDS = 0.3
_GROUP_TOKENS = 400.0
_FREE = frozenset({NONE_ASKED, LOCAL_MODEL})

Limit = Literal["none", "llm.budget.calls_per_batch", "llm.budget.tokens_per_day"]


@dataclass(frozen=True)
class Figure:
    """A number and what it rests on."""

    value: float
    basis: str


@dataclass(frozen=True)
class Basis:
    """What a forecast starts from.

    Attributes:
        events_per_second: of one machine, flat out.
    """

    alerts_per_event: Figure
    calls_per_alert: Figure
    input_tokens_per_call: Figure
    output_tokens_per_call: Figure
    seconds_per_batch: Figure
    events_per_second: Figure


@dataclass(frozen=True)
class Forecast:
    """What a rate of events costs.

    Attributes:
        rate: events per second.
        machines: machines like this one that the rate needs, at least one, all day long.
        limited_by: the setting that keeps the calls below what the alerts ask for.
        llm_usd_per_day, compute_usd_per_day: None where no price is known.
        month_usd: of thirty days; None where a price is missing.
    """

    rate: float
    model: str
    events_per_day: float
    alerts_per_day: float
    calls_per_day: float
    input_tokens_per_day: float
    output_tokens_per_day: float
    limited_by: Limit
    machines: int
    llm_usd_per_day: float | None
    compute_usd_per_day: float | None
    month_usd: float | None
    basis: Basis

    def facts(self) -> dict[str, Any]:
        """Return the forecast as plain values."""
        return asdict(self)


def basis_of(spec: AgentSpec, batches: pl.DataFrame, rate: float, prompt_tokens: float) -> Basis:
    """Find out what a forecast can start from.

    Args:
        batches: see streaming.history.cost.closed_batches.
        rate: events per second.
        prompt_tokens: of the prompt without a group's data, where no call was measured.
    """
    asked = batches.filter(pl.col("llm_calls") > 0)
    calls = int(asked["llm_calls"].sum())
    return Basis(
        alerts_per_event=_alerts_per_event(spec, batches, rate),
        calls_per_alert=_calls_per_alert(spec, asked),
        input_tokens_per_call=_per_call(asked["input_tokens"], calls, prompt_tokens + _GROUP_TOKENS),
        output_tokens_per_call=_per_call(asked["output_tokens"], calls, spec.llm.max_output_tokens),
        seconds_per_batch=_seconds_per_batch(batches),
        events_per_second=_capacity(batches),
    )


def no_batches() -> pl.DataFrame:
    """Return what a lake has shown that is not there yet; see streaming.history.cost.closed_batches."""
    counts = ("llm_calls", "input_tokens", "output_tokens", "stored", "alerts")
    return pl.DataFrame(
        schema={**dict.fromkeys(counts, pl.Int64), "busy_seconds": pl.Float64, "model": pl.String}
    )


def forecast(spec: AgentSpec, basis: Basis, rate: float, model: str, compute_price: float | None) -> Forecast:
    """Estimate what `rate` events per second cost a day.

    Args:
        model: whose price counts.
        compute_price: USD per hour of one machine, None where it is not known.
    """
    alerts = rate * _SECONDS_PER_DAY * basis.alerts_per_event.value
    calls, limit = _affordable_calls(spec, basis, alerts)
    tokens_in = calls * basis.input_tokens_per_call.value
    tokens_out = calls * basis.output_tokens_per_call.value
    machines = max(1, math.ceil(rate / basis.events_per_second.value))
    llm_usd = spec.llm.price_of(model).usd(tokens_in, tokens_out) if _has_price(spec, model) else None
    compute_usd = None if compute_price is None else machines * compute_price * 24
    both_known = llm_usd is not None and compute_usd is not None
    return Forecast(
        rate=rate,
        model=model,
        events_per_day=rate * _SECONDS_PER_DAY,
        alerts_per_day=alerts,
        calls_per_day=calls,
        input_tokens_per_day=tokens_in,
        output_tokens_per_day=tokens_out,
        limited_by=limit,
        machines=machines,
        llm_usd_per_day=llm_usd,
        compute_usd_per_day=compute_usd,
        month_usd=((llm_usd or 0) + (compute_usd or 0)) * _DAYS_PER_MONTH if both_known else None,
        basis=basis,
    )


def _has_price(spec: AgentSpec, model: str) -> bool:
    """Whether it is known what a model costs: one on this machine, or none at all, costs no tokens."""
    return model in spec.llm.prices or model in _FREE


def model_in_force(spec: AgentSpec, batches: pl.DataFrame) -> str:
    """Return the model that the spec names, else the one asked last, else the local one."""
    if spec.llm.provider == "none":
        return NONE_ASKED
    asked = batches.filter(pl.col("model") != NONE_ASKED)["model"]
    return spec.llm.model or (asked[-1] if len(asked) else LOCAL_MODEL)


def _affordable_calls(spec: AgentSpec, basis: Basis, alerts: float) -> tuple[float, Limit]:
    budget = spec.llm.budget
    per_call = basis.input_tokens_per_call.value + basis.output_tokens_per_call.value
    wanted: list[tuple[float, Limit]] = [
        (alerts * basis.calls_per_alert.value, "none"),
        (
            budget.calls_per_batch * _SECONDS_PER_DAY / basis.seconds_per_batch.value,
            "llm.budget.calls_per_batch",
        ),
        (budget.tokens_per_day / per_call, "llm.budget.tokens_per_day"),
    ]
    return min(wanted, key=lambda each: each[0])


def _alerts_per_event(spec: AgentSpec, batches: pl.DataFrame, rate: float) -> Figure:
    if spec.alerts_per_day is not None:
        per_event = min(1.0, spec.alerts_per_day / (rate * _SECONDS_PER_DAY))
        return Figure(per_event, "alerts_per_day of the spec; rules alert beside it")
    stored = int(batches["stored"].sum())
    if stored < _ENOUGH_EVENTS:
        return Figure(1 - spec.threshold, "assumed: threshold of the spec; rules alert beside it")
    return Figure(int(batches["alerts"].sum()) / stored, f"measured over {count_of(stored, 'event')}")


def _calls_per_alert(spec: AgentSpec, asked: pl.DataFrame) -> Figure:
    if spec.llm.provider == "none":
        return Figure(0.0, "llm.provider of the spec is none")
    alerts = int(asked["alerts"].sum())
    if alerts == 0:
        return Figure(1.0, "assumed: no two alerts of a batch are alike")
    return Figure(int(asked["llm_calls"].sum()) / alerts, f"measured over {count_of(alerts, 'alert')}")


def _per_call(tokens: pl.Series, calls: int, assumed: float) -> Figure:
    if tokens.sum() == 0:
        return Figure(float(assumed), "assumed: length of the prompt and most tokens of an answer")
    return Figure(int(tokens.sum()) / calls, f"measured over {count_of(calls, 'call')}")


def _seconds_per_batch(batches: pl.DataFrame) -> Figure:
    usual = batches.filter(pl.col("stored") > 0)["busy_seconds"].median()
    if not isinstance(usual, float) or usual <= 0:
        return Figure(_USUAL_BATCH_SECONDS, "assumed: small batches on two cores")
    return Figure(usual, f"measured: median of {count_of(batches.height, 'batch', 'batches')}")


def _capacity(batches: pl.DataFrame) -> Figure:
    """Only large batches show what a machine can do: in a small one fixed costs count."""
    large = batches.filter(pl.col("stored") >= _LARGE_BATCH)
    seconds = float(large["busy_seconds"].sum())
    if seconds <= 0:
        return Figure(_USUAL_EVENTS_PER_SECOND, "assumed: two cores, no model; `flagstream bench throughput`")
    return Figure(int(large["stored"].sum()) / seconds, f"measured over {large.height:,} large batches")
