"""Whatever passes, a run goes on; what cannot pass ends it with its exit code; waiting claims nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import (
    ConfigurationError,
    DataLossError,
    DiskError,
    FencedError,
    FlagstreamError,
    MachineError,
    RetryableError,
)
from streaming.service import supervisor
from streaming.service.health import ActiveCondition, Condition, Health
from streaming.service.supervisor import Need, Supervisor

Fault = Callable[[], BaseException]
PASSING: list[Fault] = [
    lambda: RetryableError("the broker did not do it in 60 s"),
    lambda: DiskError("No space left on device"),
    lambda: OSError(30, "Read-only file system"),
    lambda: ValueError("a surprise"),
    MemoryError,
]
LASTING: list[tuple[Fault, int]] = [
    (lambda: FencedError("another driver"), 4),
    (lambda: ConfigurationError("wrong"), 2),
    (lambda: DataLossError("records were dropped"), 5),
    (lambda: MachineError("no java found"), 3),
]


@pytest.fixture(autouse=True)
def _nothing_to_collect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for cycles after each of a thousand faults would look through all that the tests have made."""
    monkeypatch.setattr(supervisor, "gc", SimpleNamespace(collect=lambda: 0))


class Clock(threading.Event):
    """Time that passes by waiting alone; also the event that is waited for, set once `until` is over."""

    def __init__(self, until: float = 1e9) -> None:
        super().__init__()
        self.now, self.until = 0.0, until
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "no wait is without end"
        self.waits.append(timeout)
        self.now += timeout
        if self.now >= self.until:
            self.set()
        return self.is_set()


class World:
    """An agent whose attempts fail as told, over needs that are away as told."""

    def __init__(
        self,
        faults: Sequence[Fault] = (),
        away: Sequence[Sequence[str | None]] = (),
        *,
        until: float = 1e9,
        patience: float | None = None,
        up_seconds: float = 0.0,
    ) -> None:
        self.told: list[tuple[Condition, str | None]] = []
        self.clock, self.health = Clock(until), Health(changed=self._notify)
        self._faults, self._up = [each() for each in faults], up_seconds
        self._away = [list(each) for each in away]
        self.attempts = 0
        self.looked: list[str | None] = []
        conditions = (Condition.DISK_UNUSABLE, Condition.BROKER_AWAY)
        needs = [
            Need(condition, lambda left=left: self._look(left))
            for condition, left in zip(conditions, self._away, strict=False)
        ]
        self.supervisor = Supervisor(needs, self.health, self.clock, patience=patience, clock=self.clock)

    def run(self) -> None:
        self.supervisor.run(self._attempt)

    def _notify(self, condition: Condition, state: ActiveCondition | None) -> None:
        self.told.append((condition, state and state.cause))

    def _look(self, left: list[str | None]) -> str | None:
        self.looked.append(left.pop(0) if left else None)
        return self.looked[-1]

    def _attempt(self) -> None:
        assert set(self.looked[-len(self._away) :]) <= {None}, "claimed although something was away"
        self.attempts += 1
        self.supervisor.opened()
        self.clock.now += self._up
        self.supervisor.settle()
        if self._faults:
            raise self._faults.pop(0)


causes = st.lists(st.one_of(st.none(), st.just("is away")), max_size=8)


@given(faults=st.lists(st.sampled_from(PASSING), max_size=8), away=st.lists(causes, min_size=2, max_size=2))
def test_a_service_goes_on_through_whatever_passes_and_claims_nothing_while_something_is_away(
    faults: list[Fault], away: list[list[str | None]]
) -> None:
    world = World(faults, away)
    world.run()
    assert world.attempts == len(faults) + 1
    assert {each.condition for each in world.health.active} <= {Condition.RESTARTING}


@pytest.mark.long
@pytest.mark.parametrize(("fault", "code"), LASTING)
@given(before=st.lists(st.sampled_from(PASSING), max_size=4))
def test_what_cannot_pass_ends_the_run_with_its_exit_code(
    fault: Fault, code: int, before: list[Fault]
) -> None:
    world = World([*before, fault])
    with pytest.raises(FlagstreamError) as ended:
        world.run()
    assert (ended.value.exit_code, world.attempts) == (code, len(before) + 1)


def test_a_machine_that_lacks_something_while_its_disk_is_away_is_waited_for() -> None:
    world = World([lambda: MachineError("the table cannot be read")], [[None, "is read-only"]])
    world.run()
    assert world.attempts == 2


@pytest.mark.parametrize("needs", [1, 2])
def test_an_outage_of_an_hour_costs_no_attempt_and_is_told_since_its_beginning(needs: int) -> None:
    world = World(away=[["is away"] * 1_000] * needs, until=3_600)
    world.run()
    assert world.attempts == 0
    assert world.told == [(Condition.DISK_UNUSABLE, "is away")]
    assert max(world.clock.waits) <= 5.0, "what is back is found within seconds"


def test_an_agent_that_fails_again_and_again_begins_at_most_once_a_minute() -> None:
    world = World([PASSING[3]] * 1_000, until=3_600)
    world.run()
    assert world.attempts < 70
    (state,) = world.health.active
    assert (state.condition, state.cause) == (Condition.RESTARTING, "ValueError: a surprise")


def test_an_agent_that_was_up_for_a_while_begins_again_at_once() -> None:
    world = World([PASSING[0]] * 20, up_seconds=3_600)
    world.run()
    assert max(world.clock.waits) <= 0.5
    assert world.health.active == ()


def test_stopping_ends_a_wait_and_an_attempt_that_fails_meanwhile_is_no_fault() -> None:
    world = World([PASSING[0]])
    world.clock.set()
    world.run()
    assert world.attempts == 0
    world = World()

    def stopped() -> None:
        world.clock.set()
        raise RetryableError("the broker went while the current batch was finished")

    world.supervisor.run(stopped)
    assert world.clock.waits == []


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_who_leaves_is_not_held(signal: type[BaseException]) -> None:
    with pytest.raises(signal):
        World([signal]).run()


@pytest.mark.parametrize(
    "world",
    [
        World(away=[["is away"] * 1_000], patience=60),
        World([lambda: RetryableError("is away")] * 1_000, patience=60),
    ],
)
def test_a_run_with_an_end_gives_up_after_its_patience(world: World) -> None:
    with pytest.raises(RetryableError, match=r"gave up after 60 s: .*is away"):
        world.run()
    assert 60 <= world.clock.now <= 130


def test_a_run_with_an_end_waits_anew_for_what_goes_away_later() -> None:
    world = World([PASSING[0]] * 20, patience=60, up_seconds=3_600)
    world.run()
    assert world.attempts == 21


def test_a_run_with_an_end_passes_on_what_nobody_foresaw() -> None:
    world = World([PASSING[3]], patience=60)
    with pytest.raises(ValueError, match="a surprise"):
        world.run()
    assert world.attempts == 1
