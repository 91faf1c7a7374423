"""`flagstream quarantine`, `status` and `reconcile` as a person runs them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

from schemas.contract import load_contract
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.cli.root import app
from streaming.commands.quarantine_view import show_waiting
from streaming.history import reconcile as reconciling
from streaming.history.reconcile import reconcile
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.terminal import Terminal
from streaming.run.input_now import InputNow
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.testing.live_lake import CONTRACT, TOPIC, agent, events, records, without_broker
from streaming.versions.clients import Clients

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROWS = 60
TOLD = events(2 * ROWS)
HOSTILE = "\x1b]8;;http://evil\x07[bold]pay\u202eme[/x]"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    without_broker(monkeypatch)
    monkeypatch.setattr(reconciling, "topic_exists", lambda *_: False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(tmp_path / "home", {})


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(agent().model_dump(mode="json")), encoding="utf-8")
    return path


@pytest.fixture
def contract_file(tmp_path: Path) -> Path:
    content = CONTRACT.model_dump(mode="json", exclude_none=True)
    content["amount"]["field"] = "value"
    path = tmp_path / "corrected.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def moved(event: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        **{name: value for name, value in event.items() if name != "amount"},
        "value": event["amount"],
        **changes,
    }


def run_agent(settings: Settings, *batches: Any) -> None:
    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, agent()), "127.0.0.1:1", clients) as started,
    ):
        for number, batch in enumerate(batches):
            end = {TOPIC: {"0": int(batch["offset"][-1].as_py()) + 1}}
            started.pipeline.process(lambda batch=batch: batch, "live", number, lambda end=end: end)
        while started.requested.waits():
            started.requested.take(started.pipeline.stream_time or NOON)


@pytest.fixture
def broken(settings: Settings) -> Settings:
    wrong = [moved(each) for each in TOLD[ROWS:]]
    wrong[3] = moved(TOLD[ROWS + 3], value=HOSTILE)
    wrong[4] = moved(TOLD[4])
    run_agent(settings, records(TOLD[:ROWS]), records(wrong, ROWS))
    return settings


def call(settings: Settings, spec: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--spec", str(spec), "--home", str(settings.home)])


def told(settings: Settings, spec: Path, *words: str) -> Any:
    result = call(settings, spec, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.long
def test_what_waits_is_requeued_under_a_corrected_contract(
    broken: Settings, spec_file: Path, contract_file: Path
) -> None:
    waiting = told(broken, spec_file, "quarantine", "list", "--reason", "missing_field")
    assert [each["offset"] for each in waiting] == list(range(ROWS, 2 * ROWS))
    ask = [
        "quarantine",
        "requeue",
        "--reason",
        "missing_field",
        "--contract",
        str(contract_file),
        "--why",
        "moved",
    ]
    expected = {"records": ROWS, "would_be_stored": ROWS - 2, "would_be_rejected": {"mistyped_field": 1}}
    expected |= {"stored_already": 1, "would_be_filtered": 0, "batches": 1}
    dry = told(broken, spec_file, *ask, "--dry-run")
    assert dry == {**expected, "request": None}
    assert told(broken, spec_file, "quarantine", "requests") == []
    asked = told(broken, spec_file, *ask)
    assert asked == {**expected, "request": asked["request"]}
    (request,) = told(broken, spec_file, "quarantine", "requests")
    assert (request["state"], request["batches_done"], request["records"]) == ("waiting", 0, ROWS - 1)
    assert told(broken, spec_file, "status")["requests_waiting"] == 1
    run_agent(broken)
    (request,) = told(broken, spec_file, "quarantine", "requests")
    assert (request["state"], request["stored"], request["duplicates"]) == ("done", ROWS - 2, 0)
    assert (request["rejected_again"], request["no_longer_waiting"]) == ({"mistyped_field": 1}, 0)
    left = told(broken, spec_file, "quarantine", "list")
    assert [(each["offset"], each["times"]) for each in left] == [(ROWS + 3, 2), (ROWS + 4, 1)]


@pytest.mark.long
def test_status_and_reconcile_count_what_was_taken_out_apart(
    broken: Settings, spec_file: Path, contract_file: Path
) -> None:
    ask = ["quarantine", "requeue", "--all", "--contract", str(contract_file), "--why", "moved"]
    told(broken, spec_file, *ask)
    before = read_status(PlacedAgent(broken, agent()), InputNow({TOPIC: {"0": (0, 2 * ROWS + 7)}}))
    assert before.quarantine_reasons == {"missing_field": ROWS}
    assert before.rejected_shares == {"missing_field": 0.5}
    run_agent(broken)
    found = reconcile(PlacedAgent(broken, agent()), "nowhere", timedelta(hours=1))
    assert (found.read, found.requeued) == (2 * ROWS, ROWS - 1)
    # No alert is on a topic here.
    assert found.differences == found.missing_on_kafka == found.alerts_in_delta
    after = read_status(PlacedAgent(broken, agent()), InputNow({TOPIC: {"0": (0, 2 * ROWS + 7)}}))
    assert after.quarantine_reasons == {"missing_field": 1, "mistyped_field": 1}
    assert (after.lag, after.requests_waiting, after.balanced) == (7, 0, True)


def test_a_record_is_shown_and_steers_nothing(broken: Settings, spec_file: Path, tmp_path: Path) -> None:
    place, raw = f"{TOPIC}/0/{ROWS + 3}", tmp_path / "record.json"
    shown = call(broken, spec_file, "quarantine", "show", place, "--raw", str(raw))
    assert shown.exit_code == 0, shown.output
    assert json.loads(raw.read_bytes())["value"] == HOSTILE
    assert all(each.isprintable() or each == "\n" for each in shown.stdout)
    assert "missing_field" in shown.stdout
    facts = told(broken, spec_file, "quarantine", "show", place)
    assert base64.b64decode(facts["value"]) == raw.read_bytes()
    assert [each["reason"] for each in facts["rejections"]] == ["missing_field"]
    listed = call(broken, spec_file, "quarantine", "list", "--limit", "3")
    assert "and 57 more" in listed.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("requeue", "--why", "x"), "say which records are meant"),
        (("requeue", "--why", "x", "--reason", "no_such"), "nothing that waits"),
        (("requeue", "--why", "x\ny", "--all"), "--why"),
        (("requeue", "--why", "x", "--all", "--contract", "handbook"), "other columns than the agent's"),
        (("show", "events/0"), "expected a place"),
        (("show", "events/0/1"), "no record of this place"),
    ],
)
def test_what_cannot_be_done_is_said(
    broken: Settings, spec_file: Path, words: tuple[str, ...], said: str
) -> None:
    result = call(broken, spec_file, "quarantine", *words)
    assert result.exit_code != 0
    assert said in str(result.exception)
    assert told(broken, spec_file, "quarantine", "requests") == []


def test_filters_choose_by_time_topic_partition_and_offset(broken: Settings, spec_file: Path) -> None:
    def offsets(*words: str) -> list[int]:
        return [each["offset"] for each in told(broken, spec_file, "quarantine", "list", *words)]

    assert offsets("--from-offset", str(ROWS + 2), "--to-offset", str(ROWS + 3)) == [ROWS + 2, ROWS + 3]
    assert offsets("--since", "2026-05-01T01:58:00") == [ROWS + 58, ROWS + 59]
    assert offsets("--until", "2026-05-01T01:01:00") == [ROWS, ROWS + 4]
    assert offsets("--partition", "1") == offsets("--topic", "other") == []


def test_requests_and_what_becomes_of_them_are_audited(
    broken: Settings, spec_file: Path, contract_file: Path
) -> None:
    asked = told(
        broken,
        spec_file,
        "quarantine",
        "requeue",
        "--all",
        "--contract",
        str(contract_file),
        "--why",
        "moved",
    )
    run_agent(broken)
    places = AuditPlaces(PlacedAgent(broken, agent()))
    assert check_audit(places).sound
    (action,) = newest_events(places, "action", 5)
    assert (action["subject"], action["detail"]["rows"]) == ("quarantine-requeue", ROWS - 1)
    decided = newest_events(places, "batch_decided", 1)[0]["detail"]
    assert (decided["query_id"], decided["stored"]) == (f"requeue-{asked['request']}", ROWS - 2)
    changed = newest_events(places, "configuration_change", 1)[0]["detail"]
    assert changed["changed"] == ["contract_digest"]
    assert changed["contract_digest"] == load_contract(str(contract_file)).digest


@pytest.mark.parametrize("records", [0, 1])
def test_a_list_of_what_waits_ends_with_what_can_be_done(
    records: int, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"topic": "events", "partition": 0, "offset": 7, "reason": "bad_time", "detail": None, "times": 1}
    rows = pl.DataFrame([{**row, "arrived": NOON, "bytes": 2}]).head(records)
    show_waiting(rows, 20, Terminal())
    said = " ".join(capsys.readouterr().out.split())
    assert ("`flagstream quarantine requeue` takes them in after all" in said) is bool(records)
