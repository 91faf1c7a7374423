"""`flagstream audit`: whether the log is whole, and its newest rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.counts import count_of
from streaming.audit.audit_check import AuditReport, check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.commands.known_agents import check_known
from streaming.home.placed_agent import PlacedAgent
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json


def verify_audit(agent: PlacedAgent, copy: Path | None, *, as_json: bool) -> bool:
    """Check the chain and print what is wrong; return whether nothing is.

    Args:
        copy: a copy of the anchor file that was kept elsewhere.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(agent, among_others=True)
    found = check_audit(AuditPlaces(agent), copy)
    print_json(found.facts()) if as_json else show_check(found, Terminal())
    return found.sound


def show_check(found: AuditReport, console: Terminal) -> None:
    """Print what a check found."""
    for each in found.findings:
        show_text(console, f"row {each.number}: {each.problem}: {each.detail}")
    said = "sound" if found.sound else "BROKEN"
    rows = count_of(found.rows, "row")
    if found.first:
        show_text(console, f"rows before number {found.first} were removed by retention, on record")
    show_text(console, f"{said}: {rows} up to number {found.last}, anchored at {found.anchored}")


def show_audit(agent: PlacedAgent, kind: str | None, count: int, *, as_json: bool) -> None:
    """Print the newest rows, the newest last.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(agent, among_others=True)
    rows = newest_events(AuditPlaces(agent), kind, count)
    if as_json:
        for row in rows:
            print_json({**row, "at": row["at"].isoformat()})
    else:
        show_rows(rows, Terminal())


def show_rows(rows: Sequence[Mapping[str, Any]], console: Terminal) -> None:
    """Print rows of the log for people."""
    cells = (
        (row["number"], f"{row['at']:%F %T}", row["kind"], row["subject"], _detail(row["detail"]))
        for row in rows
    )
    show_table(console, ("row", "at", "kind", "subject", "detail"), cells)


def _detail(detail: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in detail.items() if value is not None)
