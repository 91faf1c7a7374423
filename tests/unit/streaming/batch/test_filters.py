"""Filters in an agent: what is left out is counted, once, and changes nothing else."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schemas.spec import AgentSpec
from streaming.batch.closed_batches import unbalanced
from streaming.batch.steps import BatchStep
from streaming.events.record_table import record_table
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import CONTRACT, TOPIC, agent, events, frame, without_broker
from streaming.testing.trial import Trial, trial
from streaming.versions.clients import Clients

DEBEZIUM: dict[str, Any] = {
    "name": "ledger",
    "transaction_id": {"field": "payload.after.id", "type": "integer"},
    "event_time": {"field": "payload.after.created_at", "format": "epoch", "unit": "us"},
    "amount": {"field": "payload.after.amount"},
    "currency": {"field": "payload.after.ccy"},
    "entities": {"card": {"field": "payload.after.card_id", "type": "integer"}},
    "where": "payload.op = 'c'",
}
FILTERED = {**CONTRACT.model_dump(mode="json"), "where": "kind = 'sale'"}


def under(folder: Path, contract: dict[str, Any], **changes: Any) -> AgentSpec:
    """Return a spec of an agent that reads under a contract."""
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(contract), encoding="utf-8")
    return agent(data_sources={"transactions": {"contract": str(path), "topic": "events"}}, **changes)


def row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "created_at": 1_764_331_200_000_000,
        "amount": 13.08,
        "ccy": "EUR",
        "card_id": 7,
    }


def test_of_a_change_stream_new_rows_alone_are_payments(tmp_path: Path) -> None:
    changes: list[Any] = [
        {"payload": {"op": "u", "before": {"id": 42}, "after": row(42)}},
        {"payload": {"op": "r", "before": None, "after": row(41)}},
        {"payload": {"op": "d", "before": {"id": 42}, "after": None}},
        {"payload": {"op": "c", "before": None, "after": row(43)}},
    ]
    spec = under(tmp_path, DEBEZIUM, rules=[])
    with trial(tmp_path, spec) as tried:
        tried.send([*changes[:3], None, changes[3]])
        batch = tried.stored("batches", "next_sequence").to_pylist()[0]
        assert tried.rejected == []
        assert tried.stored("transactions", "sequence")["transaction_id"].to_pylist() == ["43"]
        assert (batch["read"], batch["stored"], batch["filtered"]) == (5, 1, 4)
        assert json.loads(batch["filtered_by_reason"]) == {"tombstone": 1, "where": 3}
        assert tried.replay().differences == ()
    status = read_status(PlacedAgent(tried.settings, spec), None)
    assert status.balanced
    assert status.totals["filtered"] == 4
    assert status.filtered_reasons == {"where": 3, "tombstone": 1}


def mixed(seed: int, count: int = 150) -> list[dict[str, Any] | bytes | None]:
    """Payments among what nobody wants, some of them sent twice, some of them broken."""
    draw, found = random.Random(seed), list[dict[str, Any] | bytes | None]()
    for payment in events(count, seed):
        found += draw.choice([[], [], [None], [{"kind": "refund"}], [{**payment, "kind": 5}], [b"{"]])
        found += [{**payment, "kind": "sale"}] * draw.choice([1, 1, 1, 2])
        found += draw.choice([[], [], [{"kind": "sale", "tx_id": "x"}]])
    return found


def counted(tried: Trial) -> tuple[int, dict[str, int]]:
    """Check that all batches balance; return what they left out, and why."""
    batches = frame(tried.stored("batches", "next_sequence"))
    assert unbalanced(batches) == 0
    status = read_status(PlacedAgent(tried.settings, tried.spec), None)
    return int(batches["filtered"].sum()), status.filtered_reasons


def rows_of(tried: Trial) -> list[dict[str, Any]]:
    places = ["offset", "kafka_timestamp", "batch_id", "query_id", "late"]
    found: list[dict[str, Any]] = tried.stored("transactions", "sequence").drop_columns(places).to_pylist()
    return found


@pytest.mark.long
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # whole batches take too long to shrink
)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 90), min_size=1, max_size=4))
def test_however_a_stream_is_cut_its_filter_leaves_out_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int]
) -> None:
    stream, folder = mixed(seed), tmp_path_factory.mktemp("cut")
    wanted = [each for each in stream if isinstance(each, dict) and each["kind"] == "sale"]
    left_out = sum(each is None or (isinstance(each, dict) and each["kind"] != "sale") for each in stream)
    with trial(folder / "plain", agent()) as plain:
        plain.send(wanted)
    with trial(folder / "cut", under(folder, FILTERED)) as tried:
        begun = 0
        for end in [*sorted(cuts), len(stream)]:
            tried.send(stream[begun:end])
            begun = max(begun, end)
        found, reasons = counted(tried)
        assert found == sum(reasons.values()) == left_out
        assert rows_of(tried) == rows_of(plain)
        assert [each["score"] for each in tried.alerts] == [each["score"] for each in plain.alerts]
        assert tried.replay().differences == ()


class _EndedError(Exception):
    """The process is gone."""


def attempt(settings: Settings, spec: AgentSpec, records: pa.Table, ended: BatchStep | None) -> None:
    def reached(step: BatchStep) -> None:
        if step is ended:
            raise _EndedError

    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients, Hooks(reached)) as started,
    ):
        offsets = {TOPIC: {"0": records.num_rows}}
        started.pipeline.process(lambda: records, "trial", 0, lambda: offsets)


@pytest.mark.long
@pytest.mark.parametrize("ended", [BatchStep.DECODE, BatchStep.STORE, BatchStep.ALERT, BatchStep.PUBLISH])
def test_a_batch_attempted_again_counts_what_it_left_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: BatchStep
) -> None:
    without_broker(monkeypatch)
    stream = mixed(5)
    values = [json.dumps(each).encode() if isinstance(each, dict) else each for each in stream]
    records = record_table([None] * len(values), values, topic=TOPIC, first=0, sent_at=datetime.now(UTC))
    spec, settings = under(tmp_path, FILTERED), Settings.load(tmp_path, {})
    with pytest.raises(_EndedError):
        attempt(settings, spec, records, ended)
    attempt(settings, spec, records, None)
    with trial(tmp_path, spec) as tried:
        found, reasons = counted(tried)
        assert tried.stored("batches", "next_sequence").num_rows == 1
        assert reasons.keys() == {"where", "where_unknown", "tombstone"}
        assert found == sum(reasons.values())
        assert tried.replay().differences == ()


@pytest.mark.parametrize("ended", [BatchStep.STORE, BatchStep.SCORE, BatchStep.PUBLISH])
@pytest.mark.parametrize("negative", ["reject", "refund"])
def test_a_batch_of_nothing_that_is_wanted_is_finished_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: BatchStep, negative: str
) -> None:
    without_broker(monkeypatch)
    spec = under(tmp_path, FILTERED | {"amount": {"field": "amount", "negative": negative}})
    values = [json.dumps({"kind": "refund"}).encode()] * 3
    stamp = datetime(2026, 5, 1, tzinfo=UTC)
    records = record_table([None] * 3, values, topic=TOPIC, first=0, sent_at=stamp)
    home = Settings.load(tmp_path / "home", {})
    with pytest.raises(_EndedError):
        attempt(home, spec, records, ended)
    attempt(home, spec, records, None)
    status = read_status(PlacedAgent(home, spec), None)
    assert (status.totals["read"], status.totals["filtered"]) == (3, 3)
