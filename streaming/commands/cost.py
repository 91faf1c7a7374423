"""`flagstream cost` around the sums and the forecast: reads options and the lake, and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from agent.model.prompt_files import load_prompt
from schemas.contract import load_contract
from schemas.errors import ConfigurationError, nearest
from schemas.spec import AgentSpec
from streaming.history.cost import GROUPINGS, closed_batches, cost_by, totals, unpriced
from streaming.history.forecast import Forecast, basis_of, forecast, model_in_force
from streaming.output.terminal import Terminal

_CHARACTERS_PER_TOKEN = 3.0
_WHOLE_FROM = 1_000


def booked(lake: Path, spec: AgentSpec, by: str, compute_price: float | None) -> dict[str, Any]:
    """Return what was spent: rows by alert, batch, day, model or prompt, totals, and models without a price.

    Raises:
        ConfigurationError: `by` is none of these.
    """
    if by not in GROUPINGS:
        raise ConfigurationError(nearest(by, GROUPINGS), where="--by")
    batches = closed_batches(lake, spec, _price(spec, compute_price))
    rows = cost_by(by, batches, lake, spec)
    return {"rows": rows.to_dicts(), "total": totals(batches), "unpriced": unpriced(batches, spec)}


def estimated(lake: Path, spec: AgentSpec, rate: float, compute_price: float | None) -> Forecast:
    """Return what `rate` events per second would cost."""
    price = _price(spec, compute_price)
    batches = closed_batches(lake, spec, price)
    basis = basis_of(spec, batches, rate, _prompt_tokens(spec))
    return forecast(spec, basis, rate, model_in_force(spec, batches), price)


def show_booked(found: dict[str, Any], console: Terminal) -> None:
    """Print what was spent for people."""
    rows = pl.DataFrame(found["rows"])
    table = Table(*rows.columns, box=None)
    for row in rows.iter_rows():
        table.add_row(*(_shown(value) for value in row))
    console.print(table)
    console.print("total: " + ", ".join(f"{name} {_shown(value)}" for name, value in found["total"].items()))
    if found["unpriced"]:
        console.print(f"no price in llm.prices, counted as free: {', '.join(found['unpriced'])}")


def show_estimate(found: Forecast, console: Terminal) -> None:
    """Print a forecast for people."""
    facts = found.facts()
    for name, figure in facts.pop("basis").items():
        console.print(f"{name:<24}{_shown(figure['value']):>16}  {figure['basis']}")
    console.print()
    for name, value in facts.items():
        console.print(f"{name:<24}{_shown(value):>16}")


def as_json(found: dict[str, Any] | Forecast) -> str:
    """Return either as one JSON object."""
    return json.dumps(found.facts() if isinstance(found, Forecast) else found)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _price(spec: AgentSpec, given: float | None) -> float:
    return spec.compute_price if given is None else given


def _prompt_tokens(spec: AgentSpec) -> float:
    contract = load_contract(spec.data_sources.transactions.contract)
    prompt = load_prompt(spec.llm.prompt, contract.prompt_notes())
    return len(prompt.system + prompt.user.template) / _CHARACTERS_PER_TOKEN
