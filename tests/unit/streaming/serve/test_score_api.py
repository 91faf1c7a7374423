"""Scoring an event over HTTP is what the agent makes of it when it comes, and changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.errors import RetryableError
from streaming.delta.stored import StoredTable
from streaming.detection import checkpoints
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.api import Reach, build_server
from streaming.serve.follower import EventScore, Follower
from streaming.serve.routers import ROUTERS
from streaming.serve.served_agent import ServedAgent
from streaming.store.opening import folders_of
from streaming.testing.api import ApiClient
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import LARGE, SILENT, agent, events, judge
from streaming.testing.trial import Trial, trial

SPEC = agent(rules=[LARGE, SILENT])
SENT = events(420)


@pytest.fixture
def tried(tmp_path: Path) -> Iterator[Trial]:
    with trial(tmp_path, SPEC) as running:
        for first in range(0, 400, 100):
            running.send(SENT[first : first + 100])
        yield running


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_event_is_scored_as_the_agent_then_decides_it(tried: Trial) -> None:
    follower = Follower(PlacedAgent(tried.settings, SPEC))
    assert not follower.is_ready
    with pytest.raises(RetryableError):
        follower.score(SENT[400])
    assert follower.refresh()
    foretold = [follower.score(SENT[400]) for _ in range(2)]
    assert foretold[0].score == foretold[1].score, "nothing moves"
    assert foretold[0].sequence == 400
    large = {**SENT[400], "amount": 9_000.0}
    first = follower.score(large)
    assert first.alert is not None
    tried.send([large])
    (alert,) = [each for each in tried.alerts if each["transaction_id"] == large["tx_id"]]
    for name in ("score", "log_odds", "base", "severity", "classification", "rules"):
        assert first.alert[name] == alert[name], name
    assert [(each.name, each.contribution) for each in first.reasons] == [
        (each["name"], each["contribution"]) for each in alert["reasons"]
    ]
    assert follower.refresh()
    assert follower.score(SENT[401]).sequence == 401
    assert not follower.refresh()


def test_labels_that_batches_knew_count(tried: Trial) -> None:
    follower = Follower(PlacedAgent(tried.settings, SPEC))
    follower.refresh()
    repeated = {**SENT[401], "customer_id": SENT[399]["customer_id"]}
    before = follower.score(repeated)
    judge(PlacedAgent(tried.settings, SPEC), [SENT[399]["tx_id"]])
    tried.send([SENT[400]])
    follower.refresh()
    fresh = Follower(PlacedAgent(tried.settings, SPEC))
    fresh.refresh()
    assert follower.score(repeated).log_odds == fresh.score(repeated).log_odds, "however it came there"
    assert before.sequence == 400


def failing(*_: object, **__: object) -> None:
    raise RetryableError("the store is away")


@pytest.mark.parametrize(
    "away",
    ["streaming.batch.engine.Engine.on_rules", "streaming.serve.follower.References",
     "streaming.batch.engine.Engine.restore"],
)  # fmt: skip
def test_what_was_caught_up_with_under_other_pins_in_part_scores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    """Neither the version before on the memory of the next one, nor the other way round."""
    with trial(tmp_path, SPEC) as running:
        running.send(SENT[:100])
    follower = Follower(PlacedAgent(running.settings, SPEC))
    follower.refresh()
    assert follower.score(SENT[100]).spec_version == "1.0.0"
    later = agent(version="1.1.0", threshold=0.5)
    with trial(tmp_path, later) as running:
        running.send(SENT[100:200])
    with monkeypatch.context() as broken:
        broken.setattr(away, failing)
        for _ in range(2):
            with pytest.raises(RetryableError, match="away"):
                follower.refresh()
            with pytest.raises(RetryableError, match="caught up"):
                follower.score(SENT[200])
    assert follower.refresh()
    fresh = Follower(PlacedAgent(running.settings, later))
    fresh.refresh()
    found, expected = follower.score(SENT[200]), fresh.score(SENT[200])
    assert (found.spec_version, found.threshold, found.log_odds, found.sequence) == (
        "1.1.0", expected.threshold, expected.log_odds, 200
    )  # fmt: skip


def test_a_store_that_is_away_under_the_same_pins_leaves_what_is_known(
    tried: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower(PlacedAgent(tried.settings, SPEC))
    follower.refresh()
    before = follower.score(SENT[401])
    tried.send([SENT[400]])
    with monkeypatch.context() as broken:
        broken.setattr("streaming.batch.engine.Engine.restore", failing)
        with pytest.raises(RetryableError):
            follower.refresh()
    found = follower.score(SENT[401])
    assert (found.log_odds, found.sequence) == (before.log_odds, 400)


def test_scores_go_on_while_rows_are_read(tried: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower(PlacedAgent(tried.settings, SPEC))
    follower.refresh()
    tried.send([SENT[400]])
    read, found = StoredTable.read, list[EventScore]()

    def reading(self: StoredTable, column: str, *more: Any, **named: Any) -> pa.Table:
        if column == "sequence":
            beside = threading.Thread(target=lambda: found.append(follower.score(SENT[401])), daemon=True)
            beside.start()
            beside.join(60.0)
        return read(self, column, *more, **named)

    monkeypatch.setattr(StoredTable, "read", reading)
    assert follower.refresh()
    assert [each.sequence for each in found] == [400]
    assert follower.score(SENT[401]).sequence == 401


def test_a_checkpoint_a_little_ahead_is_not_read(tried: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds every entity, and few rows are missing."""
    follower = Follower(PlacedAgent(tried.settings, SPEC))
    follower.refresh()
    for number in range(4):
        tried.send([{**each, "tx_id": f"again-{number}-{each['tx_id']}"} for each in SENT[:100]])
    folders = folders_of(tried.settings.profiles(SPEC.name), tried.settings.spool)

    def newest() -> str:
        return max((name for name in folders.names() if name.isdigit()), default="")

    wait_until(lambda: newest() > f"{400:020d}", 60.0, "a checkpoint of rows that are missing")
    with monkeypatch.context() as unread:
        unread.setattr(checkpoints, "_found", failing)
        assert follower.refresh()
    fresh = Follower(PlacedAgent(tried.settings, SPEC))
    fresh.refresh()
    found, expected = follower.score(SENT[401]), fresh.score(SENT[401])
    assert (found.sequence, found.log_odds) == (800, expected.log_odds)


def client_of(settings: Settings, *, scores: bool) -> ApiClient:
    served = ServedAgent(PlacedAgent(settings, SPEC), scores=scores)
    client = ApiClient(build_server([served], Reach(), ROUTERS), settings)
    if served.follower is not None:
        served.follower.refresh()
    client.headers.update(client.bearer(SPEC, "read"))
    return client


def score(client: ApiClient, event: Mapping[str, Any]) -> Any:
    return client.post("/v1/score", json={"event": event})


def test_the_answer_has_contributions_that_add_up_and_changes_no_file(tried: Trial) -> None:
    client = client_of(tried.settings, scores=True)
    before = files_in(tried.settings.lake(SPEC.name).path)
    found = score(client, {**SENT[400], "amount": 9_000.0})
    assert found.status_code == 200, found.text
    answer = found.json()
    assert answer["adds_up"]
    assert answer["flagged"]
    assert answer["rules"] == ["large"]
    assert answer["sequence"] == 400
    assert answer["age_seconds"] >= 0
    usual = score(client, {**SENT[400], "amount": SENT[399]["amount"]}).json()
    assert usual["score"] < answer["score"]
    assert files_in(tried.settings.lake(SPEC.name).path) == before


def test_what_does_not_fit_the_contract_says_why_and_quotes_nothing(tried: Trial) -> None:
    client = client_of(tried.settings, scores=True)
    wrong = score(client, {**SENT[400], "amount": "a secret of customer-42"})
    assert wrong.status_code == 400
    assert "does not fit the contract" in wrong.json()["detail"]
    assert "customer-42" not in wrong.text


@pytest.mark.parametrize("odd", ["1" + "0" * 30, r'"\ud800"'])
def test_what_no_event_may_hold_is_the_fault_of_who_sends_it(tried: Trial, odd: str) -> None:
    client = client_of(tried.settings, scores=True)
    sent = {**SENT[400], "memo": "ODD"}
    body = json.dumps({"event": sent}).replace('"ODD"', odd)
    found = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400, found.text
    assert found.json()["where"] == "event"


def test_a_server_scores_only_where_it_was_asked_to(tried: Trial) -> None:
    answer = score(client_of(tried.settings, scores=False), SENT[400])
    assert answer.status_code == 404
    assert "--score" in answer.json()["detail"]
