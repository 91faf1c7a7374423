"""Hundreds of cases in a real Chromium: all of a list are selected, changed in one commit, and taken back."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from schemas.alert import ALERTS
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import RETENTION, build_lake, spec_of
from tests.console_people import House, house_of, people_of, said, started_browser

SPEC = spec_of(cases={"incidents": {"factor": 1_000}})  # they are cases of their own
CASES = 500


def alerts_of_many(settings: Settings, count: int) -> None:
    """Store alerts of so many customers, each of whom so gets a case of low severity."""
    place = settings.lake(SPEC.name) / "alerts"
    stored = read_stored(place, ALERTS.names)
    assert stored is not None
    first = stored.num_rows
    (newest,) = stored.filter(pc.equal(stored["outbox_seq"], first - 1)).to_pylist()
    rows = [
        {
            **newest, "alert_id": hashlib.sha256(str(number).encode()).hexdigest()[:32],
            "outbox_seq": number, "transaction_id": f"many-{number}", "severity": "low",
            "entities": [("customer", f"many-{number}"), ("terminal", f"of-many-{number}")],
        }
        for number in range(first, first + count)
    ]  # fmt: skip
    table = LakeTable(place, ALERTS, "tester/epoch", RETENTION)
    table.claim(1 + table.epoch)
    table.append(pa.Table.from_pylist(rows, schema=ALERTS), Stamp("tester/q", first))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = Settings.load(tmp_path_factory.mktemp("console") / "home", {})
    build_lake(PlacedAgent(settings, SPEC))
    alerts_of_many(settings, CASES)
    with house_of(settings, SPEC) as found:
        yield found


@pytest.fixture
def page(house: House) -> Iterator[Any]:
    """Cases of low severity, all of which are selected."""
    with started_browser() as browser, people_of(house, browser)() as found:
        found.goto("/console/cases?severity=low")
        found.wait_for_selector("#queue .row")
        yield found


def select_all(page: Any) -> None:
    page.keyboard.press("j")
    page.wait_for_selector("#preview #detail")
    page.keyboard.press("x")
    page.click(f"#bulk >> text=All {CASES} of this list")
    page.wait_for_selector(f"#bulk-count >> text={CASES} selected")


def events(house: House) -> Counter[str]:
    """How many cases of the many each thing has happened to."""
    rows = house.rows("case_events")
    many = {row["case_id"] for row in rows if (row["transaction_id"] or "").startswith("many-")}
    assert len(many) == CASES
    pairs = {(row["event"], row["case_id"]) for row in rows if row["case_id"] in many}
    return Counter(event for event, _ in pairs)


@pytest.mark.timeout(300)
def test_all_cases_of_a_list_are_changed_at_once_taken_back_and_labelled(house: House, page: Any) -> None:
    assert page.text_content(".list h1") == f"{CASES} cases"
    assert len(page.query_selector_all("#queue .row")) < CASES

    select_all(page)
    page.click("#bulk [data-act=assign]")
    page.fill("#ask-text", "token:bert")
    page.keyboard.press("Enter")
    said(page, f"{CASES} cases assigned")
    assert events(house)["assigned"] == CASES
    assert len({row["at"] for row in house.rows("case_events") if row["event"] == "assigned"}) == 1
    page.keyboard.press("z")
    said(page, "taken back")
    assert events(house)["undone"] == CASES

    page.goto("/console/cases?severity=low&assignee=-")
    page.wait_for_selector("#queue .row")
    select_all(page)
    page.click("#bulk [data-reason=fraud]")
    page.wait_for_selector(f"#ask-title >> text=Close {CASES} cases as fraud")
    page.fill("#ask-text", "one attack")
    page.keyboard.press("Enter")
    said(page, f"{CASES} cases closed as fraud")
    page.wait_for_selector("text=Nothing is waiting here.")
    assert events(house)["closed"] == CASES
    labels = [row for row in house.rows("labels") if row["transaction_id"].startswith("many-")]
    assert len(labels) == CASES
    assert {(row["is_fraud"], row["decided_by"]) for row in labels} == {(True, "token:anna")}
