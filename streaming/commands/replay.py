"""What replay and what-if show of their runs."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from agent.triage.untrusted_text import escaped
from schemas.errors import ConfigurationError
from streaming.history.replay import ExactReplay
from streaming.history.what_if_report import WhatIf
from streaming.output.terminal import Terminal

_SHOWN = 20


def show_replay(found: ExactReplay, console: Terminal) -> None:
    """Print what an exact replay found."""
    console.print(
        f"{found.span}: {found.rows} transactions decided anew, {found.alerts} published alerts compared, "
        f"{len(found.differences)} differences"
        + (f"; {found.backfilled} backfilled ones passed over" if found.backfilled else ""),
    )
    if found.differences:
        table = Table("alert", "transaction", "what", "fields")
        for each in found.differences[:_SHOWN]:
            table.add_row(each.alert_id, escaped(each.transaction_id), each.what, ", ".join(each.fields))
        console.print(table)
        if len(found.differences) > _SHOWN:
            console.print(f"… and {len(found.differences) - _SHOWN} more; --json lists all")


def check_report(path: Path | None) -> None:
    """Check that a report can be written, before anything else is.

    Raises:
        ConfigurationError: its folder is not there, or it is a folder itself.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ConfigurationError("expected a file in a folder that is there", where="--report")


def candidate_report(found: WhatIf, path: Path) -> Path:
    """Write the report as one HTML page with its plot inside.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    from streaming.commands.what_if_page import page  # noqa: PLC0415 -- matplotlib is loaded only to draw

    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as fault:
        raise ConfigurationError(f"cannot be written: {fault.strerror}", where=str(path)) from None
    return path
