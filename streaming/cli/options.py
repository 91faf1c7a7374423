"""What all commands share: options, and how they find specs, settings and the broker, and print."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from agent import SPECS
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec, resolve_named
from streaming.home.private_files import keep_private
from streaming.home.settings import Settings
from streaming.output.log import configure
from streaming.output.terminal import Terminal, print_json

Home = Annotated[Path, typer.Option("--home", help="Folder for all state.", envvar="FLAGSTREAM_HOME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
LogFormat = Annotated[
    str | None,
    typer.Option("--log-format", help="text or json; FLAGSTREAM_LOG_FORMAT, else text, if absent."),
]
SpecName = Annotated[str, typer.Option("--spec", help="A spec file, or the name of a shipped spec.")]
LlmChoice = Annotated[
    str,
    typer.Option(
        "--llm",
        help="auto: the endpoint of spec or environment, else the local model; local; none: rules alone. "
        "A spec with `llm: {provider: none}` asks nobody in any case.",
    ),
]
DEFAULT_HOME = Path("var")
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
console = Terminal()


def settings_in(home: Path, log_format: str | None = None) -> Settings:
    """Return the settings of this process, state in `home`, which from now on is its user's alone.

    Args:
        log_format: text or json, where an option names it; from here on the process logs so.
    """
    settings = Settings.load(home, os.environ)
    configure(log_format or settings.log_format)
    keep_private(settings.home)
    return settings


def spec_named(name: str) -> AgentSpec:
    """Return a spec by its file or the name of a shipped one."""
    return load_spec(resolve_named(name, SPECS, "spec"))


@contextmanager
def broker_of(settings: Settings) -> Iterator[str]:
    """Yield the broker's address; an embedded one runs for as long as a command needs it."""
    from streaming.kafka.broker import bootstrap_for

    if settings.kafka == "docker":
        raise ConfigurationError(
            "a container lives as long as one command, so only the demo and the tests can use one; "
            "give the address of a broker that stays",
            where="FLAGSTREAM_KAFKA",
        )
    with bootstrap_for(settings) as bootstrap:
        yield bootstrap


def say(facts: dict[str, object], as_json: bool) -> None:
    """Print facts as JSON, or one per line."""
    if as_json:
        print_json(facts)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        console.print(f"{name:<{width}}  {value}", soft_wrap=True)
