"""`flagstream quarantine`: what waits there, one record of it, and requests to take records in after all."""

from __future__ import annotations

from pathlib import Path

from streaming.audit.access import record_done, record_read
from streaming.commands.known_agents import check_known
from streaming.commands.quarantine_view import show_record, show_requests, show_waiting
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts
from streaming.output.tables import show_text
from streaming.output.terminal import Terminal, print_json
from streaming.quarantine.choosing import RecordFilter
from streaming.quarantine.inspection import Quarantine, listed, record_document
from streaming.service.health import is_running
from streaming.versions.registry import Author

_TAKEN_SOON = "The agent takes them between two batches"
_TAKEN_LATER = "No agent runs: they wait for the next run"


def list_waiting(agent: PlacedAgent, wanted: RecordFilter, limit: int, *, as_json: bool) -> None:
    """Print the records that wait, at most `limit` of them unless as JSON.

    Raises:
        ConfigurationError: see check_known.
    """
    check_known(agent)
    found = Quarantine(agent).waiting(wanted)
    record_read(agent, "quarantine-list", [agent.spec.tables.quarantine])
    print_json(listed(found)) if as_json else show_waiting(found, limit, Terminal())


def show_rejected(agent: PlacedAgent, place: str, raw: Path | None, *, as_json: bool) -> None:
    """Print one record with every rejection; with `raw` also write its bytes there.

    Raises:
        ConfigurationError: `place` is none, or nothing of it was rejected.
    """
    found = Quarantine(agent).record(place)
    record_read(agent, "quarantine-show", [agent.spec.tables.quarantine])
    if raw is not None:
        raw.write_bytes(found[0]["value"] or b"")
    print_json(record_document(found)) if as_json else show_record(found, Terminal())


def ask_to_take_in(
    agent: PlacedAgent,
    wanted: RecordFilter,
    contract: str | None,
    author: Author,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Ask for records to be taken in and print what that comes to; see Quarantine.requeue."""
    asked = Quarantine(agent).requeue(wanted, contract, author, dry_run=dry_run)
    if asked["request"] is not None:
        record_done(agent, "quarantine-requeue", asked["records"] - asked["stored_already"])
    show_facts(asked, as_json=as_json)
    if asked["request"] is not None and not as_json:
        running = is_running(agent.settings.health(agent.name))
        when = _TAKEN_SOON if running else _TAKEN_LATER
        show_text(Terminal(), f"{when}; `flagstream quarantine requests` shows how far it is.")


def list_requests(agent: PlacedAgent, *, as_json: bool) -> None:
    """Print the requests to take records in and what became of them."""
    found = Quarantine(agent).requests()
    print_json(found, default=lambda at: at.isoformat()) if as_json else show_requests(found, Terminal())
