"""A lake written by earlier code opens, recovers, replays and goes on, deciding as it always has."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from schemas.contract import load_contract
from streaming.delta.stored import read_stored
from streaming.history.replay import Replayer
from streaming.history.replay_runs import ReplaySpan
from streaming.home.settings import Settings
from streaming.quarantine.choosing import slices_of
from streaming.quarantine.requests import RequestTable, read_requests, requeues_path
from streaming.quarantine.waiting import waiting
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.testing.live_lake import TOPIC, without_broker
from streaming.versions.clients import Clients
from streaming.versions.registry_table import read_entries, registry_path
from streaming.versions.stages import standings
from tests.unit.old_lake import NAME, NEXT_BATCH, next_records, noted, spec_of, unpacked


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    without_broker(monkeypatch)


def run(settings: Settings, *parts: pa.Table) -> None:
    """Open the agent, which finishes what is open, and give it batches."""
    with (
        Clients(settings, "auto") as clients,
        open_agent(settings, spec_of(settings), "127.0.0.1:1", clients) as on,
    ):
        for number, part in enumerate(parts, NEXT_BATCH):
            end = {TOPIC: {"0": part["offset"][-1].as_py() + 1}}
            on.pipeline.process(lambda part=part: part, "live", number, lambda end=end: end)


def alerts_since(settings: Settings, outbox_seq: int) -> list[dict[str, Any]]:
    rows = pl.DataFrame(read_stored(settings.lake(NAME) / "alerts")).sort("outbox_seq")
    return rows.filter(pl.col("outbox_seq") >= outbox_seq).to_dicts()


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare by what was noted; the last bits of a logarithm differ between processors."""
    assert [each["alert_id"] for each in found] == [each["alert_id"] for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            if isinstance(value, float):
                assert math.isclose(ours[name], value, rel_tol=1e-9, abs_tol=1e-12), name
            elif name == "created_at":
                assert ours[name].isoformat() == value
            else:
                assert ours[name] == value, name


def replayed_exactly(settings: Settings) -> tuple[int, int]:
    spec = spec_of(settings)
    history = ReplaySpan().history(settings, spec)
    contract = load_contract(spec.data_sources.transactions.contract)
    found = Replayer(settings, spec, contract, history).exactly(history.whole)
    assert found.differences == ()
    return found.rows, found.alerts


def test_an_unfinished_batch_is_finished_as_the_code_that_began_it_would_have(tmp_path: Path) -> None:
    settings = unpacked("unfinished", tmp_path)
    expected = noted("finished_alerts")
    assert alerts_since(settings, expected[0]["outbox_seq"]) == []
    run(settings)
    assert_same(alerts_since(settings, expected[0]["outbox_seq"]), expected)
    batches = read_stored(settings.lake(NAME) / "batches")
    assert batches is not None
    assert max(batches["next_sequence"].to_pylist()) == 2_700


def test_it_goes_on_with_the_alerts_that_the_code_that_began_it_would_have_raised(tmp_path: Path) -> None:
    settings = unpacked("closed", tmp_path)
    expected = noted("later_alerts")
    run(settings, next_records())
    assert_same(alerts_since(settings, expected[0]["outbox_seq"]), expected)
    assert replayed_exactly(settings)[0] == 2_850


@pytest.mark.parametrize("checkpoints", [True, False])
def test_all_of_it_is_replayed_without_a_difference(tmp_path: Path, checkpoints: bool) -> None:
    settings = unpacked("closed", tmp_path)
    if not checkpoints:
        settings.profiles(NAME).rename(tmp_path / "aside")
    rows, alerts = replayed_exactly(settings)
    assert rows == 2_700
    assert alerts == sum(each["revision"] == 1 for each in alerts_since(settings, 0)) > 200


def test_its_registry_labels_and_open_window_are_there(tmp_path: Path) -> None:
    settings = unpacked("closed", tmp_path)
    spec = spec_of(settings)
    found = standings(read_entries(registry_path(settings, spec)))
    assert {version: each.stage for version, each in found.items()} == {"1.0.0": "retired", "1.1.0": "active"}
    assert all(each.spec.digest == each.digest for each in found.values())
    assert spec.version == "1.1.0"
    labels = read_stored(settings.lake(NAME) / "labels")
    assert labels is not None
    assert labels.num_rows == 41
    assert read_status(settings.lake(NAME), spec, None).late["pending"] > 0


def test_what_it_rejected_can_be_requeued(tmp_path: Path) -> None:
    settings = unpacked("closed", tmp_path)
    spec, lake = spec_of(settings), settings.lake(NAME)
    path = requeues_path(settings, spec)
    rejected = waiting(lake / "quarantine", path, [])
    assert rejected.height > 0
    RequestTable(path, spec.replay_horizon).ask(slices_of(rejected), None, "anna", "once more")
    with (
        Clients(settings, "auto") as clients,
        open_agent(settings, spec, "127.0.0.1:1", clients) as on,
    ):
        closed = on.requested.take(datetime(2026, 5, 8, tzinfo=UTC))
        assert closed is not None
        assert not on.requested.waits()
    assert closed.row["read"] == rejected.height
    still = waiting(lake / "quarantine", path, read_requests(path))
    assert still.height == closed.row["quarantined"]
    assert set(still["times"]) <= {2}
    assert replayed_exactly(settings)[0] == 2_700 + closed.row["stored"]
