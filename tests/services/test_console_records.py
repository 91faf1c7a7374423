"""Entities, the quarantine and the audit log in a real Chromium; pictures as in test_console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.tables import QUARANTINE
from streaming.console.rendering import entity_place
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import BUSY, DAY, RETENTION, build_lake, spec_of
from tests.console_people import (
    HOSTILE,
    PHONE,
    THEMES,
    WIDE,
    House,
    People,
    check_looks,
    house_of,
    picture,
    said,
)

SPEC = spec_of()
ODD = ("50%2Fb", "a/../b", "..", "%2e%2e", "a/history", "", "a\nb", " ", "\u202eevil", "x" * 255, HOSTILE)
GOOD = {
    "tx_id": "late-1", "event_time": "2026-05-01T10:00:00Z", "amount": 12.5, "currency": "EUR",
    "customer_id": "c1", "terminal_id": "m2", "merchant_category": "food", "country": "DE", "memo": "lunch",
}  # fmt: skip
RECORDS = (
    ("missing_field", "no amount", json.dumps({**GOOD, "tx_id": "late-2", "amount": None}).encode()),
    ("not_json", "unexpected end of data", b"{not json"),
    ("not_json", HOSTILE, HOSTILE.encode()),
    ("not_json", "not UTF-8", bytes(range(256)) * 3),
    ("clock", "1 h in the future", json.dumps(GOOD, indent=1).encode()),
)
OF_DOCS = {
    "customer-wide-light.png": "entity",
    "graph-wide-light.png": "neighbours", "quarantine-wide-light.png": "quarantine",
    "audit-wide-dark.png": "audit",
}  # fmt: skip


def with_odd_ids(table: pa.Table) -> pa.Table:
    """Give the last payments to customers with odd ids."""
    customers = table["customer"].to_pylist()
    customers[-len(ODD) :] = ODD
    place = table.schema.get_field_index("customer")
    return table.set_column(place, table.schema.field(place), pa.array(customers, pa.string()))


def reject(settings: Settings) -> None:
    """Store records in the quarantine, as if the agent had rejected them."""
    shared = {"topic": "events", "partition": 0, "query_id": "q", "batch_id": 0, "key": b"c1"}
    rows = [
        {
            **shared, "offset": 9_000 + at, "kafka_timestamp": DAY + timedelta(hours=at), "reason": reason,
            "detail": detail, "value": value, "headers": [{"key": "traceparent", "value": b"00-ab"}],
        }
        for at, (reason, detail, value) in enumerate(RECORDS)
    ]  # fmt: skip
    table = LakeTable(settings.lake(SPEC.name) / "quarantine", QUARANTINE, "tester/epoch", RETENTION)
    table.claim(1)
    table.append(pa.Table.from_pylist(rows, schema=QUARANTINE), Stamp("tester/q", 0))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = Settings.load(tmp_path_factory.mktemp("records") / "home", {})
    build_lake(PlacedAgent(settings, SPEC), edit=with_odd_ids)
    reject(settings)
    with house_of(settings, SPEC) as found:
        yield found


def test_from_an_alert_to_its_entity_to_a_neighbour(person: People) -> None:
    with person(scope="read", name="rita") as page:
        page.goto(f"/console/alerts?filter=terminal+%3D+{BUSY}")
        page.goto(page.get_attribute("#queue .row", "data-page"))
        page.click(f".facts a:has-text('{BUSY}')")
        page.wait_for_url(f"**/console/entities/terminal/{BUSY}")
        assert page.query_selector_all(".graph .neighbour.alerted") != []
        name = page.text_content(".graph a .name")
        page.click(".graph a .neighbour")
        page.wait_for_url(f"**/console/entities/customer/{name}")
        assert page.query_selector(f"a[href='/console/entities/terminal/{BUSY}']") is not None


@pytest.mark.parametrize("entity_id", ODD)
def test_a_browser_reaches_an_entity_of_any_id_by_its_link(person: People, entity_id: str) -> None:
    path, query = entity_place("customer", entity_id)
    with person(scope="read", name="rita") as page:
        answer = page.request.get(path, params=query)
        terminal = answer.text().split('href="/console/entities/terminal/')[1].split('"')[0]
        page.goto(f"/console/entities/terminal/{terminal}")
        links = page.query_selector_all("article table a[href^='/console/entities/customer']")
        own = answer.text().split('<h1>customer <a href="')[1].split('"')[0].replace("&amp;", "&")
        wanted = next(each for each in links if each.get_attribute("href") == own)
        page.goto(wanted.evaluate("each => each.href"))
        assert page.title().startswith("customer ")
        assert page.query_selector("article script, article img") is None


def test_records_are_requeued_after_a_dry_run_for_a_reason(house: House, person: People) -> None:
    with person(scope="operate", name="otto") as page:
        page.goto("/console/quarantine?topic=events")
        page.wait_for_selector("#queue .row")
        page.keyboard.press("r")
        page.wait_for_selector("#requeue[open]")
        shown = page.inner_text("#requeue-facts")
        assert f"Records\n{len(RECORDS)}" in shown
        assert "Would be stored\n1" in shown
        page.keyboard.press("Escape")
        page.wait_for_selector("#requeue", state="hidden")
        assert house.rows("requeues") == []
        page.click(".facets a:has-text('clock')")
        page.wait_for_selector("h1:has-text('1 record in quarantine')")
        page.keyboard.press("r")
        page.wait_for_selector("#requeue[open]")
        page.keyboard.press("Enter")
        assert page.query_selector("#requeue[open]") is not None, "a reason is asked for"
        page.fill("#requeue-why", "clock of the sender was mended")
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/quarantine/requests")
        said(page, "Asked for 1 record")
        assert "clock of the sender was mended" in page.text_content("#detail")
    (row,) = house.rows("requeues")
    assert (row["who"], row["records"]) == ("token:otto", 1)


def test_a_record_that_others_have_changed_meanwhile_is_not_taken(house: House, person: People) -> None:
    with person(scope="operate", name="otto") as page:
        page.goto("/console/quarantine/records/events/0/9001")
        before = len(house.rows("requeues"))
        page.route(
            "**/v1/quarantine/requeue*",
            lambda route: route.continue_(
                post_data=json.dumps({**route.request.post_data_json, "expect": 7})
                if "expect" in route.request.post_data_json
                else None
            ),
        )
        page.keyboard.press("1")
        page.wait_for_selector("#requeue[open]")
        page.fill("#requeue-why", "try again")
        page.keyboard.press("Enter")
        said(page, "look again")
    assert len(house.rows("requeues")) == before


def test_text_from_outside_does_nothing_in_the_quarantine(person: People) -> None:
    with person(scope="read", name="rita") as page:
        page.goto("/console/quarantine")
        for _ in RECORDS:
            page.keyboard.press("j")
            page.wait_for_selector("#preview #detail")
        for offset in range(9_000, 9_000 + len(RECORDS)):
            page.goto(f"/console/quarantine/records/events/0/{offset}")
            assert page.query_selector("#detail script, #detail img") is None
            assert page.query_selector("[data-do=requeue]") is None
        page.goto("/console/quarantine/records/events/0/9002")
        assert r"\u202egro.live\u202c\x1b[31m{{7*7}}" in page.inner_text(".bytes")


def visited(page: Any) -> Iterator[str]:
    """Go to every page of this file, with what people see on it."""
    page.goto(f"/console/entities/terminal/{BUSY}")
    yield "entity"
    page.goto("/console/entities/customer/c18")
    yield "customer"
    page.evaluate("document.querySelector('.graph').parentElement.previousElementSibling.scrollIntoView()")
    yield "graph"
    page.goto("/console/quarantine")
    if page.viewport_size == WIDE:
        page.keyboard.press("j")
        page.wait_for_selector("#preview #detail")
    yield "quarantine"
    page.goto("/console/quarantine/records/events/0/9003")
    yield "record"
    page.goto("/console/quarantine?reason=not_json")
    page.keyboard.press("r")
    page.wait_for_selector("#requeue[open]")
    yield "requeue"
    page.goto("/console/quarantine/requests")
    yield "requests"
    page.goto("/console/quarantine?since=2999-01-01T00:00")
    yield "nothing"
    page.goto("/console/audit")
    page.wait_for_selector("table.audit")
    yield "audit"


@pytest.mark.parametrize("theme", THEMES)
def test_no_page_has_a_serious_fault_of_accessibility(theme: str, person: People, tmp_path: Path) -> None:
    for size, name in ((WIDE, "wide"), (PHONE, "phone")):
        with person(theme=theme, size=size, scope="operate", name="otto") as page:
            for kind in visited(page):
                check_looks(page, f"{kind} {name}")
                file = f"{kind}-{name}-{theme}.png"
                picture(page, tmp_path / file, OF_DOCS.get(file))
