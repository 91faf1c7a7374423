"""`flagstream evaluate` around the evaluation: reads options, shows progress, draws."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError, nearest
from schemas.loading import parse_duration
from schemas.spec import AgentSpec
from streaming.definition.contracts import contract_of
from streaming.files.dialect import FOUND, TextOptions
from streaming.learning.evaluation import MODES, Mode, evaluate
from streaming.learning.evaluation_plots import write_plots
from streaming.learning.labelled_files import read_labelled
from streaming.output.facts import show_facts
from streaming.output.terminal import progress_bar, say_error


def show_evaluation(
    files: Sequence[Path],
    contract: str,
    spec: AgentSpec,
    mode: str,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate and print the summary; see run_evaluation for the options."""
    show_facts(run_evaluation(files, contract, spec, mode, **options), as_json=as_json)


def run_evaluation(
    files: Sequence[Path],
    contract: str,
    spec: AgentSpec,
    mode: str,
    *,
    label_delay: str,
    test_starts: Sequence[date],
    alerts_per_day: int,
    plots: Path | None,
    options: TextOptions = FOUND,
) -> dict[str, Any]:
    """Evaluate with a progress bar when stderr is a terminal; return the summary, with the plots' paths.

    Args:
        contract: name of a shipped one, or a file.

    Raises:
        ConfigurationError: an option or a file cannot be used.
    """
    delay, how, meant = _delay_of(label_delay), _mode_of(mode), contract_of(spec, contract)
    with progress_bar() as progress:
        reading = progress.add_task("reading", total=None)
        labelled = read_labelled(files, meant, options, say_error, spec.data_sources.rates)
        progress.remove_task(reading)
        say_error(labelled.said())
        task = progress.add_task(f"scoring, {mode}", total=len(labelled.frauds))
        found = evaluate(
            labelled,
            spec,
            meant,
            how,
            label_delay=delay,
            test_starts=test_starts,
            alerts_per_day=alerts_per_day,
            on_progress=lambda rows: progress.update(task, completed=rows),
        )
    left_out = {name: getattr(labelled, name) for name in ("unlabelled", "rejected", "filtered")}
    if plots is None:
        return {**found.summary(), **left_out}
    drawn = write_plots(found.judged, plots, alerts_per_day)
    return {**found.summary(), **left_out, "plots": [str(path) for path in drawn]}


def _mode_of(mode: str) -> Mode:
    for each in MODES:
        if each == mode:
            return each
    raise ConfigurationError(f"no mode {mode!r}; {nearest(mode, MODES)}", where="--mode")


def _delay_of(label_delay: str) -> timedelta:
    try:
        return parse_duration(label_delay)
    except ValueError as fault:
        raise ConfigurationError(str(fault), where="--label-delay") from None
