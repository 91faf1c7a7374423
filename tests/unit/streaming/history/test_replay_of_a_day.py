"""A day of card payments, decided live in batches of many sizes and again in slices of others.

The day is simulated at the size of the Fraud Detection Handbook's, about 9,600 payments of 5,000 customers.
`pytest tests/unit/streaming/history/test_replay_of_a_day.py --transactions tx_2018-04.parquet` takes the
first day of a file of the handbook's own instead.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pytest

from schemas.contract import load_contract
from schemas.spec import AgentSpec
from schemas.tables import HEADERS, UTC_MICROS
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import AgentLake
from streaming.delta.whole_tables import read_stored
from streaming.events.simulated_json import json_keys, json_lines
from streaming.events.simulator import Simulator, SimulatorSettings
from streaming.files.event_files import open_events
from streaming.history.replay import Replayer
from streaming.history.replay_runs import ReplaySpan, run_what_if
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.store.place import Place
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import TOPIC, agent, judge, without_broker
from streaming.versions.clients import Clients

PAYMENTS, SEED = 9_600, 11
DAY = datetime(2026, 5, 1, tzinfo=UTC)
SECONDS = 60.0


class Sent(NamedTuple):
    """One record, and when it comes to the topic, in µs since 1970."""

    arrives: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Day:
    """An agent that has lived through a day, and what it was sent."""

    settings: Settings
    spec: AgentSpec
    records: int

    def table(self, name: str) -> pl.DataFrame:
        rows = read_stored(self.settings.lake(self.spec.name) / name)
        assert rows is not None
        return pl.DataFrame(rows)


def simulated() -> Iterator[tuple[bytes, bytes]]:
    simulator = Simulator(SimulatorSettings(seed=SEED, malformed_share=0.002))
    block = simulator.block(PAYMENTS, DAY, DAY + timedelta(days=1))
    yield from zip(json_keys(block), json_lines(block), strict=True)


def first_day(path: Path) -> Iterator[tuple[bytes, bytes]]:
    contract = load_contract("handbook")
    rows = itertools.chain.from_iterable(
        zip(*chunk, strict=True) for chunk in open_events(path, contract).keyed()
    )
    first = ""
    for key, value in rows:
        date = json.loads(value)["TX_DATETIME"][:10]
        first = first or date
        if date != first:
            return
        yield key, value


def arriving(payments: Sequence[tuple[bytes, bytes]], time_field: str) -> list[Sent]:
    """Have records arrive as they happen, but for some that are late; some come again within the hour."""
    rng, moment, sent = random.Random(SEED), 0, list[Sent]()
    for key, value in payments:
        moment = event_time(value, time_field) or moment
        arrives = moment + (rng.randrange(7_200_000_000) if rng.random() < 0.03 else 0)
        sent.append(Sent(arrives, key, value))
        if rng.random() < 0.02:
            sent.append(Sent(arrives + rng.randrange(1_800_000_000), key, value))
    return sorted(sent)


def event_time(value: bytes, field: str) -> int | None:
    """Read it in µs since 1970; None from a malformed record."""
    with suppress(ValueError, KeyError, TypeError):
        moment = datetime.fromisoformat(json.loads(value)[field])
        return int(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)
    return None


def as_read(sent: Sequence[Sent], first_offset: int) -> pa.Table:
    count = len(sent)
    return pa.table(
        {
            "key": pa.array([each.key for each in sent], pa.binary()),
            "value": pa.array([each.value for each in sent], pa.binary()),
            "headers": pa.nulls(count, HEADERS),
            "topic": [TOPIC] * count,
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(first_offset, first_offset + count), pa.int64()),
            "timestamp": pa.array([each.arrives for each in sent], pa.int64()).cast(UTC_MICROS),
        }
    )


def run(settings: Settings, spec: AgentSpec, sent: Sequence[Sent], first: int, number: int) -> None:
    """Run an agent over records in batches of many sizes, and until no alert waits for the model."""
    sizes, place = random.Random(number), 0
    with (
        Clients(settings, "auto") as clients,
        open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients) as started,
    ):
        while place < len(sent):
            part = sent[place : place + sizes.randint(1, 1_500)]
            place, number, at = place + len(part), number + 1, first + place
            rows, end = as_read(part, at), {TOPIC: {"0": at + len(part)}}
            started.pipeline.process(lambda rows=rows: rows, "live", number, lambda end=end: end)
        lake = settings.lake(spec.name)
        wait_until(lambda: not read_status(AgentLake(lake, spec), None).late["pending"], SECONDS, "the model")


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Day]:
    """The model is asked within the batch until noon, and after the alert then; some answers are refused."""
    file = pytestconfig.getoption("--transactions")
    payments = list(simulated() if file is None else first_day(Path(file)))
    sent = arriving(payments, "event_time" if file is None else "TX_DATETIME")
    settings = Settings.load(tmp_path_factory.mktemp("home"), {})
    step = itertools.cycle([scripted.answer(), scripted.answer(severity="low"), scripted.refused()])
    with (
        scripted.scripted_llm(*itertools.islice(step, 10_000)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        without_broker(patch)

        def spec(mode: str, version: str) -> AgentSpec:
            topic: dict[str, Any] = {"contract": "handbook" if file else "simulator", "topic": TOPIC}
            llm = {"base_url": server.base_url, "mode": mode, "budget": {"calls_per_batch": 3}}
            profiles = {"block_rows": 512, "checkpoint_rows": 3_000}
            given = {"llm": llm, "profiles": profiles, "threshold": 0.97, "version": version}
            return agent(data_sources={"transactions": topic}, **given)

        noon = len(sent) // 2
        run(settings, spec("inline", "1.0.0"), sent[:noon], 0, 0)
        alerts = read_stored(settings.lake("tester") / "alerts")
        assert alerts is not None
        judge(PlacedAgent(settings, spec("inline", "1.0.0")), alerts["transaction_id"].to_pylist()[::2])
        afternoon = spec("deferred", "1.1.0")
        run(settings, afternoon, sent[noon:], noon, 1_000)
        yield Day(settings, afternoon, len(sent))


@pytest.mark.long
def test_the_day_holds_what_a_day_holds(day: Day) -> None:
    batches, alerts = day.table("batches"), day.table("alerts")
    assert batches["read"].sum() == day.records > 9_000
    assert batches["duplicates"].sum() > 100
    assert day.table("transactions")["late"].sum() > 100
    assert batches["read"].n_unique() > 8
    sources = Counter(alerts.select("spec_version", "revision", "classification_source").iter_rows())
    assert sources["1.0.0", 1, "llm"] > 10
    assert sources["1.1.0", 2, "llm"] > 10
    assert {"deferred", "refused"} <= set(alerts["fallback_reason"].drop_nulls())


@pytest.mark.long
@pytest.mark.parametrize("slice_rows", [313, 4_096, 100_000])
def test_a_day_is_decided_bit_for_bit_again_in_slices_of_other_sizes(day: Day, slice_rows: int) -> None:
    history = ReplaySpan().history(PlacedAgent(day.settings, day.spec))
    contract = AgentDefinition.of(day.spec).contract
    found = Replayer(
        day.settings, AgentDefinition.pinned(day.spec, contract), history, slice_rows=slice_rows
    ).exactly(history.whole)
    alerts = day.table("alerts")
    assert found.differences == ()
    assert found.rows == day.table("transactions").height
    assert found.alerts == alerts.filter(pl.col("revision") == 1).height > 100


def test_recorded_outcomes_and_fallbacks_are_those_of_the_same_alert_and_revision(day: Day) -> None:
    """Under the spec of the afternoon every alert of it has the label that its last revision has."""
    noon = day.table("batches").sort("next_sequence").filter(pl.col("pins").str.contains('"1.1.0"'))
    since = noon["first_sequence"][0]
    versions = [json.loads(each)["transactions"] for each in noon["versions"]]
    found = run_what_if(
        PlacedAgent(day.settings, day.spec), day.spec, ReplaySpan(from_version=versions[0] - 1)
    )
    published = day.table("alerts").filter(pl.coalesce("passed_by", "sequence") >= since)
    last = published.sort("revision").unique("alert_id", keep="last")
    assert (found.added, found.removed, found.kept) == (0, 0, last.height)
    assert all({label} == set(row) for flips in found.flips.values() for label, row in flips.items())
    replayed = pl.DataFrame(read_stored(Place.local(found.sandbox / "alerts"))).sort("alert_id")
    for name in ("classification", "severity", "classification_source", "model", "evidence"):
        assert replayed[name].to_list() == last.sort("alert_id")[name].to_list(), name


def test_labels_of_a_model_that_are_not_on_record_are_told(day: Day, tmp_path: Path) -> None:
    shutil.copytree(day.settings.home, tmp_path / "home")
    settings = Settings.load(tmp_path / "home", {})
    shutil.rmtree((settings.lake(day.spec.name) / "ledger").path)
    alerts, contract = day.table("alerts"), AgentDefinition.of(day.spec).contract
    history = ReplaySpan().history(PlacedAgent(settings, day.spec))
    found = Replayer(settings, AgentDefinition.pinned(day.spec, contract), history).exactly(history.whole)
    by_model = alerts.filter(pl.col("classification_source") == "llm")["alert_id"]
    assert {each.alert_id for each in found.differences} == set(by_model) != set()
    assert all(
        each.fields["severity"][1] is None and set(each.fields) == {"classification", "severity"}
        for each in found.differences
    )
