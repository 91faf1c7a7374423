"""A run that waits for another one says so, beside what that one says of itself, and takes its place."""

from __future__ import annotations

import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import FencedError, RetryableError
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run import ownership
from streaming.run.ownership import Ownership, owned
from streaming.run.status import read_status
from streaming.service.health import Condition, Health, beside, is_running, read_health
from streaming.service.supervisor import Need, Supervisor
from streaming.service.worker import Worker
from streaming.store import owner
from streaming.store.opening import files_of
from streaming.store.owner import OwnerRecord
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import agent

SECONDS = 20.0
SPEC = agent()


def record(settings: Settings) -> OwnerRecord:
    held = files_of(settings.owners).read("tester.json")
    found = None if held is None else OwnerRecord.parse(held.content)
    assert found is not None
    return found


def test_a_second_run_on_the_same_machine_waits_and_follows_at_once(settings: Settings) -> None:
    file = settings.health(SPEC.name)
    with closing(Health(file)) as first_health, closing(Health(beside(file))) as second_health:
        first, second = (
            Ownership.of(PlacedAgent(settings, SPEC), each) for each in (first_health, second_health)
        )
        with closing(first):
            assert first.waits_for() is None
            first_health.begins(Condition.MODEL_FAILING, "no quota")
            done, stop = threading.Event(), threading.Event()
            supervisor = Supervisor([Need(Condition.ANOTHER_RUN, second.waits_for)], second_health, stop)
            waiting = threading.Thread(target=lambda: supervisor.run(done.set))
            waiting.start()

            def conditions() -> dict[Condition, str]:
                status = read_status(PlacedAgent(settings, SPEC), None)
                found = status.with_health(file, settings.lake(SPEC.name)).conditions
                return {each.condition: each.cause for each in found}

            wait_until(lambda: Condition.ANOTHER_RUN in conditions(), SECONDS, "the second to say it waits")
            assert conditions()[Condition.MODEL_FAILING] == "no quota", "what the first one says stays"
            assert record(settings).who in conditions()[Condition.ANOTHER_RUN]
            assert not done.is_set()
        first_health.close()
        assert done.wait(SECONDS)
        waiting.join()
        assert read_health(beside(file)) == ()
        assert is_running(file), "the second has the file now"
        second.close()
    assert record(settings).holder == ""


def test_whose_record_is_gone_ends_it_at_the_next_beat(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.01)
    with closing(Ownership.of(PlacedAgent(settings, SPEC), Health())) as ours:
        assert ours.waits_for() is None
        wait_until(lambda: record(settings).beat > 1, SECONDS, "the counter to move")
        files_of(settings.owners).remove("tester.json")

        def fenced() -> bool:
            try:
                ours.check()
            except FencedError as fault:
                return "its record is gone" in str(fault)
            return False

        wait_until(fenced, SECONDS, "the next beat")
        with pytest.raises(FencedError):
            ours.waits_for()


def test_after_faults_the_counter_moves_again_within_a_beat(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Worker] = []

    class Kept(Worker):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            made.append(self)

        def start(self) -> None:
            """Its rounds are the test's."""

    monkeypatch.setattr(ownership, "Worker", Kept)
    with closing(Ownership.of(PlacedAgent(settings, SPEC), Health())) as ours:
        assert ours.waits_for() is None
        shutil.rmtree(settings.owners.path)
        settings.owners.path.write_text("a file where the folder is to be")
        pauses = [made[0].attempt() for _ in range(20)]
        settings.owners.path.unlink()
    assert all(pause is not None and pause <= owner.BEAT_SECONDS for pause in pauses), pauses


def test_a_command_that_claims_the_lake_gives_up_while_the_agent_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "_PATIENCE_SECONDS", 0.0)
    with closing(Ownership.of(PlacedAgent(settings, SPEC), Health())) as running:
        assert running.waits_for() is None
        with (
            pytest.raises(RetryableError, match="waiting for another run of this agent"),
            owned(PlacedAgent(settings, SPEC)),
        ):
            raise AssertionError
    with owned(PlacedAgent(settings, SPEC)):
        assert record(settings).holder != ""
    assert record(settings).holder == ""


def test_a_record_that_cannot_be_read_is_waited_for(settings: Settings) -> None:
    folder: Path = settings.owners.path
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder is to be")
    with closing(Ownership.of(PlacedAgent(settings, SPEC), Health())) as ours:
        cause = ours.waits_for()
        assert cause is not None
        folder.unlink()
        assert ours.waits_for() is None
