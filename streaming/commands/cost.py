"""`flagstream cost` around the sums and the forecast: reads options and the lake, and prints."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from schemas.spec import AgentSpec
from streaming.commands.known_agents import check_known
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import HasLake
from streaming.history.cost import booked, closed_batches, known_price, price_of
from streaming.history.forecast import Forecast, basis_of, forecast, model_in_force, no_batches
from streaming.home.placed_agent import PlacedAgent
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json_text

_CHARACTERS_PER_TOKEN = 3.0
_WHOLE_FROM = 1_000


def show_cost(agent: PlacedAgent, by: str, compute_price: float | None, *, as_json: bool) -> None:
    """Print what an agent has cost, by alert, batch, day, model or prompt.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(agent)
    found = booked(agent, by, compute_price)
    print_json_text(plain(found)) if as_json else show_booked(found, Terminal())


def show_forecast(agent: PlacedAgent, rate: float, compute_price: float | None, *, as_json: bool) -> None:
    """Print what an agent would cost at `rate` events per second."""
    found = estimated(agent, rate, compute_price)
    print_json_text(plain(found)) if as_json else show_estimate(found, Terminal())


def estimated(agent: HasLake, rate: float, compute_price: float | None) -> Forecast:
    """Return what `rate` events per second would cost."""
    spec = agent.spec
    batches = closed_batches(agent, price_of(spec, compute_price))
    basis = basis_of(spec, batches, rate, _prompt_tokens(spec))
    return forecast(spec, basis, rate, model_in_force(spec, batches), known_price(spec, compute_price))


def first_estimate(spec: AgentSpec, rate: float, compute_price: float | None) -> Forecast:
    """Return what `rate` events per second would cost where no lake has shown anything yet."""
    batches = no_batches()
    basis = basis_of(spec, batches, rate, _prompt_tokens(spec))
    return forecast(spec, basis, rate, model_in_force(spec, batches), compute_price)


def show_booked(found: dict[str, Any], console: Terminal) -> None:
    """Print what was spent for people."""
    rows = pl.DataFrame(found["rows"])
    show_table(console, rows.columns, ([_shown(value) for value in row] for row in rows.iter_rows()))
    total = ", ".join(f"{name} {_shown(value)}" for name, value in found["total"].items())
    show_text(console, f"total: {total}")
    if found["unpriced"]:
        show_text(console, f"no price in llm.prices, counted as free: {', '.join(found['unpriced'])}")


def show_estimate(found: Forecast, console: Terminal) -> None:
    """Print a forecast for people."""
    facts = found.facts()
    basis = facts.pop("basis").items()
    rows = ((name, _shown(figure["value"]), figure["basis"]) for name, figure in basis)
    show_table(console, ("assumed", "value", "from"), rows)
    console.print()
    unknown = _unknown(found)
    estimates = ((name, unknown.get(name) or _shown(value)) for name, value in facts.items())
    show_table(console, ("estimate", "value"), estimates)


def _unknown(found: Forecast) -> dict[str, str]:
    """Say of each sum that is not known what would make it so."""
    said = {}
    if found.llm_usd_per_day is None:
        said["llm_usd_per_day"] = f"unknown: no price of {found.model} in llm.prices of the spec"
    if found.compute_usd_per_day is None:
        said["compute_usd_per_day"] = "unknown: no compute_price in the spec; --compute-price names one"
    if found.month_usd is None:
        said["month_usd"] = "unknown"
    return said


def plain(found: dict[str, Any] | Forecast) -> str:
    """Return either as one JSON object."""
    return json.dumps(found.facts() if isinstance(found, Forecast) else found)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _prompt_tokens(spec: AgentSpec) -> float:
    prompt = AgentDefinition.of(spec).prompt
    return len(prompt.system + prompt.user.template) / _CHARACTERS_PER_TOKEN
