"""The console beside an agent that runs: alerts come by themselves, a label counts in the next batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streaming.home.settings import Settings
from streaming.testing.drivers import wait_until
from tests.console_people import house_of, people_of, said, started_browser
from tests.waiting_agent import WaitingAgent

SECONDS = 120.0


@pytest.fixture
def agent(
    settings: Settings,
    bootstrap: str,
    tmp_path: Path,
    topic: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WaitingAgent]:
    """An agent that runs and has decided a first round of payments; the server asks its broker."""
    monkeypatch.setenv("FLAGSTREAM_KAFKA", bootstrap)
    found = WaitingAgent(settings, tmp_path / "spec", topic, bootstrap)
    try:
        found.stream.send(400)
        found.start()
        wait_until(found.has_stored, SECONDS, "the first payments to be stored")
        yield found
    finally:
        found.drivers.end()


@pytest.mark.timeout(600)
def test_a_label_by_keyboard_counts_in_the_running_agents_next_batch(
    settings: Settings, agent: WaitingAgent
) -> None:
    with (
        house_of(settings, agent.spec) as house,
        started_browser() as browser,
        people_of(house, browser)() as page,
    ):
        page.goto("/console/alerts")
        page.wait_for_selector("#queue .row")
        page.evaluate("window.kept = true")
        before = count(page)
        agent.stream.send(400)
        wait_until(lambda: count(page) > before, SECONDS, "alerts to come by themselves")
        assert page.evaluate("window.kept") is True

        page.keyboard.press("j")
        page.wait_for_selector("#preview #detail")
        transaction = page.get_attribute("#detail", "data-transaction")
        page.keyboard.press("f")
        said(page, "Labelled fraud")
        (label,) = [row for row in house.rows("labels") if row["transaction_id"] == transaction]
        assert (label["is_fraud"], label["decided_by"]) == (True, "token:anna")
        assert {row["labels_through"] for row in house.rows("batches")} == {0}

        def knows() -> bool:
            """Whether a batch has pinned the label."""
            agent.stream.send(40)
            through = max(row["labels_through"] for row in house.rows("batches"))
            return bool(through > label["label_sequence"])

        wait_until(knows, SECONDS, "a batch that knows the label")
        wait_until(agent.has_stored, SECONDS, "everything to be stored")
        check_system(page, len(agent.stream.sent_ids))


def check_system(page: Any, stored: int) -> None:
    """See that the page of the system knows the agent that runs, and how far it is on its topic."""
    page.goto("/console/system")
    page.wait_for_selector("#detail .head >> text=running since")
    shown = page.inner_text("#detail")
    assert "Nothing." in shown
    assert f"{stored:,}" in shown
    lags = page.locator("div[aria-label='Lag by partition'] tbody tr td:last-child").all_inner_texts()
    assert len(lags) == 2
    assert all(each == "0" for each in lags)


def count(page: Any) -> int:
    """How many alerts the page says there are."""
    return int(page.text_content(".list h1").split()[0].replace(",", ""))
