"""The daily token budget holds under reservations, settlements, midnight and restarts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

from agent.budget import TokenBudget

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Calendar:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def test_what_does_not_fit_is_refused_and_what_is_settled_is_free_again() -> None:
    budget = TokenBudget(100, Calendar())
    day = budget.reserve(80)
    assert day == date(2024, 5, 1)
    assert budget.reserve(21) is None
    budget.settle(day, reserved=80, used=30)
    assert budget.remaining == 70
    assert budget.reserve(70) is not None
    assert budget.remaining == 0


def test_a_call_may_use_more_than_was_reserved_but_remaining_is_never_negative() -> None:
    budget = TokenBudget(100, Calendar())
    day = budget.reserve(90)
    assert day is not None
    budget.settle(day, reserved=90, used=500)
    assert budget.remaining == 0
    assert budget.reserve(1) is None


def test_midnight_utc_opens_a_new_day_and_late_settlements_leave_it_alone() -> None:
    calendar = Calendar()
    budget = TokenBudget(100, calendar)
    yesterday = budget.reserve(100)
    assert yesterday is not None
    calendar.now += timedelta(hours=12)
    assert budget.remaining == 100
    budget.reserve(40)
    budget.settle(yesterday, reserved=100, used=10)
    assert budget.remaining == 60


def test_a_restart_takes_over_todays_use_only() -> None:
    budget = TokenBudget(100, Calendar())
    budget.restore(date(2024, 4, 30), 90)
    budget.restore(date(2024, 5, 1), 25)
    assert budget.remaining == 75


def test_threads_never_reserve_more_than_there_is() -> None:
    budget = TokenBudget(1000, Calendar())
    with ThreadPoolExecutor(8) as pool:
        booked = list(pool.map(budget.reserve, [3] * 600))
    assert sum(day is not None for day in booked) == 333
