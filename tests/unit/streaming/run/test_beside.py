"""What works beside the batches survives what befalls it: the shadow, checkpoints, late answers, the lane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from schemas.errors import DiskError, RetryableError
from schemas.spec import AgentSpec
from streaming.batch import deciders, late_answers
from streaming.batch.decider import Decider
from streaming.batch.engine import Engine
from streaming.delta.whole_tables import read_stored
from streaming.detection import checkpoints
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord
from streaming.run import alerts_end, opening
from streaming.run.opening import Agent
from streaming.service import worker
from streaming.service.health import Condition, Health
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import TOPIC, QuietLane, agent, events, frame, records, without_broker
from streaming.versions.clients import Clients
from tests.registry_rows import activate, entry, put

SECONDS = 60.0
Told = list[tuple[Condition, str | None]]


class Panic(BaseException):
    """What a compiled library raises where it meets what it thought impossible."""


def failing(real: Callable[..., Any], *faults: BaseException) -> Callable[..., Any]:
    """Raise each fault once, then do the real thing."""
    left = list(faults)

    def call(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop(0)
        return real(*arguments, **named)

    return call


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_SHORTEST_PAUSE_SECONDS", 0.01)
    without_broker(monkeypatch)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(tmp_path / "home", {})


@contextmanager
def opened(settings: Settings, spec: AgentSpec, llm: str = "none") -> Iterator[tuple[Agent, Told]]:
    told: Told = []
    health = Health(changed=lambda each, state: told.append((each, state and state.cause)))
    with (
        Clients(settings, llm) as clients,
        opening.open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients, health=health) as started,
    ):
        yield started, told
    assert health.active == ()


def process(started: Agent, rows: pa.Table, first: int, number: int) -> None:
    end = {TOPIC: {"0": first + rows.num_rows}}
    assert started.pipeline.process(lambda: rows, "live", number, lambda: end) is not None


@pytest.mark.parametrize("place", ["build_alerts", "commit"])
def test_the_shadow_outlives_a_panic_and_decides_each_batch_once(
    place: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = agent()
    activate(settings, spec)
    put(settings, entry(agent(version="1.1.0", threshold=0.9), "shadow", "promoted"))
    faults = (Panic("index out of range"), ValueError("a surprise"))
    if place == "commit":  # half-way: the row is stored, the state has not moved on
        real = Engine.commit

        def commit(engine: Engine, judged: Any) -> None:
            beside = engine.spec.version == "1.1.0"
            (failed if beside else real)(engine, judged)

        failed = failing(real, *faults)
        monkeypatch.setattr(Engine, "commit", commit)
    else:
        build = deciders.build_alerts
        failed = failing(build, *faults)

        def build_alerts(decider: Decider, *arguments: Any) -> pa.Table:
            return (failed if decider.spec.version == "1.1.0" else build)(decider, *arguments)

        monkeypatch.setattr(deciders, place, build_alerts)
    rows = records(events(240))
    table = settings.lake(spec.name) / "shadow"
    with opened(settings, spec) as (started, told):
        for number in range(4):
            process(started, rows.slice(60 * number, 60), 60 * number, number)
        wait_until(
            lambda: (found := read_stored(table)) is not None and found.num_rows == 4, SECONDS, "the shadow"
        )
        wait_until(lambda: bool(told) and told[-1] == (Condition.SHADOW_FAILING, None), SECONDS, "its end")
    found = frame(read_stored(table)).sort("first_sequence")
    assert found["next_sequence"].to_list() == [60, 120, 180, 240]
    assert told == [
        (Condition.SHADOW_FAILING, "Panic: index out of range"),
        (Condition.SHADOW_FAILING, "ValueError: a surprise"),
        (Condition.SHADOW_FAILING, None),
    ]


def test_a_checkpoint_that_could_not_be_written_is_written_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(checkpoints, "write", failing(checkpoints.write, full, Panic("index out of range")))
    spec = agent(profiles={"block_rows": 64, "checkpoint_rows": 50})
    with opened(settings, spec) as (started, told):
        process(started, records(events(90)), 0, 0)
        wait_until(
            lambda: bool(told) and told[-1] == (Condition.CHECKPOINT_FAILING, None), SECONDS, "its end"
        )
    assert [cause for _, cause in told] == [str(full), "Panic: index out of range", None]
    assert [path.name for path in settings.profiles(spec.name).path.iterdir()] == [f"{90:020d}"]


def test_late_answers_outlive_what_befalls_them(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = (Panic("index out of range"), DiskError("full"), ValueError("a surprise"))
    monkeypatch.setattr(late_answers, "next_window", failing(late_answers.next_window, *faults))
    with scripted.scripted_llm() as server:
        spec = agent(llm={"base_url": server.base_url}, rules=[], threshold=0.9)
        with opened(settings, spec, "auto") as (started, told):
            process(started, records(events(200)), 0, 0)
            late = started.late
            wait_until(lambda: late is not None and late.totals.answered > 0, SECONDS, "an answer")
    assert (Condition.LATE_ANSWERS_FAILING, None) in told
    assert [cause for _, cause in told if cause] == [
        "Panic: index out of range",
        "full",
        "ValueError: a surprise",
    ]


class LaneThatBreaks(QuietLane):
    """Sends the first alerts and fails with the next."""

    fault: BaseException

    def publish(self, records: Sequence[OutboxRecord]) -> int:  # type: ignore[override]  # read once is enough
        if self.marker > 0:
            raise self.fault
        return super().publish(records)


@pytest.mark.parametrize("fault", [RetryableError("no answer in 60 s"), Panic("no answer in 60 s")])
def test_a_lane_that_broke_beside_the_batches_stops_an_idle_agent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    """A pipeline with a broken lane must be replaced, although no batch comes that would find it broken."""
    monkeypatch.setattr(LaneThatBreaks, "fault", fault, raising=False)
    monkeypatch.setattr(alerts_end, "Publisher", LaneThatBreaks)
    with scripted.scripted_llm() as server:
        spec = agent(llm={"base_url": server.base_url}, rules=[], threshold=0.9)
        with opened(settings, spec, "auto") as (started, _):
            process(started, records(events(200)), 0, 0)

            def stopped() -> bool:
                try:
                    started.pipeline.check()
                except RetryableError as raised:
                    return "start anew" in str(raised) and "no answer in 60 s" in str(raised)
                return False

            wait_until(stopped, SECONDS, "the agent to stop")
