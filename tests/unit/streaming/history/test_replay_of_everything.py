"""Filters, references, refunds and currencies together: no cut, crash, slice or snapshot changes a bit."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from schemas.spec import AgentSpec
from streaming.batch.steps import BatchStep
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.events.record_table import record_table
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import CONTRACT, DAY, TOPIC, agent, events, without_broker
from streaming.versions.clients import Clients

ROWS = 240
PLACES = ["offset", "kafka_timestamp", "batch_id", "query_id", "late"]
CRASHES = [BatchStep.STORE, BatchStep.SCORE, BatchStep.ALERT, BatchStep.PUBLISH, BatchStep.CLOSE]


class _EndedError(Exception):
    """The process is gone."""


@dataclass(frozen=True)
class Crash:
    """Where a process ends: in which batch, after which step."""

    batch: int
    step: BatchStep


def stream(seed: int) -> pa.Table:
    """Payments and refunds in three currencies, with what a filter leaves out and what cannot be used."""
    draw, found = random.Random(seed), list[bytes | None]()
    for payment in events(ROWS, seed):
        sign = -1 if draw.random() < 0.2 else 1
        kind = draw.choice(["sale", "sale", "sale", "sale", "draft"])
        changed = {
            "amount": sign * payment["amount"],
            "currency": draw.choice(["EUR", "EUR", "JPY", "KWD"]),
            "kind": kind,
        }
        found += draw.choice([[], [], [], [None], [b"{"]])
        found += [json.dumps({**payment, **changed}).encode()]
    return record_table(
        [None] * len(found), found, topic=TOPIC, first=0, sent_at=datetime(2026, 5, 2, tzinfo=UTC)
    )


def tables(folder: Path) -> tuple[Path, Path]:
    """Write a reference table and one of rates; both change in the middle of the stream."""
    folder.mkdir(exist_ok=True)
    times = [f"2026-04-{day:02d}T00:00:00Z" for day in (1, 2)]
    merchants = pl.DataFrame(
        {
            "merchant_id": [f"m{number}" for number in range(20)] * 2,
            "valid_from": [times[0]] * 20 + [f"{DAY:%Y-%m-%d}T02:00:00Z"] * 20,
            "risk": [number / 40 for number in range(40)],
        }
    )
    rates = pl.DataFrame(
        {
            "currency": ["JPY", "KWD", "JPY"],
            "valid_from": [times[0], times[1], f"{DAY:%Y-%m-%d}T01:30:00Z"],
            "rate": [0.006, 3.1, 0.0061],
        }
    )
    merchants.write_csv(folder / "merchants.csv")
    rates.write_csv(folder / "rates.csv")
    return folder / "merchants.csv", folder / "rates.csv"


def spec_under(folder: Path, currencies: str) -> AgentSpec:
    merchants, rates = tables(folder / "tables")
    reference = {
        "path": str(merchants),
        "on": {"terminal": "merchant_id"},
        "columns": {"merchant_risk": {"field": "risk", "type": "float"}},
        "since": "valid_from",
    }
    content = CONTRACT.model_dump(mode="json") | {
        "where": "kind = 'sale'",
        "references": {"merchants": reference},
        "amount": {"field": "amount", "negative": "refund"},
    }
    contract = folder / "contract.yaml"
    contract.write_text(yaml.safe_dump(content), encoding="utf-8")
    sources: dict[str, Any] = {"transactions": {"contract": str(contract), "topic": TOPIC}}
    if currencies == "reference":
        sources["rates"] = {"path": str(rates), "to": "EUR"}
    risky = {"name": "risky", "when": "merchant_risk > 0.9", "severity": "high", "reason": "risky"}
    profiles = {"block_rows": 64, "checkpoint_rows": 150, "currencies": currencies}
    return agent(data_sources=sources, profiles=profiles, rules=[risky])


def run(
    settings: Settings, spec: AgentSpec, records: pa.Table, cuts: list[int], crash: Crash | None = None
) -> None:
    """Decide the stream in batches, those closed before once more; end where `crash` says."""
    at, ends = [0], [*sorted(set(cuts)), records.num_rows]

    def reached(step: BatchStep) -> None:
        if crash is not None and crash == Crash(at[0], step):
            raise _EndedError

    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients, Hooks(reached=reached)) as started,
    ):
        for number, (first, end) in enumerate(zip([0, *ends], ends, strict=False)):
            at[0], part, upto = number, records.slice(first, end - first), {TOPIC: {"0": end}}
            started.pipeline.process(lambda part=part: part, "live", number, lambda upto=upto: upto)


def decided(settings: Settings, spec: AgentSpec) -> tuple[list[dict[str, Any]], list[tuple[str, float]]]:
    """Return what was stored, without its places in batches, and the scores of its alerts."""
    reader = LakeReader(settings.lake(spec.name), spec.tables)
    table = reader.table("transactions")
    assert table is not None
    wanted = [name for name in table.schema.names if name not in PLACES]
    alerts = reader.frame("alerts", ["outbox_seq", "transaction_id", "score"]).sort("outbox_seq")
    scores = alerts.select("transaction_id", "score").rows()
    return reader.frame("transactions", wanted).sort("sequence").to_dicts(), scores


def lose_all_but_delta(folder: Path) -> None:
    shutil.rmtree(folder / "tables")
    (folder / "contract.yaml").unlink()


@pytest.mark.long
@examples(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # whole lakes take too long to shrink
)
@pytest.mark.parametrize("currencies", ["scaled", "reference"])
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(1, ROWS), min_size=2, max_size=4, unique=True),
    crash=st.builds(Crash, st.integers(0, 2), st.sampled_from(CRASHES)),
    draw=st.randoms(use_true_random=False),
)
def test_whatever_happens_on_the_way_what_is_decided_is_the_same_and_replays(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    currencies: str,
    seed: int,
    cuts: list[int],
    crash: Crash,
    draw: random.Random,
) -> None:
    without_broker(monkeypatch)
    folder, records = tmp_path_factory.mktemp("everything"), stream(seed)
    spec = spec_under(folder, currencies)
    whole, settings = Settings.load(folder / "whole", {}), Settings.load(folder / "cut", {})
    run(whole, spec, records, [])
    with pytest.raises(_EndedError):
        run(settings, spec, records, cuts, crash)
    run(settings, spec, records, cuts)
    rows, alerts = decided(settings, spec)
    assert (rows, alerts) == decided(whole, spec)
    assert len(alerts) > 5
    assert {row["direction"] for row in rows} == {"payment", "refund"}
    assert {row["currency"] for row in rows} == {"EUR", "JPY", "KWD"}
    assert len({row["merchant_risk"] for row in rows}) > 20
    _replays(settings, spec, folder, draw)


def _replays(settings: Settings, spec: AgentSpec, folder: Path, draw: random.Random) -> None:
    """Whole, in a span of versions, and from a snapshot alone; with contract and tables gone."""
    contract = AgentDefinition.of(spec).contract
    lose_all_but_delta(folder)
    newest = LakeReader(settings.lake(spec.name), spec.tables).version("transactions")
    later = ReplaySpan(from_version=draw.randint(0, newest - 1), to_version=newest)
    for span in (ReplaySpan(), later):
        assert run_replay(PlacedAgent(settings, spec), span).differences == ()
    history = ReplaySpan().history(PlacedAgent(settings, spec))
    create_snapshot(settings, AgentDefinition.pinned(spec, contract), "kept", history.whole)
    for each in settings.lake(spec.name).path.iterdir():
        if each.name != settings.snapshots(spec.name).name:
            shutil.rmtree(each)
    found = run_replay(PlacedAgent(settings, spec), ReplaySpan(snapshot="kept"))
    assert found.differences == ()
    assert found.rows > 100
