"""Records out of the quarantine: as if they arrived now, once, whatever crashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from schemas.contract import EventContract
from schemas.tables import UTC_MICROS
from streaming.batch.pipeline import Step
from streaming.delta.stored import read_stored
from streaming.opening import Agent, Hooks, open_agent
from streaming.quarantine import choosing
from streaming.quarantine.choosing import slices_of
from streaming.quarantine.lane import RequeueMark
from streaming.quarantine.requests import RequestTable, read_requests, requeues_path
from streaming.quarantine.waiting import waiting
from streaming.settings import Settings
from streaming.versions.clients import Clients
from tests.unit.live_lake import CONTRACT, DAY, TOPIC, agent, events, frame, records, without_broker

NOW = DAY + timedelta(hours=10)
ROWS = 90
TOLD = events(3 * ROWS)
# What a new version of the producer sends: the amount is in another field.
MOVED = [
    {**{k: v for k, v in each.items() if k != "amount"}, "value": each["amount"]}
    for each in TOLD[ROWS : 2 * ROWS]
]
MOVED[7] = {**MOVED[7], "value": "much"}
CORRECTED = CONTRACT.model_copy(update={"amount": CONTRACT.amount.model_copy(update={"field": "value"})})
SAME = ["sequence", *CONTRACT.arrow_schema().names, "late"]
ALERT = [
    "outbox_seq",
    "alert_id",
    "transaction_id",
    "sequence",
    "score",
    "log_odds",
    "reasons",
    "rules",
    "passed_by",
]


class CrashError(Exception):
    pass


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    without_broker(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(tmp_path / "home", {})


@contextmanager
def running(settings: Settings, at: Step | None = None) -> Iterator[Agent]:
    def reached(step: Step) -> None:
        if step is at:
            raise CrashError(step)

    with (
        Clients(settings, "none") as clients,
        open_agent(settings, agent(), "127.0.0.1:1", clients, Hooks(reached)) as started,
    ):
        yield started


def feed(started: Agent, batch: int, part: pa.Table, **how: Any) -> None:
    end = {TOPIC: {"0": int(part["offset"][-1].as_py()) + 1}}
    started.pipeline.process(lambda: part, "live", batch, lambda: end, **how)


def two_batches(started: Agent) -> None:
    """One that fits the contract, then one that does not."""
    feed(started, 0, records(TOLD[:ROWS]))
    feed(started, 1, records(MOVED, ROWS))


def table(settings: Settings, name: str, order: str | list[str]) -> pl.DataFrame:
    return frame(read_stored(settings.lake("tester") / name)).sort(order)


def waits(settings: Settings) -> pl.DataFrame:
    lake, path = settings.lake("tester"), requeues_path(settings, agent())
    return waiting(lake / "quarantine", path, read_requests(path))


def ask(settings: Settings, chosen: pl.DataFrame, contract: EventContract | None = CORRECTED) -> str:
    said = None if contract is None else contract.model_dump_json()
    requests = RequestTable(requeues_path(settings, agent()), agent().replay_horizon)
    return requests.ask(slices_of(chosen), said, "anna", "the producer was changed")


def take_all(started: Agent, moment: datetime = NOW) -> int:
    taken = 0
    while started.requested.waits():
        taken += started.requested.take(moment) is not None
    return taken


def requeued(home: Path, chosen: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows) -> Settings:
    settings = Settings.load(home, {})
    with running(settings) as started:
        two_batches(started)
        ask(settings, chosen(waits(settings)))
        assert take_all(started) > 0
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    return settings


def at_moment(part: pa.Table, moment: datetime) -> pa.Table:
    place = part.schema.get_field_index("timestamp")
    stamps = pa.repeat(pa.scalar(moment, UTC_MICROS), part.num_rows)
    return part.set_column(place, "timestamp", stamps)


def test_the_state_is_that_of_the_same_records_arriving_then(settings: Settings, tmp_path: Path) -> None:
    requeued(settings.home)
    other = Settings.load(tmp_path / "other", {})
    with running(other) as started:
        feed(started, 0, records(TOLD[:ROWS]))
        feed(started, 1, at_moment(records(MOVED, ROWS), NOW), contract=CORRECTED)
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    both = [table(each, "transactions", "sequence").select(SAME) for each in (settings, other)]
    assert both[0].equals(both[1])
    assert both[0].height == 3 * ROWS - 1
    alerts = [table(each, "alerts", "outbox_seq").select(ALERT) for each in (settings, other)]
    assert alerts[0].equals(alerts[1])
    assert set(alerts[0]["sequence"]) & set(range(ROWS, 2 * ROWS - 1)), "some of them were alerted"
    manifests = [sorted(each.profiles("tester").glob("*/manifest.json")) for each in (settings, other)]
    kept = [[json.loads(path.read_text()) for path in paths] for paths in manifests]
    assert kept[0] == kept[1] != []


def test_what_fails_again_says_why_and_how_often(settings: Settings) -> None:
    requeued(settings.home)
    (row,) = waits(settings).to_dicts()
    assert (row["offset"], row["reason"], row["times"]) == (ROWS + 7, "mistyped_field", 2)
    assert row["arrived"] == datetime.fromisoformat(MOVED[7]["event_time"])
    assert row["rejected"] == NOW
    (request,) = read_requests(requeues_path(settings, agent()))
    assert (request.state, request.records, request.slices) == ("done", ROWS, (ROWS,))


def test_the_contract_the_moment_and_the_request_are_pinned(settings: Settings) -> None:
    requeued(settings.home)
    (row,) = (
        table(settings, "batches", "batch_id")
        .filter(pl.col("query_id").str.starts_with("requeue-"))
        .to_dicts()
    )
    pins = json.loads(row["pins"])
    assert EventContract.model_validate(pins["contract"]) == CORRECTED
    assert pins["contract_digest"] == CORRECTED.digest != CONTRACT.digest
    mark = RequeueMark.of(pins)
    assert mark is not None
    assert (mark.slice, mark.slices, mark.records) == (0, 1, ROWS)
    assert mark.moment == int(NOW.timestamp() * 1_000_000)
    assert (row["read"], row["stored"], row["quarantined"]) == (ROWS, ROWS - 1, 1)
    assert json.loads(row["rejected"]) == {"mistyped_field": 1}
    shares = table(settings, "monitoring", "at").to_dicts()
    assert [each["rejected_share"] for each in shares] == [0.0, 1.0, round(1 / ROWS, 6), 0.0]
    assert json.loads(shares[1]["rejected_by_reason"]) == {"missing_field": 1.0}


@pytest.mark.parametrize(
    "step", [Step.TAKE, Step.DECODE, Step.STORE, Step.SCORE, Step.ALERT, Step.PUBLISH, Step.CLOSE]
)
@pytest.mark.parametrize("limit", [10_000, 40])
def test_a_request_is_taken_once_whatever_crashes(
    settings: Settings, tmp_path: Path, step: Step, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "SLICE_RECORDS", limit)
    whole = requeued(tmp_path / "whole")
    with running(settings) as started:
        two_batches(started)
        ask(settings, waits(settings))
    for _ in range(5):
        with pytest.raises(CrashError), running(settings, step) as started:
            take_all(started)
            raise CrashError("nothing was left")
    with running(settings) as started:
        take_all(started)
        feed(started, 2, records(TOLD[2 * ROWS :], 2 * ROWS))
    for name, order, columns in (("transactions", "sequence", SAME), ("alerts", "outbox_seq", ALERT)):
        assert table(settings, name, order).select(columns).equals(table(whole, name, order).select(columns))
    assert table(settings, "quarantine", "offset").height == table(whole, "quarantine", "offset").height
    (request,) = read_requests(requeues_path(settings, agent()))
    assert request.state == "done"
