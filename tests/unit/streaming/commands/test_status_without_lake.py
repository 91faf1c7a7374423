"""Status of an agent whose lake lies in a store that is away: what the running agent says, and no totals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.model.processes import free_port
from schemas.errors import StoreError
from streaming.commands.status import show_status
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.service.health import Condition, Health
from streaming.testing.live_lake import agent

SINCE = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a machine whose store nobody answers for."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "x")
    options = "max_retries=0,timeout=2s,retry_timeout=1s"
    given = {"FLAGSTREAM_STORE": "s3://lake/payments", "FLAGSTREAM_STORE_OPTIONS": options}
    return Settings.load(tmp_path, given)


@pytest.fixture
def waiting(settings: Settings) -> Iterator[None]:
    """An agent that runs and waits for the store."""
    with closing(Health(settings.health("tester"), clock=lambda: SINCE)) as health:
        health.begins(Condition.STORE_AWAY, "nobody answers")
        yield


@pytest.mark.usefixtures("waiting")
def test_programs_are_told_what_the_running_agent_waits_for(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoreError, match="s3://lake/payments/lake/tester: "):
        show_status(PlacedAgent(settings, agent()), as_json=True)
    condition = {"condition": "store_away", "cause": "nobody answers", "since": SINCE.isoformat()}
    assert json.loads(capsys.readouterr().out) == {
        "running": True,
        "conditions": [condition],
        "executors": None,
        "mode": None,
        "buckets": None,
    }


@pytest.mark.usefixtures("waiting")
def test_people_are_told_what_the_running_agent_waits_for(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoreError):
        show_status(PlacedAgent(settings, agent()), as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "running yes" in said
    assert "store_away since 2026-05-01 12:00:00Z: nobody answers" in said


def test_an_agent_that_does_not_run_waits_for_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoreError):
        show_status(PlacedAgent(settings, agent()), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "running": False,
        "conditions": [],
        "executors": None,
        "mode": None,
        "buckets": None,
    }
