"""Agreement with labels that came later, from the lake: newest revisions alone, by who classified."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.alert import ALERTS
from streaming.commands.status import print_status
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.agreement import agreement_with_labels
from streaming.run.status import read_status
from streaming.testing.live_lake import agent, events
from streaming.testing.small_lake import build_lake, spec_of
from streaming.testing.trial import trial

SPEC = spec_of()


def answer_one(settings: Settings) -> None:
    """Let the model say of the first alert that it is nothing, which its label denies."""
    folder = settings.lake(SPEC.name) / "alerts"
    rows = LakeReader(settings.lake(SPEC.name), SPEC.tables).rows("alerts", ALERTS.names).to_pylist()
    first = min(rows, key=lambda row: row["outbox_seq"])
    said = {"classification": "likely_legitimate", "classification_source": "llm", "revision": 2}
    table = LakeTable(folder, ALERTS, "tester/epoch", timedelta(days=30))
    table.claim(1 + table.epoch)
    later = {**first, **said, "outbox_seq": len(rows)}
    table.append(pa.Table.from_pylist([later], schema=ALERTS), Stamp("tester/late", 0))


def test_each_labelled_alert_counts_once_for_whoever_classified_it_last(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    build_lake(PlacedAgent(settings, SPEC))
    reader = LakeReader(settings.lake(SPEC.name), SPEC.tables)
    assert {name: worth.alerts for name, worth in agreement_with_labels(reader, SPEC).items()} == {"rules": 2}
    answer_one(settings)
    status = read_status(PlacedAgent(settings, SPEC), None)
    assert {name: worth.alerts for name, worth in status.agreement.items()} == {"rules": 1, "llm": 1}
    assert status.agreement["llm"].agreeing == 0.0
    assert status.agreement["rules"].agreeing == 1.0
    assert {name: worth.alerts for name, worth in agreement_with_labels(reader.anew(), SPEC, 1).items()} == {
        "llm": 1
    }
    print_status(status, as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "labelled alerts classified by the model" in shown
    assert "0% of 1 agree with the label" in shown


def test_alerts_without_labels_say_nothing(tmp_path: Path) -> None:
    spec = agent()
    with trial(tmp_path, spec) as tried:
        tried.send(events(200))
        reader = LakeReader(tried.settings.lake(spec.name), spec.tables)
        assert reader.count("alerts") > 0
        assert agreement_with_labels(reader, spec) == {}
