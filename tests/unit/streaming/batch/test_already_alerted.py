"""No absence is alerted twice, whoever comes to own it, and replays leave out what was left out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.spec import AgentSpec
from streaming.batch.steps import BatchStep
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.history.replay import Replayer
from streaming.history.replay_runs import ReplaySpan
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run import opening
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import CONTRACT, LARGE, SILENT, TOPIC, agent, events, records, without_broker
from streaming.versions.clients import Clients
from tests.registry_rows import activate, entry, put

ROWS = 60
TOLD = events(900, seed=5)


def with_lateness(lateness: str, version: str, within: str = "2h", percent: float = 10) -> AgentSpec:
    silent = {**SILENT, "absence": {**SILENT["absence"], "within": within, "lateness": lateness}}
    return agent(version=version, rules=[LARGE, silent], promotion={"canary_percent": percent})


FIRST = with_lateness("0s", "1.0.0")
PATIENT = with_lateness("3h", "1.1.0")


class _EndedError(Exception):
    """The process is gone."""


def run(settings: Settings, first: int, end: int, ended: tuple[int, BatchStep] | None = None) -> None:
    """Run batches `first` to `end`, each by the versions that are registered."""
    stream, at = records(TOLD), [0]

    def reached(step: BatchStep) -> None:
        if ended == (at[0], step):
            raise _EndedError

    hooks = Hooks(reached=reached)
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, FIRST), "", clients, hooks) as started,
    ):
        for number in range(first, end):
            at[0] = number
            part = stream.slice(number * ROWS, ROWS)
            offsets = {TOPIC: {"0": (number + 1) * ROWS}}
            started.pipeline.process(lambda part=part: part, "live", number, lambda offsets=offsets: offsets)


def stored(settings: Settings, table: str) -> list[dict[str, Any]]:
    rows = read_stored(settings.lake("tester") / table)
    assert rows is not None
    return rows.to_pylist()


def replayed(settings: Settings) -> Sequence[object]:
    history = ReplaySpan().history(PlacedAgent(settings, FIRST))
    return (
        Replayer(settings, AgentDefinition.pinned(FIRST, CONTRACT), history, slice_rows=77)
        .exactly(history.whole)
        .differences
    )


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a version that waits longer takes over, after it has decided a share."""
    home = tmp_path_factory.mktemp("under_way")
    settings = Settings.load(home, {})
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        activate(settings, FIRST)
        run(settings, 0, 4)
        put(settings, entry(PATIENT, "canary", "promoted"))
        run(settings, 4, 6)
        run(settings, 6, 8)  # what the canary waits for outlives a restart
        activate(settings, PATIENT, FIRST)
    return home


@pytest.fixture
def promoted_under_way(under_way: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    shutil.copytree(under_way, tmp_path, dirs_exist_ok=True)
    return Settings.load(tmp_path, {})


@pytest.mark.long
@pytest.mark.parametrize("ended", [None, BatchStep.STORE, BatchStep.ALERT])
def test_a_canary_that_waits_longer_tells_nothing_twice_once_it_is_promoted(
    promoted_under_way: Settings, ended: BatchStep | None
) -> None:
    settings = promoted_under_way
    # Some of what is refused is refused in a batch that a crash cuts off, and found again by the next driver.
    if ended is not None:
        with pytest.raises(_EndedError):
            run(settings, 8, 11, (10, ended))
    run(settings, 8, 15)
    alerts = stored(settings, "alerts")
    identities = [(alert["alert_id"], alert["revision"]) for alert in alerts]
    assert len(set(identities)) == len(identities)
    refused = [each for batch in stored(settings, "batches") for each in batch["refused"] or ()]
    assert refused
    assert set(refused) <= {alert["alert_id"] for alert in alerts}
    assert sum(batch["alerts"] for batch in stored(settings, "batches")) == len(alerts)
    assert replayed(settings) == ()


@pytest.mark.long
def test_a_rollback_and_a_changed_share_tell_nothing_twice(promoted_under_way: Settings) -> None:
    wide, settings = with_lateness("0s", "1.0.1", percent=60), promoted_under_way
    run(settings, 8, 9)
    activate(settings, wide, PATIENT)
    put(settings, entry(PATIENT, "canary", "promoted"))
    run(settings, 9, 11)
    activate(settings, FIRST, wide)
    run(settings, 11, 15)
    identities = [(alert["alert_id"], alert["revision"]) for alert in stored(settings, "alerts")]
    assert len(set(identities)) == len(identities)
    assert replayed(settings) == ()
