"""A lake written by earlier code opens, recovers, replays and goes on, deciding as it always has."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.quarantine.choosing import slices_of
from streaming.quarantine.requests import RequestTable, read_requests, requeues_place
from streaming.quarantine.waiting import waiting
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.testing.live_lake import without_broker
from streaming.versions.clients import Clients
from streaming.versions.registry_table import read_entries, registry_place
from streaming.versions.stages import staged_versions
from tests.unit.old_lake import OF_2026_11 as LAKE
from tests.unit.old_lake import assert_same


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    without_broker(monkeypatch)


@pytest.mark.long
def test_an_unfinished_batch_is_finished_as_the_code_that_began_it_would_have(tmp_path: Path) -> None:
    settings = LAKE.unpacked("unfinished", tmp_path)
    expected = LAKE.noted("finished_alerts")
    assert LAKE.alerts_since(settings, expected[0]["outbox_seq"]) == []
    LAKE.run(settings)
    assert_same(LAKE.alerts_since(settings, expected[0]["outbox_seq"]), expected)
    batches = read_stored(settings.lake(LAKE.name) / "batches")
    assert batches is not None
    assert max(batches["next_sequence"].to_pylist()) == 2_700


@pytest.mark.long
def test_it_goes_on_with_the_alerts_that_the_code_that_began_it_would_have_raised(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    expected = LAKE.noted("later_alerts")
    LAKE.run(settings, LAKE.next_records())
    assert_same(LAKE.alerts_since(settings, expected[0]["outbox_seq"]), expected)
    assert LAKE.replayed_exactly(settings)[0] == 2_850


@pytest.mark.long
@pytest.mark.parametrize("checkpoints", [True, False])
def test_all_of_it_is_replayed_without_a_difference(tmp_path: Path, checkpoints: bool) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    if not checkpoints:
        settings.profiles(LAKE.name).path.rename(tmp_path / "aside")
    rows, alerts = LAKE.replayed_exactly(settings)
    assert rows == 2_700
    assert alerts == sum(each["revision"] == 1 for each in LAKE.alerts_since(settings, 0)) > 200


def test_its_registry_labels_and_open_window_are_there(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    spec = LAKE.spec_of(settings)
    found = staged_versions(read_entries(registry_place(PlacedAgent(settings, spec))))
    assert {version: each.stage for version, each in found.items()} == {"1.0.0": "retired", "1.1.0": "active"}
    assert all(each.spec.digest == each.digest for each in found.values())
    assert spec.version == "1.1.0"
    labels = read_stored(settings.lake(LAKE.name) / "labels")
    assert labels is not None
    assert labels.num_rows == 41
    assert read_status(PlacedAgent(settings, spec), None).late["pending"] > 0


def test_what_it_rejected_can_be_requeued(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    spec, lake = LAKE.spec_of(settings), settings.lake(LAKE.name)
    path = requeues_place(PlacedAgent(settings, spec))
    rejected = waiting(lake / "quarantine", path, [])
    assert rejected.height > 0
    RequestTable(path, spec.replay_horizon).ask(slices_of(rejected), None, "anna", "once more")
    with (
        Clients(settings, "auto") as clients,
        open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients) as on,
    ):
        closed = on.requested.take(datetime(2026, 5, 8, tzinfo=UTC))
        assert closed is not None
        assert not on.requested.waits()
    assert closed.row["read"] == rejected.height
    still = waiting(lake / "quarantine", path, read_requests(path))
    assert still.height == closed.row["quarantined"]
    assert set(still["times"]) <= {2}
    assert LAKE.replayed_exactly(settings)[0] == 2_700 + closed.row["stored"]
