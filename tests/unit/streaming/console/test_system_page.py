"""The page of the system shows what the API says of the agent, also where there is nothing to say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.tables import BATCHES
from streaming.console.condition_words import condition_words
from streaming.console.step_chart import STEP_HEIGHT, step_chart
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.profiles.entity_buckets import BucketFacts
from streaming.run.executors import ExecutorWatch
from streaming.serve.system_figures import BatchFigures
from streaming.service.health import Condition, Health
from streaming.testing.api import ApiClient
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import BUSY_ALERTS, RETENTION, build_lake, spec_of
from tests.browser_session import HOSTILE, Texts, console_of, sign_in

SPEC = spec_of()
OPERATIONS = Path(__file__).resolve().parents[4] / "docs" / "operations.md"
STEPS = {"store": 0.25, "score": 0.5, "publish": 0.25}


def texts(client: ApiClient) -> str:
    answer = client.get("/console/system")
    assert answer.status_code == 200, answer.text
    found = Texts(answer.text)
    assert found.foreign == []
    return " ".join(" ".join(found.texts).split())


def one_more_batch(settings: Settings, **changes: Any) -> None:
    """Store a batch like the newest of a small lake but for `changes`."""
    place = settings.lake(SPEC.name) / "batches"
    stored = read_stored(place, BATCHES.names)
    assert stored is not None
    row = {**stored.to_pylist()[-1], "batch_id": stored.num_rows, **changes}
    table = LakeTable(place, BATCHES, "tester/epoch", RETENTION)
    table.claim(1 + table.epoch)
    table.append(pa.Table.from_pylist([row], schema=BATCHES), Stamp("tester/q", stored.num_rows))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(found, SPEC))
    return found


@pytest.fixture
def client(settings: Settings) -> Iterator[ApiClient]:
    with console_of(settings, SPEC) as asked:
        wait_until(lambda: asked.get("/readyz").status_code == 200, 60, "the alerts to be read")
        asked.headers.update(sign_in(asked, SPEC, "read"))
        yield asked


def test_the_page_has_what_the_api_says_of_the_lake(client: ApiClient) -> None:
    said, system = texts(client), client.get("/v1/system").json()
    assert "not running on this machine" in said
    assert "Nothing is known of an agent that does not run here" in said
    assert "All batches 600 600 0 0 0 0 40" in said
    assert system["lake"]["latency"]["alerts"] == BUSY_ALERTS
    assert "40 alerts of the newest batch," in said
    assert "No batch has said what its steps took." in said
    assert "a day 0 tokens 5,000,000 tokens 5,000,000 tokens" in said
    assert "How much waits is unknown: no broker answers this server." in said
    assert "Nothing is measured here" in said
    for each in system["lake"]["tables"]:
        assert f"{each['table']} {each['rows']:,} {each['files']} " in said
    assert system["lake"]["tables"][0]["table"] == "transactions"
    assert 'id="detail" class="card page" data-poll' in client.get("/console/system").text


def test_an_agent_that_runs_and_waits_says_what_for_and_what_to_do(
    settings: Settings, client: ApiClient
) -> None:
    with closing(Health(settings.health(SPEC.name))) as health:
        health.begins(Condition.MODEL_FAILING, "the key is refused")
        health.begins(Condition.BROKER_AWAY, HOSTILE)
        said, system = texts(client), client.get("/v1/system").json()
        begun = datetime.fromisoformat(system["running_since"])
        assert datetime.now(UTC) - begun < timedelta(minutes=1)
    assert "running since" in said
    assert [each["condition"] for each in system["conditions"]] == ["broker_away", "model_failing"]
    assert [each["waits"] for each in system["conditions"]] == [True, False]
    assert r"<script>alert(1)</script> \u202egro.live\u202c \x1b[31m" in said
    assert "see to the broker; the agent goes on where it was" in said
    assert "open or refused: the key is refused" in said
    assert "not running on this machine" in texts(client)


def test_executors_of_a_cluster_are_shown_where_there_is_one(settings: Settings, client: ApiClient) -> None:
    assert "of the Spark cluster" not in texts(client)
    file = settings.health(SPEC.name)
    with closing(Health(file)) as health:
        watched = (lambda: 3, lambda: None, health, file, lambda: None)
        ExecutorWatch(*watched).check()
        system = client.get("/v1/system").json()
        assert (system["executors"], system["buckets"]) == (3, None)
        assert "3 executors of the Spark cluster" in texts(client)
        assert "buckets" not in texts(client)
        held = BucketFacts(12, 4_000, 1_500, 14, 90_000, 300 << 20, 40 << 20)
        ExecutorWatch(*watched, facts=held).check()
        assert client.get("/v1/system").json()["buckets"] == vars(held)
        assert (
            "Executors hold 12 buckets of profiles: 90,000 entities, 300 MiB, the largest 40. The busiest "
            "had 1,500 of 4,000 rows of the newest batch. Built anew since the start: 14."
        ) in texts(client)


def test_steps_latency_and_budget_are_those_of_the_newest_batches(
    settings: Settings, client: ApiClient
) -> None:
    now = datetime.now(UTC)
    one_more_batch(
        settings, closed_at=now, durations=json.dumps(STEPS), input_tokens=1_500_000, output_tokens=500_000,
        quarantined=3,
    )  # fmt: skip
    lake = client.get("/v1/system").json()["lake"]
    assert [each["seconds"] for each in lake["batches"]] == [{}, STEPS]
    (budget,) = lake["budget"]
    assert (budget["spent"], budget["most"]) == (2_000_000, 5_000_000)
    assert datetime.fromisoformat(budget["until"]) - now < timedelta(days=1)
    said = texts(client)
    assert "a day 2,000,000 tokens 3,000,000 tokens" in said
    assert "score 0.250 s (50.0 %)" in said, said
    assert "Newest 2 1,200 1,200 3" in said


def test_a_lake_that_cannot_be_read_is_said_and_the_rest_is_shown(
    settings: Settings, client: ApiClient
) -> None:
    log = settings.lake(SPEC.name).path / "batches" / "_delta_log"
    (log / f"{len(list(log.glob('*.json'))):020}.json").write_text("torn", encoding="utf-8")
    with closing(Health(settings.health(SPEC.name))) as health:
        health.begins(Condition.STORE_AWAY, "nobody answers")
        said, system = texts(client), client.get("/v1/system").json()
    assert system["lake"] is None
    assert system["fault"]
    assert "The lake cannot be read" in said
    assert "store_away" in said
    assert "Tables" not in said


def test_an_agent_that_has_done_nothing_has_a_page(tmp_path: Path) -> None:
    with console_of(Settings.load(tmp_path / "home", {}), SPEC) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, 60, "the alerts to be read")
        sign_in(client, SPEC, "read")
        said = texts(client)
    for each in ("No batch was closed yet.", "There are no labels yet.", "The newest batches have raised no"):
        assert each in said


def test_parts_of_a_column_stand_upon_one_another() -> None:
    closed = datetime(2026, 5, 1, tzinfo=UTC)
    half = {step: seconds / 2 for step, seconds in STEPS.items()}
    batches = [
        BatchFigures(closed_at=closed, counts={}, seconds=STEPS),
        BatchFigures(closed_at=closed, counts={}, seconds=half),
    ]
    chart = step_chart(batches)
    assert chart is not None
    first, second = chart.parts[: len(STEPS)], chart.parts[len(STEPS) :]
    for column in (first, second):
        for below, above in pairwise(column):
            assert above.y + above.height == pytest.approx(below.y, abs=0.02)
    tops = [STEP_HEIGHT - column[-1].y for column in (first, second)]
    floor = STEP_HEIGHT - (first[0].y + first[0].height)
    assert (tops[0] - floor) == pytest.approx(2 * (tops[1] - floor), abs=0.1)
    assert sum(each.share for each in chart.steps) == pytest.approx(1.0)
    assert step_chart([]) is None


def test_words_of_conditions_are_those_of_the_docs() -> None:
    table, _, _ = OPERATIONS.read_text(encoding="utf-8").partition("## The log")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", table, re.M)
    plain = {name: [re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", each) for each in both] for name, *both in rows}
    words = condition_words()
    assert set(words) == set(Condition)
    for name, found in words.items():
        assert [found.meaning, found.remedy] == plain[name]
