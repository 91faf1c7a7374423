"""What all commands share: options, and how settings and specs are found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent import SPECS
from schemas.documents import named_file, resolve_named
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec
from streaming.commands.own_process import keep_state_in_home
from streaming.home.listen import listen_address
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.log import configure

Home = Annotated[Path, typer.Option("--home", help="Folder for all state.", envvar="FLAGSTREAM_HOME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
LogFormat = Annotated[
    str | None,
    typer.Option("--log-format", help="text or json; FLAGSTREAM_LOG_FORMAT, else text, if absent."),
]


def shipped_specs(begun: str) -> list[str]:
    """Return the names of shipped specs that begin so, for shells that complete them."""
    return sorted(path.stem for path in SPECS.glob("*.yaml") if path.stem.startswith(begun))


SpecName = Annotated[
    str,
    typer.Option("--spec", help="A spec file, or the name of a shipped spec.", autocompletion=shipped_specs),
]
SpecNames = Annotated[
    list[str] | None,
    typer.Option(
        "--spec",
        help="A spec file, or the name of a shipped spec; repeatable; card-fraud if absent.",
        autocompletion=shipped_specs,
    ),
]
LlmChoice = Annotated[
    str,
    typer.Option(
        "--llm",
        help="auto: the endpoint of spec or environment, else the local model; local; none: rules alone. "
        "A spec with `llm: {provider: none}` asks nobody in any case.",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="How text files are encoded; found, and named on stderr, if absent."),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter", help="Between two cells of CSV, or `tab`; found, and named on stderr, if absent."
    ),
]
DecimalSign = Annotated[
    Literal[".", ","] | None,
    typer.Option("--decimal", help="Decimal sign of numbers in CSV; found, and named on stderr, if absent."),
]
MetricsPort = Annotated[
    str | None,
    typer.Option(
        "--metrics-port",
        help="[HOST:]PORT where metrics and health are served, without a host to this machine alone, or off; "
        "FLAGSTREAM_METRICS, else off, if absent.",
    ),
]
DEFAULT_HOME, DEFAULT_SPEC = Path("var"), "card-fraud"


def settings_in(home: Path, log_format: str | None = None, metrics: str | None = None) -> Settings:
    """Return the settings of this process, state in `home`, which from now on is its user's alone.

    Args:
        log_format: text or json, where an option names it; from here on the process logs so.
        metrics: where metrics are served, where an option says so.
    """
    settings = Settings.load(home, os.environ)
    if metrics is not None:
        settings = replace(settings, metrics=listen_address(metrics, "--metrics-port"))
    configure(log_format or settings.log_format)
    keep_state_in_home(settings)
    return settings


def agent_in(home: Path, spec: str, log_format: str | None = None, metrics: str | None = None) -> PlacedAgent:
    """Return a spec with the settings of this process: brokers and store as either names them."""
    from streaming.commands.brokers_of import reached_as

    agent = PlacedAgent(settings_in(home, log_format, metrics), spec_named(spec))
    return agent.with_settings(reached_as(agent).under(agent.spec))


def agents_in(
    home: Path, specs: list[str] | None, log_format: str | None = None, metrics: str | None = None
) -> list[PlacedAgent]:
    """Return several specs, each with the settings under which its agent is reached.

    Raises:
        ConfigurationError: two specs are of one agent.
    """
    found = [agent_in(home, each, log_format, metrics) for each in specs or [DEFAULT_SPEC]]
    names = [each.name for each in found]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ConfigurationError(f"two specs are of the agent {repeated!r}", where="--spec")
    return found


def spec_named(name: str) -> AgentSpec:
    """Return a spec by its file or the name of a shipped one."""
    return load_spec(named_file(resolve_named(name, SPECS, "spec"), "spec"))
