"""A lake from before lakes had a format number opens, recovers, replays and goes on as it always has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.delta.whole_tables import read_stored
from streaming.history.replay_runs import ReplaySpan
from streaming.home.placed_agent import PlacedAgent
from streaming.quarantine.requests import read_requests, requeues_place
from streaming.quarantine.waiting import waiting
from streaming.run.status import read_status
from streaming.testing.live_lake import without_broker
from streaming.versions.registry_table import read_entries, registry_place
from streaming.versions.stages import staged_versions
from tests.unit.old_lake import BEFORE_FORMATS as LAKE
from tests.unit.old_lake import assert_same

ROWS = 1_858


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    without_broker(monkeypatch)


def test_an_unfinished_batch_is_finished_as_the_code_that_began_it_would_have(tmp_path: Path) -> None:
    settings = LAKE.unpacked("unfinished", tmp_path)
    expected = LAKE.noted("finished_alerts")
    assert LAKE.alerts_since(settings, expected[0]["outbox_seq"]) == []
    LAKE.run(settings)
    assert_same(LAKE.alerts_since(settings, expected[0]["outbox_seq"]), expected)
    assert LAKE.replayed_exactly(settings)[0] == ROWS
    assert check_audit(AuditPlaces(PlacedAgent(settings, LAKE.spec_of(settings)))).sound


def test_it_goes_on_with_the_alerts_that_the_code_that_began_it_would_have_raised(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    expected = LAKE.noted("later_alerts")
    LAKE.run(settings, LAKE.next_records())
    assert_same(LAKE.alerts_since(settings, expected[0]["outbox_seq"]), expected)
    rows, alerts = LAKE.replayed_exactly(settings)
    assert rows == 2_027
    assert alerts == len(LAKE.alerts_since(settings, 0)) == 216


@pytest.mark.parametrize("checkpoints", [True, False])
def test_all_of_it_is_replayed_without_a_difference(tmp_path: Path, checkpoints: bool) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    if not checkpoints:
        shutil.rmtree(settings.profiles(LAKE.name).path)
    assert LAKE.replayed_exactly(settings) == (ROWS, 196)


def test_its_snapshot_is_replayed_from_its_copies_alone(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    spec = LAKE.spec_of(settings)
    for table in spec.tables.model_dump().values():
        if table != spec.tables.specs:
            shutil.rmtree(settings.lake(LAKE.name) / table, ignore_errors=True)
    shutil.rmtree(settings.profiles(LAKE.name).path)
    rows, alerts = LAKE.replayed_exactly(settings, ReplaySpan(snapshot="noon"))
    assert rows > 300
    assert alerts > 10


def test_its_registry_labels_and_figures_are_there(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    spec = LAKE.spec_of(settings)
    found = staged_versions(read_entries(registry_place(PlacedAgent(settings, spec))))
    assert {version: each.stage for version, each in found.items()} == {"1.0.0": "retired", "1.1.0": "active"}
    assert all(each.spec.digest == each.digest for each in found.values())
    assert (spec.version, spec.arithmetic) == ("1.1.0", 2)
    labels = read_stored(settings.lake(LAKE.name) / "labels")
    assert labels is not None
    assert labels.num_rows == 55
    status = read_status(PlacedAgent(settings, spec), None)
    assert (status.batches, status.totals["stored"]) == (12, ROWS)


def test_its_audit_log_is_sound_and_tells_of_the_promotion(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    places = AuditPlaces(PlacedAgent(settings, LAKE.spec_of(settings)))
    assert check_audit(places).sound
    told = [row["detail"] for row in newest_events(places, "configuration_change", 100)]
    moves = [(each["version"], each["stage"]) for each in told if each["change"] == "promoted"]
    assert moves == [("1.1.0", "shadow"), ("1.1.0", "canary"), ("1.1.0", "active")]


def test_what_was_requeued_stays_as_it_was_decided(tmp_path: Path) -> None:
    settings = LAKE.unpacked("closed", tmp_path)
    path = requeues_place(PlacedAgent(settings, LAKE.spec_of(settings)))
    requests = read_requests(path)
    assert [(each.state, each.records, each.decided) for each in requests] == [("done", 3, 1)]
    still = waiting(settings.lake(LAKE.name) / "quarantine", path, requests)
    assert sorted(still["times"]) == [1, 1, 2]
