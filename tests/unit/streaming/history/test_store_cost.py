"""What docs/stores.md says that a store costs is what the arithmetic gives, and that what a batch commits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run import opening
from streaming.testing.live_lake import TOPIC, agent, events, records, without_broker
from streaming.versions.clients import Clients
from tests.store_cost import (
    AMAZON,
    AZURE,
    BYTES_PER_EVENT,
    COMMITS_PER_BATCH,
    StorePrices,
    request_rates,
    store_cost,
)

PAGE = Path(__file__).resolve().parents[4] / "docs" / "stores.md"
ROWS = 90


def line(prices: StorePrices, events: float, seconds: float) -> str:
    """A row of the page's table."""
    cost = store_cost(prices, events, seconds)
    name = prices.name.partition(",")[0]
    return (
        f"| {events:,.0f} | every {seconds:g} s | {name} | {cost.requests:,.0f} | "
        f"{cost.gigabytes:,.1f} | {cost.space:,.2f} |"
    )


@pytest.mark.parametrize("prices", [AMAZON, AZURE])
@pytest.mark.parametrize("events", [1e6, 1e9])
@pytest.mark.parametrize("seconds", [1, 10])
def test_the_page_says_what_the_arithmetic_gives(prices: StorePrices, events: float, seconds: float) -> None:
    assert line(prices, events, seconds) in PAGE.read_text(encoding="utf-8"), line(prices, events, seconds)


@pytest.mark.parametrize("seconds", [1, 10])
def test_the_page_says_how_many_requests_a_minute_brings(seconds: float) -> None:
    rates = request_rates(seconds)
    row = f"| every {seconds:g} s | {rates.writes:g} | {rates.reads:g} | {rates.lists:g} |"
    assert row in PAGE.read_text(encoding="utf-8"), row


@pytest.mark.parametrize("prices", [AMAZON, AZURE])
def test_the_page_says_which_prices_are_meant_and_from_when(prices: StorePrices) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"{prices.name} ({prices.as_of})" in text
    assert f"{BYTES_PER_EVENT:g} bytes" in text


def test_few_events_come_in_fewer_batches() -> None:
    assert store_cost(AMAZON, 100, 1).batches_per_day == 100
    assert store_cost(AMAZON, 1e6, 1).batches_per_day == 86_400
    idle = store_cost(AMAZON, 0, 1).requests
    often, seldom = (store_cost(AMAZON, 1e6, seconds).requests - idle for seconds in (1, 10))
    assert seldom == pytest.approx(often / 10)


def test_a_batch_with_alerts_commits_as_often_as_is_reckoned_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    settings, spec = Settings.load(tmp_path, {}), agent()
    stream = records(events(4 * ROWS))
    lake = Path(str(settings.lake(spec.name)))

    def commits() -> int:
        tables = [each for each in lake.iterdir() if (each / "_delta_log").is_dir()]
        return sum(DeltaTable(each).version() for each in tables)

    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, spec), "", clients) as started,
    ):
        found = []
        for number in range(4):
            before = commits()
            part = partial(pa.Table.slice, stream, number * ROWS, ROWS)
            end = partial(dict, {TOPIC: {"0": (number + 1) * ROWS}})
            closed = started.pipeline.process(part, "live", number, end)
            found.append((closed.row["alerts"] > 0, commits() - before))
    assert any(alerts for alerts, _ in found)
    assert {count for alerts, count in found if alerts} == {COMMITS_PER_BATCH}
