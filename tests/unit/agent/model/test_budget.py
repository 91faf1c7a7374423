"""The daily token budget holds under reservations, settlements, midnight, restarts and clocks set back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agent import SPECS
from agent.model.budget import Booking, SpendingBudget
from agent.model.steady_clock import SteadyClock
from agent.triage.triage import TriageResult
from schemas.contract import load_contract
from schemas.lake_tables import lake_schemas
from schemas.llm import Budget
from schemas.spec import load_spec
from schemas.tables import BATCHES
from streaming.batch.late_windows import LateJournal, LateWindow
from streaming.batch.spending import restored_budget
from streaming.delta.lake import Lake
from streaming.delta.lake_table import Stamp
from streaming.store.place import Place
from tests.unit.agent.spare_budget import admitted

SPEC = load_spec(SPECS / "card-fraud.yaml")
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Calendar:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def test_what_does_not_fit_is_refused_and_what_is_settled_is_free_again() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=100), Calendar())
    booking = budget.reserve(80)
    assert booking == Booking(NOON, 80, 0.0)
    assert budget.reserve(21) is None
    budget.settle(booking, 30)
    assert admitted(budget) == 70
    assert budget.reserve(70) is not None
    assert admitted(budget) == 0


def test_other_limits_count_what_was_spent_under_those_before() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=100), Calendar())
    assert budget.reserve(80) is not None
    budget.limit(Budget(tokens_per_day=50))
    assert budget.reserve(1) is None
    budget.limit(Budget(tokens_per_day=200, tokens_per_minute=90))
    assert admitted(budget) == 10
    budget.limit(Budget(tokens_per_day=200))
    assert admitted(budget) == 120


def test_a_call_may_use_more_than_was_reserved_but_remaining_is_never_negative() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=100), Calendar())
    booking = budget.reserve(90)
    assert booking is not None
    budget.settle(booking, 500)
    assert admitted(budget) == 0
    assert budget.reserve(1) is None


def test_midnight_utc_opens_a_new_day_and_late_settlements_leave_it_alone() -> None:
    calendar = Calendar()
    budget = SpendingBudget(Budget(tokens_per_day=100), calendar)
    yesterday = budget.reserve(100)
    assert yesterday is not None
    calendar.now += timedelta(hours=12)
    assert admitted(budget) == 100
    budget.reserve(40)
    budget.settle(yesterday, 10)
    assert admitted(budget) == 60


def test_a_restart_takes_over_todays_use_only() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=100), Calendar())
    budget.restore(NOON - timedelta(hours=13), 90)
    budget.restore(NOON - timedelta(hours=12), 25)
    assert admitted(budget) == 75


def test_threads_never_reserve_more_than_there_is() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=1000), Calendar())
    with ThreadPoolExecutor(8) as pool:
        booked = list(pool.map(budget.reserve, [3] * 600))
    assert sum(day is not None for day in booked) == 333


def test_minutes_and_money_are_limited_too() -> None:
    calendar = Calendar()
    limits = Budget(tokens_per_minute=50, usd_per_minute=0.5, usd_per_day=0.8)
    budget = SpendingBudget(limits, calendar)
    booking = budget.reserve(50, 0.4)
    assert booking is not None
    assert budget.reserve(1, 0.0) is None
    budget.settle(booking, 10, 0.3)
    assert budget.reserve(1, 0.3) is None
    assert budget.reserve(40, 0.2) is not None
    calendar.now += timedelta(minutes=1)
    assert budget.reserve(50, 0.4) is None
    assert budget.reserve(50, 0.3) is not None


def test_a_refusal_is_counted_by_the_window_that_is_full_and_of_both_by_the_day() -> None:
    moment = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    budget = SpendingBudget(Budget(tokens_per_minute=100, tokens_per_day=250), lambda: moment)
    assert budget.reserve(80) is not None
    assert budget.reserve(30) is None
    assert budget.refusals == {"minute": 1, "day": 0}
    moment += timedelta(minutes=1)
    assert budget.reserve(80) is not None
    assert budget.reserve(95) is None
    assert budget.refusals == {"minute": 1, "day": 1}
    moment += timedelta(minutes=1)
    assert budget.reserve(95) is None
    assert budget.refusals == {"minute": 1, "day": 2}


def test_a_settlement_after_its_minute_counts_for_the_day_alone() -> None:
    calendar = Calendar()
    budget = SpendingBudget(Budget(tokens_per_day=100, tokens_per_minute=50), calendar)
    booking = budget.reserve(50)
    assert booking is not None
    calendar.now += timedelta(minutes=1)
    assert budget.reserve(40) is not None
    budget.settle(booking, 0)
    assert admitted(budget) == 10
    budget.limit(Budget(tokens_per_day=100))
    assert admitted(budget) == 60


@dataclass
class Machine:
    """A machine whose wall clock can be set back; `running` are the seconds that have really passed."""

    running: float = 0.0
    behind: float = 0.0

    def wall(self) -> datetime:
        return NOON + timedelta(seconds=self.running - self.behind)

    def clock(self) -> SteadyClock:
        return SteadyClock(self.wall, lambda: self.running)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["spend", "settle", "restart"]),
        st.sampled_from([0.0, 1.0, 59.0, 3_600.0, 40_000.0]),  # seconds that pass before
        st.sampled_from([0.0, 61.0, 50_000.0, 200_000.0, 10_000_000.0]),  # how far the clock is then behind
    ),
    max_size=40,
)


@given(STEPS)
def test_no_clock_set_back_lets_more_be_spent_than_the_days_allow(
    steps: list[tuple[str, float, float]],
) -> None:
    machine, spent, record = Machine(), 0, [(NOON, 0)]
    clock = machine.clock()
    budget = SpendingBudget(Budget(tokens_per_day=100), clock)
    for kind, passed, behind in steps:
        machine.running, machine.behind = machine.running + passed, behind
        if kind == "restart":
            clock = machine.clock()
            for at, _ in record:
                clock.reach(at)
            budget = SpendingBudget(Budget(tokens_per_day=100), clock)
            for at, tokens in record:
                budget.restore(at, tokens)
        elif (booking := budget.reserve(70)) is not None:
            used = 30 if kind == "settle" else 70
            budget.settle(booking, used)
            spent += used
            record.append((clock(), used))
        days = (NOON + timedelta(seconds=machine.running)).date() - NOON.date()
        assert spent <= 100 * (days.days + 1)


def test_a_clock_set_back_opens_neither_the_day_nor_the_minute_again() -> None:
    calendar = Calendar()
    budget = SpendingBudget(Budget(tokens_per_day=100, tokens_per_minute=60), calendar)
    assert budget.reserve(60) is not None
    calendar.now -= timedelta(minutes=1)
    assert budget.reserve(1) is None
    calendar.now -= timedelta(days=1)
    assert budget.reserve(1) is None
    calendar.now = NOON + timedelta(minutes=1)
    assert budget.reserve(41) is None
    assert budget.reserve(40) is not None


def test_minutes_go_on_while_the_clock_is_behind() -> None:
    machine = Machine()
    budget = SpendingBudget(Budget(tokens_per_minute=60), machine.clock())
    assert budget.reserve(60) is not None
    machine.behind, machine.running = 86_400.0, 59.0
    assert budget.reserve(60) is None
    machine.running = 60.0
    assert budget.reserve(60) is not None


def spend(lake: Lake, at: datetime, tokens: int) -> None:
    """Record a round of late questions."""
    result = TriageResult((), calls=1, input_tokens=tokens)
    LateJournal(lake.late, "cards", lambda: at).asked(LateWindow(0, 1), result)


def test_a_restart_after_the_clock_was_set_back_finds_the_day_spent(tmp_path: Path) -> None:
    lake = Lake.open(
        Place.local(tmp_path), SPEC, lake_schemas(load_contract("simulator")), retention=timedelta(days=30)
    )
    machine = Machine()
    spend(lake, NOON - timedelta(days=1), 1_000)
    spend(lake, NOON, 30)
    spend(lake, NOON - timedelta(hours=20), 20)  # yesterday by its stamp, written today
    row = {"closed_at": NOON, "opened_at": NOON, "next_sequence": 5, "input_tokens": 7, "output_tokens": 3}
    empty = {field.name: None for field in BATCHES}
    lake.batches.append(
        pa.Table.from_pylist([{**empty, **row, "cost_usd": 0.0}], schema=BATCHES), Stamp("q", 0)
    )
    for machine.behind in (0.0, 3_600.0, 86_400.0, 864_000.0):
        budget = restored_budget(Budget(tokens_per_day=100), lake, machine.clock())
        assert admitted(budget) == 40
    machine.running, machine.behind = 86_400.0, 0.0
    assert admitted(restored_budget(Budget(tokens_per_day=100), lake, machine.clock())) == 100
