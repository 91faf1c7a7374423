"""`flagstream case`: cases shown, worked on, exported and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from schemas.documents import decoded, parse_json
from schemas.errors import ConfigurationError
from streaming.audit.access import record_done_each, record_read
from streaming.audit.case_notes import notes_of
from streaming.cases.actions import MOST_BYTES
from streaming.cases.book import CaseBook
from streaming.cases.case_check import check_case_file
from streaming.cases.case_file import PARTS, CaseReader
from streaming.cases.choosing import CaseFilter, CaseState
from streaming.cases.orders import Order
from streaming.commands.cases_view import show_cases, show_checks, show_one
from streaming.commands.known_agents import check_known
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts
from streaming.output.tables import show_text
from streaming.output.terminal import Terminal, print_json
from streaming.store.whole_files import replace_file
from streaming.versions.moving import default_author

_NOTHING_MORE: Mapping[str, str] = {}


def list_cases(
    agent: PlacedAgent,
    wanted: CaseFilter,
    limit: int,
    after: str | None,
    *,
    as_json: bool,
) -> None:
    """Group what has come, and print the cases that are meant.

    Raises:
        ConfigurationError: `after` is nothing that an earlier page has given.
    """
    book = _grouped(agent)
    record_read(agent, "case-list", [agent.spec.tables.case_events])
    page = book.page(wanted, limit, after)
    if as_json:
        cases = [each.document for each in page.cases]
        print_json({"cases": cases, "total": page.total, "after": page.after, "facets": page.facets})
    else:
        show_cases(page, Terminal())


def show_case(agent: PlacedAgent, case_id: str, *, as_json: bool) -> None:
    """Print a case with its alerts and its timeline.

    Raises:
        ConfigurationError: there is no such case.
    """
    book = _grouped(agent)
    record_read(agent, "case-show", [agent.spec.tables.case_events])
    case, alerts, timeline = book.case(case_id), book.alerts_of(case_id), book.timeline(case_id)
    if as_json:
        whole = {"case": case.document, "alerts": alerts.to_dicts(), "timeline": timeline}
        print_json(whole, default=lambda at: at.isoformat())
    else:
        show_one(case, alerts, timeline, Terminal())


def claim_case(
    agent: PlacedAgent,
    case_id: str | None,
    who: str | None,
    seen: int | None,
    *,
    as_json: bool,
) -> bool:
    """Take a case and print it; return False where there is none to take.

    Raises:
        FlagstreamError: see CaseBook.act.
    """
    book, author = _grouped(agent), who or default_author()
    taken = book.claim_next(author) if case_id is None else book.act(case_id, Order("claim"), author, seen)
    if taken is None:
        print_json(None) if as_json else show_text(Terminal(), "no open case that nobody has")
        return False
    _done(agent, "case-claim", taken, author, as_json=as_json)
    return True


def act_on(
    agent: PlacedAgent,
    case_id: str,
    order: Order,
    who: str | None,
    seen: int | None,
    *,
    as_json: bool,
) -> None:
    """Carry out an order on one case and print what has become of it.

    Raises:
        FlagstreamError: see CaseBook.act.
    """
    author = who or default_author()
    case = _grouped(agent).act(case_id, order, author, seen)
    _done(agent, f"case-{order.what}", case, author, _noted(order), as_json=as_json)


def attach_file(agent: PlacedAgent, case_id: str, file: Path, who: str | None, *, as_json: bool) -> None:
    """Keep a file with a case and print what has become of it.

    Raises:
        FlagstreamError: see CaseBook.act.
    """
    with file.open("rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    order = Order("attach", name=file.name, content=content)
    act_on(agent, case_id, order, who, None, as_json=as_json)


def undo_last(agent: PlacedAgent, case_id: str, who: str | None, seen: int | None, *, as_json: bool) -> None:
    """Take back what was done last to a case and print what has become of it.

    Raises:
        FlagstreamError: see CaseBook.undo.
    """
    author = who or default_author()
    done = _grouped(agent).undo(case_id, author, seen)
    _record(agent, "case-undo", done.cases, author)
    show_facts(done.case.document, as_json=as_json)


def update_cases(
    agent: PlacedAgent,
    wanted: CaseFilter,
    order: Order,
    who: str | None,
    *,
    dry_run: bool,
    expected: int | None,
    as_json: bool,
) -> None:
    """Do something to many cases and print how many were changed, and why others were not.

    Raises:
        ConfigurationError: cases are to be closed, and nobody says how many.
        FlagstreamError: see CaseBook.mass.
    """
    if order.what == "close" and not dry_run and expected is None:
        raise ConfigurationError("closing cases takes a number, as --dry-run says it", where="--expect")
    book, author = _grouped(agent), who or default_author()
    done = book.mass(wanted, order, author, dry_run=dry_run, expected=expected)
    if not dry_run:
        _record(agent, f"case-{order.what}", done.cases, author, _noted(order))
    refused = [{"why": why, "cases": count} for why, count in done.refused.items()]
    facts = {"meant": done.meant, "changed": done.changed, "dry_run": dry_run, "refused": refused}
    show_facts(facts, as_json=as_json)


def export_case(agent: PlacedAgent, case_id: str, file: Path, *, as_json: bool) -> None:
    """Write a case to a file and print what it holds.

    Raises:
        ConfigurationError: there is no such case.
    """
    whole = _grouped(agent).case(case_id).case_id
    reader = _reader(agent)
    document = reader.document(whole)
    tables = ("case_events", "alerts", "transactions", "batches", "labels")
    record_read(agent, "case-export", [getattr(agent.spec.tables, each) for each in tables])
    replace_file(file, json.dumps(document, indent=1).encode())
    counts = {name: len(document[name]) for name in PARTS if name != "case"}
    show_facts({"file": str(file), "case": whole, **counts, "digest": document["digest"]}, as_json=as_json)


def verify_file(agent: PlacedAgent, file: Path, *, as_json: bool) -> bool:
    """Check the file of a case, print what was found of each part; return whether all is the same.

    Raises:
        ConfigurationError: it is no such file.
    """
    document = parse_json(decoded(file.read_bytes(), str(file)), where=str(file))
    if not isinstance(document, dict):
        raise ConfigurationError("expected a JSON object", where=str(file))
    checks = check_case_file(document, _reader(agent))
    record_read(agent, "case-verify", [agent.spec.tables.case_events, agent.spec.tables.alerts])
    print_json([asdict(each) for each in checks]) if as_json else show_checks(checks, Terminal())
    return all(each.state == "same" for each in checks)


def _grouped(agent: PlacedAgent) -> CaseBook:
    check_known(agent)
    book = CaseBook(agent)
    book.group()
    return book


def _reader(agent: PlacedAgent) -> CaseReader:
    return CaseReader(LakeReader.of(agent), agent.name)


def _done(
    agent: PlacedAgent,
    command: str,
    case: CaseState,
    who: str,
    noted: Mapping[str, str] = _NOTHING_MORE,
    *,
    as_json: bool,
) -> None:
    _record(agent, command, [case.case_id], who, noted)
    show_facts(case.document, as_json=as_json)


def _noted(order: Order) -> Mapping[str, str]:
    return {"reason": order.reason} if order.what == "close" else _NOTHING_MORE


def _record(
    agent: PlacedAgent,
    command: str,
    case_ids: Sequence[str],
    who: str,
    noted: Mapping[str, str] = _NOTHING_MORE,
) -> None:
    """Have the audit log name the cases, and the author by the name that they have given themselves."""
    record_done_each(agent, command, [{"who": who, **noted, **each} for each in notes_of(case_ids)])
