from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from agent.audit.events import ModelCall, PolicyRuling
from agent.triage.ledger import Intent, RecordedAnswer
from agent.triage.triage import TriageResult
from schemas.contract import load_contract
from schemas.lake_tables import lake_schemas
from schemas.tables import BATCHES
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.audit.audit_reading import newest_events
from streaming.batch.alerting import Alerted, Asked
from streaming.batch.batch_audit import BatchAudit
from streaming.batch.decision import Decision
from streaming.delta.lake import Lake
from streaming.delta.lake_table import Stamp
from streaming.delta.ledger import LakeLedger
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from tests.unit.streaming.audit.test_audit_log import MORNING, RETENTION, SPEC, CrashError, DyingAnchor

QUERY = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
FIRST, SECOND = "a1" * 32, "b2" * 32
PINS: dict[str, Any] = {
    "spec": {},
    "spec_digest": "5e" * 32,
    "contract_digest": "c0" * 32,
    "rules_version": "0123456789ab",
    "scoring": "5c" * 32,
    "prompt_digest": "9a" * 32,
    "policy_digest": "80" * 32,
    "model": "local",
    "prompt": "triage/1",
}
ALERTED = Alerted(3, 1, 2, 1, 120, 30, 0.002)
NOTHING = Alerted(0, 0, 0, 0, 0, 0, 0.0)


class Driver:
    """The tables of one agent as one driver process holds them."""

    def __init__(self, home: Path, *, anchor: type[DyingAnchor] | None = None) -> None:
        settings = Settings.load(home, {})
        schemas = lake_schemas(load_contract("simulator"))
        self.lake = Lake.open(settings.lake(SPEC.name), SPEC, schemas, retention=timedelta(days=30))
        self.ledger = LakeLedger(self.lake.ledger, SPEC.name, lambda: MORNING)
        places = AuditPlaces(PlacedAgent(settings, SPEC))
        log = LakeAudit(places, RETENTION)
        if anchor is not None:
            places.anchor = anchor.at(places.anchor.place.path)
            log = LakeAudit(places, RETENTION)
        self.audit = BatchAudit(log, self.lake, SPEC.name)

    def close(self, batch_id: int, pins: dict[str, Any] = PINS) -> None:
        row = {
            "query_id": QUERY,
            "batch_id": batch_id,
            "closed_at": datetime(2026, 1, 1, 0, batch_id, tzinfo=UTC),
            "next_sequence": 10,
            "pins": json.dumps(pins),
        }
        self.lake.batches.append(pa.Table.from_pylist([row], schema=BATCHES), Stamp("tester/q", batch_id))


def decision(batch_id: int, pins: dict[str, Any] = PINS) -> Decision:
    return Decision(
        query_id=QUERY,
        batch_id=batch_id,
        opened_at=0,
        first_sequence=batch_id * 10,
        next_sequence=batch_id * 10 + 10,
        read=10,
        quarantined=0,
        duplicates=0,
        late=0,
        watermark_us=0,
        labels_through=0,
        labels_below=0,
        offsets={},
        pins=pins,
    )


def events(home: Path, kind: str) -> list[dict[str, Any]]:
    places = AuditPlaces(PlacedAgent(Settings.load(home, {}), SPEC))
    assert check_audit(places).sound
    return newest_events(places, kind, 1_000)


def question(key: str) -> Intent:
    return Intent(key, "triage", 1, "local", '{"entities":{"customer":"anna"}}')


def answer(key: str) -> RecordedAnswer:
    return RecordedAnswer(key, "card_testing", "high", "why anna", "local", "triage", 1, 120, 30)


def call(key: str, outcome: str = "answered") -> ModelCall:
    return ModelCall(key, outcome, True, 120, 30)


def test_a_start_says_under_which_configuration(tmp_path: Path) -> None:
    for _ in range(2):
        Driver(tmp_path).audit.started(PINS)
    told = [row["detail"] for row in events(tmp_path, "configuration_change")]
    assert [each["epoch"] for each in told] == [1, 2]
    assert told[0]["change"] == "start"
    assert {name: told[0][name] for name in PINS if name != "spec"} == {
        name: value for name, value in PINS.items() if name != "spec"
    }


def test_a_batch_says_what_it_came_to(tmp_path: Path) -> None:
    Driver(tmp_path).audit.decided(decision(0), ALERTED, Asked())
    (row,) = events(tmp_path, "batch_decided")
    assert row["detail"] == {
        **ALERTED.counts(),
        "query_id": QUERY,
        "batch_id": 0,
        "first_sequence": 0,
        "stored": 10,
        "spec_digest": PINS["spec_digest"],
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["spec_digest", "rules_version", "model", "prompt_digest", "policy_digest"])
def test_what_differs_from_the_batch_before_is_told_once(name: str, tmp_path: Path) -> None:
    changed = {**PINS, name: "abcdef012345" if name != "model" else "other"}
    driver = Driver(tmp_path)
    driver.audit.decided(decision(0), NOTHING, Asked())
    driver.close(0)
    driver = Driver(tmp_path)
    driver.audit.decided(decision(1, changed), NOTHING, Asked())
    driver.audit.decided(decision(2, changed), NOTHING, Asked())
    (row,) = events(tmp_path, "configuration_change")
    assert (row["detail"]["batch_id"], row["detail"]["changed"]) == (1, [name])
    assert row["detail"][name] == changed[name]


@pytest.mark.long
@pytest.mark.parametrize(("allowed", "said"), [(True, "allowed"), (False, "denied")])
def test_what_the_policy_ruled_is_told(allowed: bool, said: str, tmp_path: Path) -> None:
    ruling = PolicyRuling("default", "local", allowed, ("event_time", "entities.customer"))
    Driver(tmp_path).audit.decided(decision(0), ALERTED, Asked((), (ruling,)))
    (row,) = events(tmp_path, "policy_decision")
    assert (row["subject"], row["detail"]["decision"]) == ("default", said)
    assert row["detail"]["withheld"] == ["event_time", "entities.customer"]


def test_calls_are_told_by_key_and_never_by_text(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.ledger.intend([question(FIRST), question(SECOND)])
    driver.ledger.record([answer(FIRST)])
    driver.audit.decided(decision(0), ALERTED, Asked((call(FIRST), call(SECOND, "timeout"))))
    rows = events(tmp_path, "model_call")
    told = [(row["detail"]["question"], row["detail"]["outcome"]) for row in rows]
    assert told == [(FIRST, "answered"), (SECOND, "timeout")]
    assert (rows[0]["subject"], rows[0]["detail"]["prompt"]) == ("local", "triage/1")
    assert [row["detail"]["batch_id"] for row in rows] == [0, 0]
    assert "anna" not in str(rows)


def test_calls_of_batch_after_batch_are_told_once_each(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    for number, key in enumerate((FIRST, SECOND)):
        driver.ledger.intend([question(key)])
        driver.ledger.record([answer(key)])
        driver.audit.decided(decision(number), ALERTED, Asked((call(key),)))
        driver.audit.decided(decision(number), ALERTED, Asked((call(key),)))
    driver.audit.decided(decision(2), NOTHING, Asked())
    assert [row["detail"]["question"] for row in events(tmp_path, "model_call")] == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("answered", "expected"), [(True, ("answered", 120)), (False, ("unknown", 0))], ids=["answered", "asked"]
)
def test_calls_of_an_attempt_that_crashed_are_told_by_the_next(
    answered: bool, expected: tuple[str, int], tmp_path: Path
) -> None:
    crashed = Driver(tmp_path)
    crashed.ledger.intend([question(FIRST)])
    if answered:
        crashed.ledger.record([answer(FIRST)])
    repaired = Driver(tmp_path)
    repaired.ledger.intend([question(SECOND)])
    repaired.ledger.record([answer(SECOND)])
    repaired.audit.decided(decision(0), ALERTED, Asked((call(SECOND),)))
    rows = [row["detail"] for row in events(tmp_path, "model_call")]
    assert [(row["question"], row["outcome"], row["input_tokens"]) for row in rows] == [
        (FIRST, *expected),
        (SECOND, "answered", 120),
    ]
    assert [row.get("batch_id") for row in rows] == [None, 0]  # nobody knows what the attempt was about


@pytest.mark.long
def test_a_crash_before_the_anchor_moves_neither_loses_nor_doubles_an_event(tmp_path: Path) -> None:
    Driver(tmp_path).audit.decided(decision(0), NOTHING, Asked())
    dying = Driver(tmp_path, anchor=DyingAnchor)
    dying.ledger.intend([question(FIRST)])
    dying.ledger.record([answer(FIRST)])
    asked = Asked((call(FIRST),), (PolicyRuling("default", "local", True, ()),))
    changed = {**PINS, "model": "other"}
    dying.close(0)
    with pytest.raises(CrashError):
        Driver(tmp_path, anchor=DyingAnchor).audit.decided(decision(1, changed), ALERTED, asked)
    repaired = Driver(tmp_path)
    kept = Asked.from_metadata(json.loads(json.dumps(asked.to_metadata())))
    repaired.audit.decided(decision(1, changed), ALERTED, kept)
    repaired.audit.decided(decision(2, changed), NOTHING, Asked())
    found = {kind: len(events(tmp_path, kind)) for kind in ("model_call", "policy_decision")}
    assert found == {"model_call": 1, "policy_decision": 1}
    assert [row["detail"]["batch_id"] for row in events(tmp_path, "batch_decided")] == [0, 1, 2]
    assert [row["detail"]["changed"] for row in events(tmp_path, "configuration_change")] == [["model"]]


def test_what_is_asked_late_is_told_with_its_own_outcome_once_nothing_before_it_is_under_way(
    tmp_path: Path,
) -> None:
    driver = Driver(tmp_path)
    driver.ledger.intend([question(FIRST)])
    driver.ledger.intend([question(SECOND)])
    driver.audit.asked_late([result_of(call(SECOND, "timeout"))], frozenset({FIRST}))
    assert events(tmp_path, "model_call") == []
    driver.ledger.record([answer(FIRST)])
    driver.audit.asked_late([result_of(call(FIRST))], frozenset())
    rows = events(tmp_path, "model_call")
    assert {row["detail"]["question"]: row["detail"]["outcome"] for row in rows} == {
        FIRST: "answered",
        SECOND: "timeout",
    }
    assert all(row["detail"]["sent"] for row in rows)


def result_of(made: ModelCall) -> TriageResult:
    return TriageResult((), made=(made,))
