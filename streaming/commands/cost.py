"""`flagstream cost` around the sums and the forecast: reads options and the lake, and prints."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from schemas.spec import AgentSpec
from streaming.commands.known_agents import check_known
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.cost import booked, closed_batches, price_of
from streaming.history.forecast import Forecast, basis_of, forecast, model_in_force, no_batches
from streaming.home.placed_agent import PlacedAgent
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json_text
from streaming.store.place import Place

_CHARACTERS_PER_TOKEN = 3.0
_WHOLE_FROM = 1_000


def show_cost(agent: PlacedAgent, by: str, compute_price: float | None, *, as_json: bool) -> None:
    """Print what an agent has cost, by alert, batch, day, model or prompt.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(agent)
    found = booked(agent.lake, agent.spec, by, compute_price)
    print_json_text(plain(found)) if as_json else show_booked(found, Terminal())


def show_forecast(agent: PlacedAgent, rate: float, compute_price: float | None, *, as_json: bool) -> None:
    """Print what an agent would cost at `rate` events per second."""
    found = estimated(agent.lake, agent.spec, rate, compute_price)
    print_json_text(plain(found)) if as_json else show_estimate(found, Terminal())


def estimated(lake: Place, spec: AgentSpec, rate: float, compute_price: float | None) -> Forecast:
    """Return what `rate` events per second would cost."""
    price = price_of(spec, compute_price)
    batches = closed_batches(lake, spec, price)
    basis = basis_of(spec, batches, rate, _prompt_tokens(spec))
    return forecast(spec, basis, rate, model_in_force(spec, batches), price)


def first_estimate(spec: AgentSpec, rate: float, compute_price: float) -> Forecast:
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
    show_table(console, ("estimate", "value"), ((name, _shown(value)) for name, value in facts.items()))


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
