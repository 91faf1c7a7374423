"""What all commands share: options, and how settings and specs are found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent import SPECS
from schemas.documents import named_file, resolve_named
from schemas.spec import AgentSpec, load_spec
from streaming.arrays.kernel_folder import keep_kernels_in
from streaming.home.private_files import keep_private
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
DEFAULT_HOME = Path("var")


def settings_in(home: Path, log_format: str | None = None) -> Settings:
    """Return the settings of this process, state in `home`, which from now on is its user's alone.

    Args:
        log_format: text or json, where an option names it; from here on the process logs so.
    """
    settings = Settings.load(home, os.environ)
    configure(log_format or settings.log_format)
    keep_private(settings.home)
    keep_kernels_in(settings.home / "kernels")
    return settings


def spec_named(name: str) -> AgentSpec:
    """Return a spec by its file or the name of a shipped one."""
    return load_spec(named_file(resolve_named(name, SPECS, "spec"), "spec"))
