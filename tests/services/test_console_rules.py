"""Rules and versions in a real Chromium: edits are tried, versions replayed, promoted and rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.label import GIVEN
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.book import LabelBook
from streaming.testing.live_lake import LARGE, SILENT, agent, events, run_live, without_broker
from streaming.versions.moving import complete
from streaming.versions.registry import Author, SpecRegistry
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

PAYMENTS = 8_000  # a minute apart
EASY = {"least_labels": 1, "maturity": "0s", "alerts_tolerance": 10}
MANY_LINES = "memo = 'nobody\nwrites that'\n  and amount > 1"
ODD = {"name": "odd", "when": MANY_LINES, "severity": "low", "reason": HOSTILE}
SPEC = complete(agent(promotion=EASY, threshold=0.985, rules=[LARGE, SILENT, ODD]))
STRICTER = complete(agent(promotion=EASY, threshold=0.99, rules=[LARGE, SILENT, ODD], version="1.1.0"))
LONG_MILLISECONDS = 120_000.0


def labelled(settings: Settings) -> None:
    """Label two alerts in three by their amount, and some payments that nobody was alerted to."""
    placed = PlacedAgent(settings, SPEC)
    stored = read_stored(placed.lake / "alerts", ["transaction_id", "amount"])
    assert stored is not None
    alerts = sorted({(row["transaction_id"], row["amount"]) for row in stored.to_pylist()})
    known = {each: amount > 220 for number, (each, amount) in enumerate(alerts) if number % 3}
    alerted = {each for each, _ in alerts}
    known |= {each["tx_id"]: True for each in events(PAYMENTS)[500::900] if each["tx_id"] not in alerted}
    rows = [
        {"transaction_id": each, "is_fraud": is_fraud, "decided_by": "bank", "source_position": place}
        for place, (each, is_fraud) in enumerate(known.items())
    ]
    book = LabelBook(placed.lake / "labels", retention=SPEC.replay_horizon)
    book.record(pa.Table.from_pylist(rows, schema=GIVEN), source="test")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = Settings.load(tmp_path_factory.mktemp("console") / "home", {})
    placed = PlacedAgent(settings, SPEC)
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(placed, events(PAYMENTS), rows=1_000)
    labelled(settings)
    for each in (SPEC, STRICTER):
        SpecRegistry(placed).add(each, Author("anna", f"adds {each.version}"))
    with house_of(settings, SPEC) as found:
        yield found


def done(page: Any) -> None:
    """Wait until the what-if of this page has its report, which comes without a reload."""
    page.wait_for_url("**/console/what-ifs/*")
    page.evaluate("window.kept = true")
    page.wait_for_selector("#job:not([data-running])", timeout=LONG_MILLISECONDS)
    assert page.evaluate("window.kept") is True
    assert page.text_content("#job .tag") == "done"


def test_an_edit_is_tried_and_says_what_money_it_moves(person: People) -> None:
    with person("olga", scope="operate") as page:
        page.goto("/console/rules")
        page.keyboard.press("t")
        page.wait_for_selector("#what-if [role=alert] >> text=Change something first")
        page.fill("#threshold", "none")
        page.click("[data-do=what-if]")
        page.wait_for_selector("#what-if [role=alert] >> text=expected a number")
        page.fill("#threshold", "0.995")
        page.uncheck("[data-rule='1'] [name=on]")
        page.fill("[data-rule='0'] [data-where=when]", "amount > 400")
        page.select_option("[data-rule='0'] [name=severity]", "critical")
        page.click("[data-do=what-if]")
        done(page)
        shown = page.inner_text("#job")
        for each in ("threshold", "rules.large.when", "rules.large.severity", "rules.silent"):
            assert each in shown
        assert "Fewer alerts" in shown
        page.click("#job [aria-label='Fewer alerts'] tbody a >> nth=0")
        page.wait_for_url("**/console/alerts/*")


def test_a_rule_of_several_lines_stays_as_it_is_and_enter_tries(person: People) -> None:
    with person("olga", scope="operate") as page:
        page.goto("/console/rules")
        place = "[data-rule='2'] [data-where=when]"
        assert page.input_value(place) == MANY_LINES
        page.fill("#threshold", "0.9850")
        page.press("#threshold", "Enter")
        page.wait_for_selector("#what-if [role=alert] >> text=Change something first")
        page.fill(place, "")
        page.press("#threshold", "Enter")
        assert page.evaluate("document.activeElement.name") == "condition", "what is missing is asked for"
        page.fill(place, MANY_LINES + " or amount > 900000")
        page.press("#threshold", "Enter")
        done(page)
        assert page.locator("[aria-label='Differences of the spec'] tbody tr").count() == 1


def test_a_what_if_is_followed_though_the_server_is_away_for_a_while(person: People) -> None:
    with person("olga", scope="operate") as page:
        page.goto("/console/rules")
        page.fill("#threshold", "0.991")
        missed = []

        def fail(route: Any) -> None:
            missed.append(route)
            route.abort() if len(missed) % 2 else route.fulfill(status=200, body="<p>another page</p>")

        page.press("#threshold", "Enter")
        page.wait_for_url("**/console/what-ifs/*")
        page.wait_for_selector("#job[data-running]")
        page.route("**/console/what-ifs/*", fail)
        page.wait_for_selector("#away:visible")
        assert "What would differ" in page.inner_text("#job")
        page.unroute("**/console/what-ifs/*")
        done(page)
        page.wait_for_selector("#away", state="hidden")


def test_a_condition_that_cannot_be_used_is_explained_where_it_stands(person: People) -> None:
    with person("olga", scope="operate") as page:
        page.goto("/console/rules")
        page.fill("[data-rule='0'] [data-where=when]", "no_such_column > 1")
        page.click("[data-do=what-if]")
        page.wait_for_selector("#what-if [role=alert]:has-text('no_such_column')")
        page.fill("[data-rule='0'] [data-where=when]", "amount >")
        page.click("[data-do=what-if]")
        page.wait_for_selector("#what-if [role=alert]:has-text('rules.0.when')")
        assert page.url.endswith("/console/rules")


def test_missed_frauds_get_their_scores(person: People) -> None:
    with person("olga", scope="operate") as page:
        page.goto("/console/rules")
        page.keyboard.press("w")
        done(page)
        page.keyboard.press("u")
        page.wait_for_url("**/console/rules")
        assert "score too low by" in page.inner_text("main")


def test_a_version_is_replayed_promoted_and_rolled_back(house: House, person: People) -> None:
    with person("olga", scope="operate") as page:
        page.goto("/console/versions/1.1.0")
        page.keyboard.press("p")
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('#ask').open"), "nothing is promoted without a word"
        page.fill("#ask-text", "fewer false alarms")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]:visible >> text=no report of version 1.1.0")
        assert page.locator("[role=alert]:visible p").count() > 1, "each reason is a paragraph"
        page.keyboard.press("t")
        done(page)
        page.goto("/console/versions#stale")
        with person("otto", scope="operate") as stale:
            stale.goto("/console/versions")
            page.keyboard.press("p")
            page.fill("#ask-text", "fewer false alarms")
            page.keyboard.press("Enter")
            page.wait_for_selector("tbody .stage-shadow")
            stale.keyboard.press("p")
            stale.fill("#ask-text", "fewer false alarms")
            stale.keyboard.press("Enter")
            stale.wait_for_selector(
                "[role=alert]:visible >> text=is in stage shadow, which is not before shadow"
            )
        said(page, "1.1.0 is shadow now.")
        assert page.text_content("tbody .stage-shadow") == "shadow"
        page.keyboard.press("b")
        page.fill("#ask-text", "not yet")
        page.keyboard.press("Enter")
        said(page, "1.1.0 is sandbox now.")
    moves = [(row["event"], row["who"], row["why"]) for row in house.rows("specs") if row["stage"]]
    assert ("promoted", "token:olga", "fewer false alarms") in moves
    assert ("rolled_back", "token:olga", "not yet") in moves


def test_a_what_if_is_stopped(person: People) -> None:
    with person("olga", scope="operate") as page:
        page.goto("/console/rules")
        page.fill("#threshold", "0.5")
        page.click("[data-do=what-if]")
        page.wait_for_url("**/console/what-ifs/*")
        page.keyboard.press("s")
        page.wait_for_selector("#job:not([data-running])", timeout=LONG_MILLISECONDS)
        # It may have been done before it was stopped; either way nothing runs any more.
        assert page.text_content("#job .tag") in {"stopped", "done"}


@pytest.mark.parametrize("theme", THEMES)
def test_everybody_can_read_them(theme: str, person: People, tmp_path: Path) -> None:
    for size, name in ((WIDE, "wide"), (PHONE, "phone")):
        with person("olga", theme=theme, size=size, scope="operate") as page:
            page.goto("/console/what-ifs")
            jobs = [each.get_attribute("href") for each in page.query_selector_all("tbody a")]
            places = {
                "rules": "/console/rules?days=7", "what-ifs": "/console/what-ifs", "what-if": jobs[-1],
                "versions": "/console/versions", "version": "/console/versions/1.1.0",
            }  # fmt: skip
            for kind, path in places.items():
                page.goto(path)
                for each in page.query_selector_all("details > summary"):
                    each.click()
                assert r"\u202egro.live" in page.inner_text("main") or kind != "version"
                check_looks(page, f"{kind} {name} {theme}")
                of_docs = kind if (name, theme, kind) in OF_DOCS else None
                page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = false)")
                page.set_viewport_size({**size, "height": 1_000})
                picture(page, tmp_path / f"{kind}-{name}-{theme}.png", of_docs)
                page.set_viewport_size(size)


OF_DOCS = {("wide", "light", "rules"), ("wide", "light", "what-if"), ("wide", "dark", "versions")}
