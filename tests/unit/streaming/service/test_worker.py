"""No worker dies unseen: faults are reported, passing ones are tried again, fatal ones reach the agent."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import (
    ConfigurationError,
    DataLossError,
    DiskError,
    FencedError,
    MachineError,
    RetryableError,
)
from streaming.service import worker as workers
from streaming.service.health import ActiveCondition, Condition, Health
from streaming.service.worker import FATAL, Worker, cause_of, pause_after

SECONDS = 20.0


class Panic(BaseException):
    """What a compiled library raises where it meets what it thought impossible."""


PASSING: list[Callable[[], BaseException]] = [
    lambda: RetryableError("away"),
    lambda: DiskError("full"),
    lambda: MachineError("gone"),
    lambda: OSError(28, "No space left on device"),
    lambda: ValueError("a surprise"),
    MemoryError,
    lambda: Panic("index out of range"),
    lambda: SystemExit(1),
]
LASTING: list[Callable[[], BaseException]] = [
    lambda: FencedError("another driver"),
    lambda: DataLossError("dropped"),
    lambda: ConfigurationError("wrong"),
]


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_SHORTEST_PAUSE_SECONDS", 0.0)


def scripted(script: list[BaseException | None]) -> Callable[[], float | None]:
    """Raise the faults one after the other, None for a round that succeeds; then the work is done."""
    left = iter(script)

    def work() -> float | None:
        try:
            fault = next(left)
        except StopIteration:
            return None
        if fault is not None:
            raise fault
        return 0.0

    return work


@given(st.lists(st.one_of(st.none(), st.sampled_from(PASSING)), max_size=12))
def test_whatever_befalls_it_the_work_goes_on_to_its_end_and_each_fault_was_told(
    script: list[Callable[[], BaseException] | None],
) -> None:
    told: list[ActiveCondition | None] = []
    health = Health(changed=lambda _, state: told.append(state))
    faults = [None if each is None else each() for each in script]
    begun: list[int] = []
    worker = Worker(
        "tried",
        scripted(faults),
        Condition.SHADOW_FAILING,
        health,
        begin=lambda: begun.append(1),
    )
    while worker.attempt() is not None:
        pass
    worker.check()
    assert health.active == (), "the work is done, so nothing fails any more"
    causes = {cause_of(fault) for fault in faults if fault is not None}
    assert {state.cause for state in told if state is not None} == causes
    assert len(begun) == 1 + sum(fault is not None for fault in faults), "it begins again after each"


@given(st.lists(st.sampled_from(PASSING), max_size=5), st.sampled_from(LASTING))
def test_a_fatal_fault_ends_the_work_and_is_raised_whenever_the_agent_asks(
    before: list[Callable[[], BaseException]], fatal: Callable[[], BaseException]
) -> None:
    health = Health()
    fault = fatal()
    worker = Worker(
        "tried", scripted([*(each() for each in before), fault]), Condition.LABELS_FAILING, health
    )
    while worker.attempt() is not None:
        worker.check()
    for _ in range(2):
        with pytest.raises(type(fault)) as raised:
            worker.check()
        assert raised.value is fault
    assert [state.cause for state in health.active] == [str(fault)]


def test_a_worker_that_the_agent_can_do_without_takes_nothing_for_fatal() -> None:
    script = [each() for each in (*LASTING, *PASSING)]
    worker = Worker("tried", scripted([*script]), Condition.SHADOW_FAILING, Health(), fatal=())
    rounds = 0
    while worker.attempt() is not None:
        worker.check()
        rounds += 1
    assert rounds == len(script)


def test_the_thread_outlives_a_panic_and_its_condition_ends_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rounds, enough = [], threading.Event()
    health = Health()

    def work() -> float:
        rounds.append(health.active)
        if len(rounds) == 1:
            raise Panic("index out of range")
        if len(rounds) > 2:
            enough.set()
        return 0.0

    worker = Worker("tried", work, Condition.SHADOW_FAILING, health)
    worker.start()
    assert enough.wait(SECONDS) and worker.is_working
    worker.close()
    assert not worker.is_working
    assert [[each.cause for each in state] for state in rounds[:3]] == [
        [], ["Panic: index out of range"], [],
    ]  # fmt: skip
    assert capsys.readouterr().err == "", "nothing reaches the terminal beside the condition"


def test_closing_waits_for_the_first_round_and_ends_a_pause_at_once() -> None:
    done: list[Any] = []

    def work() -> float:
        done.append(threading.current_thread().name)
        return 10 * SECONDS

    worker = Worker("tried", work, Condition.CHECKPOINT_FAILING, Health())
    worker.start()
    worker.close()
    assert done == ["tried"]


def test_a_worker_that_is_closed_while_it_fails_leaves_no_condition_behind() -> None:
    health = Health()
    worker = Worker("tried", scripted([OSError("full")]), Condition.CHECKPOINT_FAILING, health)
    worker.attempt()
    assert health.active
    worker.close()
    assert health.active == ()


def test_pauses_double_up_to_a_bound() -> None:
    assert [pause_after(failures, 60.0) for failures in (1, 2, 3)] == [0.0, 0.0, 0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_SHORTEST_PAUSE_SECONDS", 0.5)
        assert [pause_after(failures, 60.0) for failures in (1, 2, 3, 8, 10_000)] == [0.5, 1, 2, 60, 60]


def test_health_that_cannot_be_shown_is_no_fault_of_the_work() -> None:
    def broken(_: Condition, __: ActiveCondition | None) -> None:
        raise BrokenPipeError

    worker = Worker("tried", scripted([ValueError("x")]), Condition.SHADOW_FAILING, Health(changed=broken))
    assert worker.attempt() is not None
    assert worker.attempt() is None


def test_the_table_of_faults_is_complete() -> None:
    assert set(FATAL) == {type(each()) for each in LASTING}


def test_a_fault_without_words_has_its_name() -> None:
    """What Java raised asks the JVM for its words, which raises where that has ended."""

    class WordlessError(Exception):
        def __str__(self) -> str:
            raise ConnectionRefusedError("no JVM")

    assert cause_of(WordlessError()) == "WordlessError"
    health, done = Health(), threading.Event()

    def work() -> float | None:
        if not health.active:
            raise WordlessError
        done.set()
        return None

    worker = Worker("w", work, Condition.LABELS_FAILING, health)
    worker.start()
    assert done.wait(SECONDS)
    worker.close()


ROOT = Path(__file__).parents[4]
CONCURRENT = {"Thread", "ThreadPoolExecutor", "ProcessPoolExecutor", "Timer"}


def made(module: Path) -> Iterator[int]:
    """The lines of a module on which a thread, or a pool of them, is made."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in CONCURRENT:
                yield node.lineno


def comment_above(lines: Sequence[str], number: int) -> str:
    above = takewhile(lambda line: line.lstrip().startswith("#"), reversed(lines[: number - 1]))
    return " ".join(line.strip(" #") for line in reversed(list(above)))


@pytest.mark.long
def test_every_thread_that_is_no_worker_says_why() -> None:
    found = 0
    for package in ("schemas", "agent", "streaming"):
        for module in (ROOT / package).rglob("*.py"):
            if module.is_relative_to(ROOT / "streaming" / "testing") or module.name == "worker.py":
                continue
            lines = module.read_text(encoding="utf-8").splitlines()
            for number in made(module):
                found += 1
                assert "No worker" in comment_above(lines, number), f"{module}:{number}"
    assert found > 5
