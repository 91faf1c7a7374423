"""Retention on a real lake: rows go, and whatever follows from them stays as it was."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from schemas.alert import ALERTS
from schemas.alert_documents import alert_documents
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_cut import cut_of
from streaming.audit.audit_log import AuditPlaces
from streaming.definition.agent_definition import AgentDefinition, check_retention
from streaming.delta.forgetting import forget_versions
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.delta.rewriting import maintained_alone
from streaming.history import reconcile
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.retention.enforcing import RetentionKeeper
from streaming.run import opening
from streaming.testing.live_lake import CONTRACT, agent, events, judge, records, run_live, without_broker
from streaming.versions.clients import Clients

AGE = "400d"
pytestmark = pytest.mark.timeout(300)
ROWS = 900
TABLES = ("transactions", "alerts", "ledger", "quarantine", "duplicates", "monitoring", "audit")


def spec(**changes: Any) -> AgentSpec:
    kept = dict.fromkeys(
        ("transactions", "alerts", "ledger", "quarantine", "duplicates", "monitoring", "audit"), AGE
    )
    return agent(retention=kept, **changes)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home, told = tmp_path_factory.mktemp("home"), events(ROWS)
    settings = Settings.load(home, {})
    broken = [{**told[0], "tx_id": f"r{number}", "amount": -1} for number in range(5)]
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, spec()), [*told[:500], *broken, *told[490:500]])
        judge(PlacedAgent(settings, spec()), [f"t{number:05d}" for number in range(0, 480, 40)])
        run_live(PlacedAgent(settings, spec()), told[500:], first_batch=10)
    return home


@pytest.fixture
def settings(lived: Path, tmp_path: Path) -> Settings:
    shutil.copytree(lived, tmp_path / "home")
    return Settings.load(tmp_path / "home", {})


def reader(settings: Settings) -> LakeReader:
    return LakeReader(settings.lake("tester"), spec().tables)


def closed_at(settings: Settings, reached: int) -> datetime:
    """Return when the first batch that reaches beyond a row was closed."""
    rows = reader(settings).frame("batches", ["next_sequence", "closed_at"]).sort("next_sequence")
    found: datetime = rows.filter(pl.col("next_sequence") > reached)["closed_at"][0]
    return found


def keep(settings: Settings, reached: int) -> dict[str, int]:
    """Take out what came before the batch that reaches beyond a row."""
    now = closed_at(settings, reached) + timedelta(days=400)
    return RetentionKeeper(settings, in_force, lambda: now, lambda: now).enforce()


def in_force() -> AgentDefinition:
    return AgentDefinition.pinned(spec(), CONTRACT)


def test_whole_batches_leave_and_numbers_go_on(settings: Settings) -> None:
    before = reader(settings).frame("alerts", ["outbox_seq", "sequence"])
    removed = keep(settings, 600)
    rows = reader(settings).frame("transactions", ["sequence"])["sequence"].sort()
    first = reader(settings).removed("transactions")[1]
    assert 500 <= first <= 600
    assert removed["transactions"] == first - rows.filter(rows < first).len()
    assert rows.filter(rows >= first).to_list() == list(range(first, ROWS))
    alerts = reader(settings).frame("alerts", ["outbox_seq", "sequence"])
    assert set(alerts.filter(pl.col("sequence") >= first)["outbox_seq"]) == set(
        before.filter(pl.col("sequence") >= first)["outbox_seq"]
    )
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, spec()), events(ROWS + 90)[ROWS:], first_batch=30)
    after = reader(settings).frame("alerts", ["outbox_seq"])["outbox_seq"]
    assert after.n_unique() == after.len()
    assert after.max() >= before["outbox_seq"].max()  # type: ignore[operator]  # numbers


def test_what_labels_known_since_are_about_stays_with_its_alerts(settings: Settings) -> None:
    judged, place = ["t00005", "t00123", "t00321"], PlacedAgent(settings, spec())
    judge(place, judged, source="later")
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(place, events(ROWS + 90)[ROWS:], first_batch=30)
    alerts = reader(settings).frame("alerts", ["outbox_seq", "transaction_id"]).sort("outbox_seq")
    keep(settings, 600)
    first = reader(settings).removed("transactions")[1]
    rows = reader(settings).frame("transactions", ["sequence", "transaction_id"])
    assert sorted(rows.filter(pl.col("sequence") < first)["transaction_id"]) == judged
    cut = reader(settings).removed("alerts")[1]
    after = reader(settings).frame("alerts", ["outbox_seq", "transaction_id"]).sort("outbox_seq")
    stays = (pl.col("outbox_seq") >= cut) | pl.col("transaction_id").is_in(judged)
    assert cut > 0
    assert after.equals(alerts.filter(stays))


def test_what_labels_known_before_are_about_goes(settings: Settings) -> None:
    keep(settings, 600)
    first = reader(settings).removed("transactions")[1]
    kept = (
        reader(settings)
        .frame("transactions", ["sequence", "transaction_id"])
        .filter(pl.col("sequence") < first)
    )
    assert first > 500
    assert kept.height == 0
    settings_of_labels = keep(settings, 100)
    assert settings_of_labels == {}


def test_a_restart_without_checkpoints_comes_to_the_same_state(settings: Settings, tmp_path: Path) -> None:
    shutil.copytree(settings.home, tmp_path / "whole")
    whole = Settings.load(tmp_path / "whole", {})
    keep(settings, 450)
    for path in settings.profiles("tester").path.iterdir():
        if path.name.isdecimal():
            shutil.rmtree(path)
    more = events(ROWS + 180)[ROWS:]
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        for each in (settings, whole):
            run_live(PlacedAgent(each, spec()), more, first_batch=30)
    columns = ["outbox_seq", "transaction_id", "score", "log_odds", "kind"]
    ours, theirs = (
        reader(each)
        .frame("alerts", columns)
        .filter(pl.col("outbox_seq") >= reader(settings).removed("alerts")[1])
        for each in (settings, whole)
    )
    late = ours.sort("outbox_seq").tail(5)
    assert late.equals(theirs.sort("outbox_seq").tail(5))
    assert newest_state(settings) == newest_state(whole)


def newest_state(settings: Settings) -> dict[str, bytes]:
    """Return the files of the newest checkpoint, but for those of rules, which number entities anew."""
    folder = settings.profiles("tester").path
    newest = max(path for path in folder.iterdir() if path.name.isdecimal())
    files = [path for path in sorted(newest.iterdir()) if not path.name.startswith(("pattern", "manifest"))]
    return {path.name: path.read_bytes() for path in files}


def test_replays_begin_at_the_cut_and_say_what_they_cannot(settings: Settings) -> None:
    keep(settings, 450)
    first = reader(settings).removed("transactions")[1]
    found = run_replay(PlacedAgent(settings, spec()), ReplaySpan())
    assert (found.differences, found.span.first) == ((), first)
    assert found.rows == ROWS - first
    with pytest.raises(ConfigurationError, match=f"before sequence {first} were removed by retention: {AGE}"):
        run_replay(PlacedAgent(settings, spec()), ReplaySpan(from_version=0, to_version=4))
    # A second cut begins from what the first has left.
    keep(settings, 700)
    again = run_replay(PlacedAgent(settings, spec()), ReplaySpan())
    assert again.span.first > first
    assert again.differences == ()


def test_a_snapshot_outlives_what_leaves_the_tables(settings: Settings) -> None:
    before = run_replay(PlacedAgent(settings, spec()), ReplaySpan())
    create_snapshot(settings, in_force(), "kept", before.span)
    keep(settings, 600)
    assert reader(settings).removed("transactions")[1] > 500
    found = run_replay(PlacedAgent(settings, spec()), ReplaySpan(snapshot="kept"))
    assert (found.differences, found.rows, found.alerts) == ((), ROWS, before.alerts)


def test_profiles_that_nothing_holds_are_refused_by_name_in_a_replay(settings: Settings) -> None:
    keep(settings, 450)
    shutil.rmtree(settings.profiles("tester").path)
    assert (
        run_replay(PlacedAgent(settings, spec()), ReplaySpan()).differences == ()
    )  # from versions of before
    with maintained_alone(place := reader(settings).place("transactions")):
        forget_versions(place, shared=False)
    with pytest.raises(ConfigurationError, match="no checkpoint of these profiles says"):
        run_replay(PlacedAgent(settings, spec()), ReplaySpan())


def test_redeliveries_within_the_horizon_are_recognised_after_a_cut(settings: Settings) -> None:
    keep(settings, ROWS - 1)
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, spec()), events(ROWS)[ROWS - 30 :], first_batch=30)
    assert reader(settings).frame("transactions", ["sequence"])["sequence"].max() == ROWS - 1


def test_the_audit_log_says_where_it_begins_and_cannot_be_cut_in_silence(settings: Settings) -> None:
    keep(settings, 600)
    places = AuditPlaces(PlacedAgent(settings, spec()))
    rows = reader(settings).frame("audit", ["number", "kind", "subject"])
    found = check_audit(places)
    assert found.sound
    assert found.first == rows["number"].min() > 0  # type: ignore[operator]  # numbers
    assert rows.filter(pl.col("subject") == "retention").height == 1
    cut = cut_of(places).place.path
    noted = json.loads(cut.read_text())
    cut.write_text(json.dumps({**noted, "number": noted["number"] + 1}))
    assert [each.problem for each in check_audit(places).findings] == ["anchor", "missing"]
    cut.unlink()
    assert [each.problem for each in check_audit(places).findings] == ["missing"]


def test_replaced_files_count_as_long_deleted_an_hour_later(settings: Settings) -> None:
    keep(settings, 450)
    place = reader(settings).place("transactions")
    newest = max((place / "_delta_log").path.glob("*.json"))
    removed = [json.loads(line).get("remove") for line in newest.read_text().splitlines()]
    times = {each["deletionTimestamp"] for each in removed if each is not None}
    now = closed_at(settings, 450) + timedelta(days=400)
    assert times == {int((now - spec().replay_horizon + timedelta(hours=1)).timestamp() * 1000)}


def test_it_looks_once_a_day(settings: Settings) -> None:
    now = closed_at(settings, 450) + timedelta(days=400)
    moments = [now]
    keeper = RetentionKeeper(settings, in_force, lambda: moments[0], lambda: moments[0])
    assert keeper.round()
    assert not keeper.round()
    moments[0] = closed_at(settings, 700) + timedelta(days=400)
    assert not keeper.round()
    moments[0] = now + timedelta(days=1)
    assert keeper.round()


def test_a_running_agent_goes_on_beside_it(settings: Settings) -> None:
    more = records(events(ROWS + 180)[ROWS:])
    with pytest.MonkeyPatch.context() as patch, Clients(settings, "none") as clients:
        without_broker(patch)
        with opening.open_agent(PlacedAgent(settings, spec()), "127.0.0.1:1", clients) as started:
            for number in range(2):
                part = more.slice(90 * number, 90)
                started.pipeline.process(partial(same, part), "live", 30 + number, dict)
                assert keep(settings, 450 + 200 * number)["transactions"]
    assert reader(settings).frame("transactions", ["sequence"])["sequence"].max() == ROWS + 179
    assert run_replay(PlacedAgent(settings, spec()), ReplaySpan()).differences == ()


def same(part: pa.Table) -> pa.Table:
    return part


class Sent:
    """A message on the alerts topic."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return []


def test_what_was_removed_counts_as_stored_and_as_seen(settings: Settings) -> None:
    sent = [Sent(each) for each in alert_documents(reader(settings).rows("alerts", ALERTS.names))]
    removed = keep(settings, 600)
    assert removed["alerts"] > 0
    assert removed["quarantine"] == 5
    assert removed["duplicates"] == 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconcile, "topic_exists", lambda *_: True)
        patch.setattr(reconcile, "committed_messages", lambda *_: sent)
        place, horizon = settings.lake("tester"), CONTRACT.duplicates.horizon
        found = reconcile.reconcile(AgentLake(place, spec()), "127.0.0.1:1", horizon)
    assert found.differences == 0, found
    assert found.alerts_on_kafka == found.alerts_in_delta < len(sent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retention": {"transactions": "10d"}}, "retention.transactions is 10d, but .* needs them for 30d"),
        ({"retention": {"alerts": "90d"}}, "kept as long as transactions, and these are kept for ever"),
        ({"retention": {"transactions": "90d", "alerts": "60d"}}, "at least as long as transactions, 90d"),
        ({"retention": {"quarantine": "1h"}}, "greater than or equal to"),
        (
            {"retention": {"transactions": "90d"}, "replay_horizon": "100d"},
            "replay_horizon needs them for 100d",
        ),
    ],
)
def test_a_spec_that_keeps_too_little_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        agent(**changes)


def test_the_horizon_of_duplicates_is_covered() -> None:
    long = CONTRACT.model_copy(
        update={"duplicates": CONTRACT.duplicates.model_copy(update={"horizon": timedelta(days=60)})}
    )
    with pytest.raises(ConfigurationError, match=r"duplicates.horizon, twice, needs them for 120d"):
        check_retention(agent(retention={"transactions": "90d"}), long)


def test_a_spec_without_it_has_the_digest_it_had() -> None:
    assert "retention" not in json.loads(agent().model_dump_json())
