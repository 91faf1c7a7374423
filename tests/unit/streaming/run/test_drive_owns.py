"""`drive` holds the record of who runs the agent for as long as it runs it, and not a moment longer."""

from __future__ import annotations

import threading

import pytest

from schemas.errors import FencedError, RetryableError
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.driver import drive
from streaming.run.needs import Needs
from streaming.run.service_run import ServiceRun
from streaming.run.surroundings import Hooks
from streaming.service.health import Condition, read_health
from streaming.store import owner
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import agent
from tests.unit.streaming.run.test_ownership import record

SECONDS = 20.0
SPEC = agent()


@pytest.fixture(autouse=True)
def _nothing_else_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Needs, "all", lambda _: [])


def run(settings: Settings, attempt: object, monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    monkeypatch.setattr(ServiceRun, "attempt", attempt)
    order = {"llm": "none", "stop": threading.Event(), "as_json": True, **more}
    drive(PlacedAgent(settings, SPEC), "127.0.0.1:1", **order)  # type: ignore[arg-type]  # as they are named


def test_the_record_is_held_while_it_runs_and_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[str]()

    def attempt(self: ServiceRun, *_: object) -> None:
        seen.append(record(settings).holder)
        self._polled()
        if len(seen) < 2:
            raise RetryableError("once more")

    run(settings, attempt, monkeypatch)
    assert len(seen) == 2
    assert seen[0] == seen[1] != "", "kept from attempt to attempt"
    assert record(settings).holder == ""


def test_a_second_run_makes_no_attempt_while_the_first_one_moves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.05)
    attempts, end = list[int](), threading.Event()

    def attempt(*_: object) -> None:
        attempts.append(1)
        assert end.wait(SECONDS)

    monkeypatch.setattr("streaming.run.driver.stop_on_interrupt", _no_signals)
    first = threading.Thread(target=run, args=(settings, attempt, monkeypatch))
    first.start()
    wait_until(lambda: bool(attempts), SECONDS, "the first to run")
    hooks = Hooks(takeover_seconds=0.5)
    with pytest.raises(RetryableError, match="gave up after 1 s: waiting for another run of this agent"):
        run(settings, attempt, monkeypatch, patience=1.0, hooks=hooks)
    assert attempts == [1]
    end.set()
    first.join()
    assert read_health(settings.health(SPEC.name)) == ()
    assert record(settings).holder == ""


def test_whose_record_was_taken_ends_as_fenced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.01)

    def attempt(self: ServiceRun, *_: object) -> None:
        settings.owners.path.joinpath("tester.json").unlink()
        wait_until(lambda: _fenced(self), SECONDS, "the next beat")
        self._polled()

    with pytest.raises(FencedError, match="another run of this agent has taken over"):
        run(settings, attempt, monkeypatch)
    assert Condition.OWNER_FAILING not in {each.condition for each in read_health(settings.health("tester"))}


def _fenced(running: ServiceRun) -> bool:
    try:
        running._polled()
    except FencedError:
        return True
    return False


class _no_signals:  # noqa: N801 -- stands in for a function
    """Signals are for the main thread alone."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
