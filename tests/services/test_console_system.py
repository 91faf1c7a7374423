"""The page of the system in a real Chromium: it keeps itself up to date, and everybody can read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.tables import BATCHES
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.health import Condition, Health
from streaming.testing.small_lake import RETENTION, build_lake, spec_of
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
)

SPEC = spec_of()
STEPS = {
    "open": 0.02, "take": 0.31, "decode": 0.09, "store": 0.22, "score": 0.4, "triage": 0.05, "alert": 0.12,
    "publish": 0.08, "close": 0.07,
}  # fmt: skip


def batches(settings: Settings, count: int) -> None:
    """Store batches as they are closed every few seconds, each slower or faster than the one before."""
    place = settings.lake(SPEC.name) / "batches"
    stored = read_stored(place, BATCHES.names)
    assert stored is not None
    last, now = stored.to_pylist()[-1], datetime.now(UTC)
    rows = [
        {
            **last, "batch_id": 1 + number, "closed_at": now - timedelta(seconds=4 * (count - number)),
            "durations": json.dumps({step: took * (1 + number % 5 / 4) for step, took in STEPS.items()}),
            "offsets": json.dumps({"events": {"0": 11_780 + 7 * number, "1": 12_020 + 6 * number}}),
            "alerts": 0, "input_tokens": 900, "output_tokens": 100, "cost_usd": 0.0002,
        }
        for number in range(count)
    ]  # fmt: skip
    table = LakeTable(place, BATCHES, "tester/epoch", RETENTION)
    table.claim(1 + table.epoch)
    table.append(pa.Table.from_pylist(rows, schema=BATCHES), Stamp("tester/q", 1))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = Settings.load(tmp_path_factory.mktemp("console") / "home", {})
    build_lake(PlacedAgent(settings, SPEC))
    batches(settings, 39)
    with house_of(settings, SPEC) as found:
        yield found


def test_what_the_agent_waits_for_appears_and_goes_without_a_reload(house: House, person: People) -> None:
    with person() as page:
        page.goto("/console/system")
        page.evaluate("window.kept = true")
        assert "not running on this machine" in page.inner_text("#detail")
        with closing(Health(house.settings.health(SPEC.name))) as health:
            health.begins(Condition.BROKER_AWAY, HOSTILE)
            page.wait_for_selector(".warnings .waits >> text=window.hurt", timeout=40_000)
            shown = page.inner_text(".warnings")
            assert "see to the broker" in shown
            assert r"\u202egro.live\u202c\x1b[31m{{7*7}}" in shown
            assert page.query_selector(".warnings script, .warnings img") is None
        page.wait_for_selector(".warnings", state="detached", timeout=40_000)
        assert page.evaluate("window.kept") is True


@pytest.mark.parametrize("theme", THEMES)
def test_everybody_can_read_it(theme: str, house: House, person: People, tmp_path: Path) -> None:
    with closing(Health(house.settings.health(SPEC.name))) as health:
        health.begins(Condition.BROKER_AWAY, "no broker answers at kafka.example:9092")
        health.begins(Condition.RECORDS_REJECTED, "31 % of the newest records: bad_amount")
        for size, name in ((WIDE, "wide"), (PHONE, "phone")):
            with person(theme=theme, size=size) as page:
                page.goto("/console/system")
                page.wait_for_selector(".plot.steps rect")
                check_looks(page, f"{name} {theme}")
                of_docs = "system" if (name, theme) == ("wide", "light") else None
                page.set_viewport_size({**size, "height": 1_080})
                picture(page, tmp_path / f"system-{name}-{theme}.png", of_docs)
