"""History before the stream: as if it had been streamed, cut off anywhere, alerted to nobody."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake
from typer.testing import CliRunner

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.cli.root import app, main
from streaming.commands.backfill import load, load_history, run_backfill, source_to_load
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.files import event_files
from streaming.history.backfill import Loaded, Passed
from streaming.history.backfill_source import open_history
from streaming.history.reconcile import _repeated
from streaming.history.replay_runs import ReplaySpan, run_replay, run_what_if
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run import history_overlap
from streaming.run.history_overlap import OverlapCheck
from streaming.run.opening import open_agent
from streaming.testing.live_lake import CONTRACT, DAY, agent, events, frame, judge, run_live, without_broker
from streaming.testing.trial import trial
from streaming.versions.clients import Clients

HISTORY, ROWS, CHUNK = 500, 900, 120
LONG_AFTER = DAY + timedelta(days=30)
EVENTS = events(ROWS)
# A redelivery, and an amount that no transaction can have.
TOLD = [*EVENTS[:200], EVENTS[190], *EVENTS[200:300], {**EVENTS[0], "tx_id": "bad", "amount": "much"}]
TOLD += EVENTS[300:HISTORY]
ALERT = ["alert_id", "sequence", "score", "log_odds", "base", "reasons", "kind", "rules", "passed_by"]


def in_small_chunks(patch: pytest.MonkeyPatch) -> None:
    without_broker(patch)
    patch.setattr(event_files, "_BATCH_ROWS", CHUNK)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(tmp_path / "home", {})


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return written_to(tmp_path)


def written_to(folder: Path) -> Path:
    path = folder / "history.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in TOLD), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Uncut:
    """What a backfill leaves that nobody cut off, and what a run after it alerts."""

    stored: list[dict[str, Any]]
    batches: pl.DataFrame
    alerts: list[dict[str, Any]]


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    folder = tmp_path_factory.mktemp("uncut")
    settings, spec = Settings.load(folder / "home", {}), agent()
    with pytest.MonkeyPatch.context() as patch:
        in_small_chunks(patch)
        run_backfill(PlacedAgent(settings, spec), written_to(folder))
        rows, batches = stored(settings), batches_of(settings)
        run_live(PlacedAgent(settings, spec), EVENTS[HISTORY:])
    return Uncut(rows, batches, alerts_from(settings, 0))


def batches_of(settings: Settings) -> pl.DataFrame:
    batches = table(settings, "batches", "batch_id")
    return batches.select("batch_id", "read", "stored", "next_sequence")


def table(settings: Settings, name: str, order: str) -> pl.DataFrame:
    return frame(read_stored(settings.lake("tester") / name)).sort(order)


def alerts_from(settings: Settings, sequence: int) -> list[dict[str, Any]]:
    rows = table(settings, "alerts", "outbox_seq")
    raised = pl.coalesce("passed_by", "sequence")
    return rows.filter(raised >= sequence).select(ALERT).to_dicts()


def stored(settings: Settings) -> list[dict[str, Any]]:
    rows = table(settings, "transactions", "sequence")
    return rows.select("sequence", *CONTRACT.arrow_schema().names[:8], "late").to_dicts()


def streamed(home: Path, spec: AgentSpec) -> Settings:
    settings = Settings.load(home, {})
    run_live(PlacedAgent(settings, spec), TOLD)
    run_live(PlacedAgent(settings, spec), EVENTS[HISTORY:], first_batch=50)
    return settings


def test_profiles_are_bit_for_bit_those_of_the_stream(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    spec, whole = agent(profiles={"block_rows": 64, "checkpoint_rows": HISTORY}), Settings.load(tmp_path, {})
    run_backfill(PlacedAgent(settings, spec), history)
    run_live(PlacedAgent(whole, spec), TOLD)
    found = [each.profiles("tester") / f"{HISTORY:020d}" / "manifest.json" for each in (settings, whole)]
    kept, streamed_ones = (json.loads(path.path.read_text()) for path in found)
    assert kept == streamed_ones
    assert len(kept["files"]) > 10


@pytest.mark.long
def test_a_run_after_a_backfill_is_the_run_that_streamed_everything(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    spec = agent()
    done = run_backfill(PlacedAgent(settings, spec), history)
    assert {name: done[name] for name in Loaded.__dataclass_fields__} == {
        "read": 502, "stored": 500, "quarantined": 1, "duplicates": 1, "filtered": 0,
    }  # fmt: skip
    assert done["events_per_s"] > 0
    assert table(settings, "alerts", "outbox_seq").height == 0
    run_live(PlacedAgent(settings, spec), EVENTS[HISTORY:])
    whole = streamed(tmp_path / "whole", spec)
    assert stored(settings) == stored(whole)
    found = alerts_from(settings, HISTORY)
    assert found == alerts_from(whole, HISTORY)
    assert len(found) > 15
    assert any(each["sequence"] < HISTORY for each in found), "an absence that history left open"


@pytest.mark.long
@pytest.mark.parametrize("moment", list(Passed))
@pytest.mark.parametrize("nth", [1, 2, 3, 5])
def test_a_backfill_cut_off_anywhere_goes_on(
    settings: Settings, history: Path, tmp_path: Path, moment: Passed, nth: int, uncut: Uncut
) -> None:
    spec, left = agent(), nth

    def cut(passed: Passed) -> None:
        nonlocal left
        left -= passed == moment
        if left == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(PlacedAgent(settings, spec), open_history(history, CONTRACT), reached=cut)
    cold = (moment, nth) == (Passed.SET_ASIDE, 1)
    if cold:
        assert run_backfill(PlacedAgent(settings, spec), history)["stored"] == HISTORY
    elif (moment, nth) != (Passed.CLOSED, 5):
        other = tmp_path / "other.jsonl"
        other.write_text(json.dumps(EVENTS[0]) + "\n")
        with pytest.raises(ConfigurationError, match="is not finished, and this is another source"):
            run_backfill(PlacedAgent(settings, spec), other)
        with (
            pytest.raises(ConfigurationError, match="finish it with `flagstream backfill`"),
            open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", Clients(settings, "none")),
        ):
            raise AssertionError
        assert run_backfill(PlacedAgent(settings, spec), history)["stored"] == HISTORY
    assert stored(settings) == uncut.stored
    for name in ("quarantine", "duplicates"):
        assert table(settings, name, "offset").height == 1
    assert batches_of(settings).equals(uncut.batches)
    run_live(PlacedAgent(settings, spec), EVENTS[HISTORY:])
    assert alerts_from(settings, 0) == uncut.alerts
    assert len(uncut.alerts) > 15


@pytest.mark.long
def test_nothing_is_alerted_replayed_or_previewed_of_history(settings: Settings, history: Path) -> None:
    spec = agent()
    run_backfill(PlacedAgent(settings, spec), history)
    with pytest.raises(ConfigurationError, match="loaded by a backfill"):
        run_what_if(PlacedAgent(settings, spec), spec, ReplaySpan())
    judge(PlacedAgent(settings, spec), [f"t{number:05d}" for number in range(0, 480, 9)])
    run_live(PlacedAgent(settings, spec), EVENTS[HISTORY:])
    found = run_replay(PlacedAgent(settings, spec), ReplaySpan())
    assert (found.rows, found.backfilled, found.differences) == (ROWS - HISTORY, HISTORY, ())
    assert found.alerts == len(alerts_from(settings, 0)) > 15
    same = run_what_if(PlacedAgent(settings, spec), spec, ReplaySpan())
    assert (same.span, same.added, same.removed) == ((HISTORY, ROWS), 0, 0)
    assert same.kept == found.alerts
    create_snapshot(settings, AgentDefinition.pinned(spec, CONTRACT), "all", found.span)
    assert run_replay(PlacedAgent(settings, spec), ReplaySpan(snapshot="all")) == found


@pytest.mark.long
def test_history_comes_first_or_not_at_all(settings: Settings, history: Path, tmp_path: Path) -> None:
    spec = agent()
    run_backfill(PlacedAgent(settings, spec), history)
    rows = stored(settings)
    with pytest.raises(ConfigurationError, match="is finished"):
        run_backfill(PlacedAgent(settings, spec), history)
    assert stored(settings) == rows
    live = Settings.load(tmp_path / "live", {})
    run_live(PlacedAgent(live, spec), EVENTS[:50])
    with pytest.raises(ConfigurationError, match="has stored transactions already"):
        run_backfill(PlacedAgent(live, spec), history)
    assert len(stored(live)) == 50


def test_rejects_that_another_source_left_are_never_mixed_in(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.jsonl"
    first.write_text(json.dumps({**EVENTS[0], "amount": "much"}) + "\n" + json.dumps(EVENTS[1]) + "\n")

    def cut(_: Passed) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(PlacedAgent(settings, agent()), open_history(first, CONTRACT), reached=cut)
    assert table(settings, "quarantine", "offset").height == 1
    with pytest.raises(ConfigurationError, match="has stored transactions already"):
        run_backfill(PlacedAgent(settings, agent()), history)
    assert run_backfill(PlacedAgent(settings, agent()), first)["quarantined"] == 1


def broken(path: Path) -> Path:
    path.write_text(json.dumps(EVENTS[0]) + "\n" * 3 + '{"tx_id": "cut', encoding="utf-8")
    return path


def empty(path: Path) -> Path:
    path.write_text("\n", encoding="utf-8")
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (broken, "not JSON"),
        (empty, "holds no rows"),
        (folder, "a folder without files of data"),
        (lambda path: path, "no such"),
    ],
)
def test_a_source_that_cannot_be_read_writes_nothing(
    settings: Settings, tmp_path: Path, make: Callable[[Path], Path], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        run_backfill(PlacedAgent(settings, agent()), make(tmp_path / "given.jsonl"))
    assert not settings.home.exists()


def test_nothing_is_loaded_into_a_store_without_the_key_that_none_makes_there(
    history: Path, tmp_path: Path
) -> None:
    settings = Settings.load(tmp_path / "home", {"FLAGSTREAM_STORE": "s3://bucket/lake"})
    with pytest.raises(ConfigurationError, match=r"FLAGSTREAM_AUDIT_KEY: the audit log of .* needs a key"):
        run_backfill(PlacedAgent(settings, agent()), history)


def test_parquet_csv_json_lines_and_delta_tables_load_the_same(tmp_path: Path) -> None:
    spec, rows = agent(), pa.Table.from_pylist(EVENTS[:300])
    moments = pa.array([datetime.fromisoformat(each["event_time"]) for each in EVENTS[:300]])
    typed = rows.set_column(1, "event_time", moments).append_column("is_fraud", pa.repeat(pa.scalar(1), 300))
    shuffled = typed.append_column("sequence", pa.array(range(300))).take(list(range(299, -1, -1)))
    pl.DataFrame(typed).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(rows).write_csv(tmp_path / "a.csv")
    pl.DataFrame(rows).write_ndjson(tmp_path / "a.jsonl")
    for part in (0, 100, 200):
        write_deltalake(tmp_path / "numbered", shuffled.slice(part, 100), mode="append")
        write_deltalake(tmp_path / "raw", shuffled.drop_columns(["sequence"]).slice(part, 100), mode="append")
    found = []
    for name in ("a.parquet", "a.csv", "a.jsonl", "numbered", "raw"):
        each = Settings.load(tmp_path / f"home-{name}", {})
        assert run_backfill(PlacedAgent(each, spec), tmp_path / name)["stored"] == 300
        found.append(stored(each))
    decoded = Settings.load(tmp_path / "home-decoded", {})
    run_backfill(PlacedAgent(decoded, spec), tmp_path / "home-a.csv" / "lake" / "tester" / "transactions")
    found.append(stored(decoded))
    assert all(each == found[0] for each in found)


def test_a_delta_table_is_continued_at_the_version_that_was_begun(settings: Settings, tmp_path: Path) -> None:
    spec, rows, source = agent(), pa.Table.from_pylist(EVENTS[:300]), tmp_path / "source"
    write_deltalake(source, rows)

    def cut(passed: Passed) -> None:
        if passed is Passed.DECIDED:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(PlacedAgent(settings, spec), open_history(source, CONTRACT), reached=cut)
    write_deltalake(source, pa.Table.from_pylist(EVENTS[300:400]), mode="append")
    assert source_to_load(PlacedAgent(settings, spec), CONTRACT, source).version == 0
    assert run_backfill(PlacedAgent(settings, spec), source)["stored"] == 300


def test_the_command(settings: Settings, history: Path, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps(agent().model_dump(mode="json", exclude_defaults=True)))
    arguments = ["backfill", str(history), "--spec", str(file), "--home", str(settings.home), "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert "1 row of 502 went to quarantine: `flagstream quarantine list` says why" in done.stderr
    assert (facts["read"], facts["history_until"]) == (502, EVENTS[HISTORY - 1]["event_time"])
    assert f"history goes up to {facts['history_until']}" in done.stderr
    assert "starting_offsets is earliest, which reads all that it holds" in done.stderr


def test_the_end_says_that_a_topic_read_from_its_end_is_to_be_read_at_once(
    settings: Settings, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"contract": "simulator", "topic": "events", "starting_offsets": "latest"}
    load_history(PlacedAgent(settings, agent(data_sources={"transactions": source})), history, as_json=False)
    assert "starting_offsets is latest: the first run begins at the topic's end" in capsys.readouterr().err


def told_after(
    settings: Settings, sent: list[dict[str, Any]], at: datetime, patch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """What a run logs whose first batches hold `sent`, stamped by the broker at a moment."""
    told: list[dict[str, Any]] = []
    patch.setattr(history_overlap, "log", lambda _, text, **more: told.append({"text": text, **more}))
    spec, check = agent(), OverlapCheck(PlacedAgent(settings, agent()))
    with trial(settings.home, spec) as tried:
        for part in (sent[:60], sent[60:]):
            tried.send(part, at=at)
            check.closed(table(settings, "batches", "next_sequence").row(-1, named=True))
    return told


def test_a_topic_that_holds_history_is_pointed_out_once_and_its_payments_are_stored_twice(
    settings: Settings, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_backfill(PlacedAgent(settings, agent()), history)
    (told,) = told_after(settings, EVENTS[HISTORY - 50 : HISTORY + 70], LONG_AFTER, monkeypatch)
    assert told["repeated"] == 50
    assert "50 of the first 60 payments after the backfill were loaded by it already" in told["text"]
    rows = table(settings, "transactions", "sequence")
    assert _repeated(rows, CONTRACT.duplicates.horizon) == {
        "repeated_transactions": 0, "repeated_beyond_horizon": 50,
    }  # fmt: skip


@pytest.mark.long
def test_a_topic_that_goes_on_where_history_ends_is_not_pointed_out(
    settings: Settings, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_backfill(PlacedAgent(settings, agent()), history)
    assert told_after(settings, EVENTS[HISTORY:], LONG_AFTER, monkeypatch) == []
    alone = Settings.load(tmp_path / "alone", {})
    run_live(PlacedAgent(alone, agent()), EVENTS[:100])
    assert told_after(alone, EVENTS[:120], LONG_AFTER, monkeypatch) == []


def test_of_a_large_first_batch_the_oldest_payments_alone_are_compared(
    settings: Settings, history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_overlap, "MOST_COMPARED", 20)
    run_backfill(PlacedAgent(settings, agent()), history)
    (told,) = told_after(settings, EVENTS[HISTORY - 10 :], LONG_AFTER, monkeypatch)
    assert "10 of the first 20 payments" in told["text"]


@pytest.mark.long
def test_the_command_begins_the_audit_log_that_the_agent_goes_on_with(
    settings: Settings, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, file = agent(), tmp_path / "tester.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    given = ["backfill", history, "--spec", file, "--home", settings.home]
    monkeypatch.setattr(sys, "argv", ["flagstream", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    run_live(PlacedAgent(settings, spec), EVENTS[HISTORY:])
    places = AuditPlaces(PlacedAgent(settings, spec))
    assert check_audit(places).findings == ()
    (told,) = newest_events(places, "action", 10)
    assert (told["subject"], told["detail"]["rows"]) == ("backfill", HISTORY)
    assert newest_events(places, "configuration_change", 10)
