"""`flagstream what-if`: a candidate's report, shown, written as a page and kept as evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.audit.access import record_read
from streaming.commands.replay import replay_progress, tables_read
from streaming.commands.what_if_view import show_what_if
from streaming.history.asking import Asking
from streaming.history.replay_evidence import note_replay
from streaming.history.replay_runs import ReplaySpan, run_what_if
from streaming.history.what_if_found import WhatIf
from streaming.home.placed_agent import PlacedAgent
from streaming.output.terminal import Terminal, print_json, say_error
from streaming.versions.moving import default_author


@dataclass(frozen=True)
class WhatIfOptions:
    """What a candidate is asked.

    Attributes:
        wanted: the span.
        warm_up: see streaming.history.what_if.
        asking: whether its model may be asked, and up to which cap.
        report: file for the HTML page, None for none.
    """

    wanted: ReplaySpan
    warm_up: timedelta | None
    asking: Asking
    report: Path | None


def ask_what_if(agent: PlacedAgent, candidate: AgentSpec, options: WhatIfOptions, *, as_json: bool) -> None:
    """Decide a span under a candidate and print what would have been otherwise.

    Raises:
        ConfigurationError: candidate, span or report cannot be used.
    """
    check_report(options.report)
    with replay_progress() as moved_on:
        found = run_what_if(agent, candidate, options.wanted, options.warm_up, options.asking, moved_on)
    record_read(agent, "replay-candidate", tables_read(agent.spec))
    kept = note_replay(agent, candidate, found, default_author())
    print_json(found.facts(), default=str) if as_json else show_what_if(found, Terminal())
    if not kept:
        say_error(NOT_KEPT)
    if options.report is not None:
        say_error(f"report: {write_report(found, options.report)}")


NOT_KEPT = "not kept as evidence for `flagstream promote`: the agent has no registry, or another name"


def check_report(path: Path | None) -> None:
    """Check that a report can be written, before anything else is.

    Raises:
        ConfigurationError: its folder is not there, or it is a folder itself.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ConfigurationError("expected a file in a folder that is there", where="--report")


def write_report(found: WhatIf, path: Path) -> Path:
    """Write the report as one HTML page with its plots inside.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    from streaming.commands.what_if_page import page  # noqa: PLC0415 -- matplotlib is loaded only to draw

    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as fault:
        raise ConfigurationError(f"cannot be written: {fault.strerror}", where=str(path)) from None
    return path
