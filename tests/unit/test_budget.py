"""The daily token budget holds under reservations, settlements, midnight and restarts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from agent.budget import Booking, SpendingBudget
from schemas.spec import Budget

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
    assert budget.tokens_left_today == 70
    assert budget.reserve(70) is not None
    assert budget.tokens_left_today == 0


def test_other_limits_count_what_was_spent_under_those_before() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=100), Calendar())
    assert budget.reserve(80) is not None
    budget.limit(Budget(tokens_per_day=50))
    assert budget.reserve(1) is None
    budget.limit(Budget(tokens_per_day=200, tokens_per_minute=90))
    assert budget.tokens_left_today == 120
    assert budget.reserve(11) is None
    assert budget.reserve(10) is not None


def test_a_call_may_use_more_than_was_reserved_but_remaining_is_never_negative() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=100), Calendar())
    booking = budget.reserve(90)
    assert booking is not None
    budget.settle(booking, 500)
    assert budget.tokens_left_today == 0
    assert budget.reserve(1) is None


def test_midnight_utc_opens_a_new_day_and_late_settlements_leave_it_alone() -> None:
    calendar = Calendar()
    budget = SpendingBudget(Budget(tokens_per_day=100), calendar)
    yesterday = budget.reserve(100)
    assert yesterday is not None
    calendar.now += timedelta(hours=12)
    assert budget.tokens_left_today == 100
    budget.reserve(40)
    budget.settle(yesterday, 10)
    assert budget.tokens_left_today == 60


def test_a_restart_takes_over_todays_use_only() -> None:
    budget = SpendingBudget(Budget(tokens_per_day=100), Calendar())
    budget.restore(NOON - timedelta(hours=13), 90)
    budget.restore(NOON - timedelta(hours=12), 25)
    assert budget.tokens_left_today == 75


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


def test_a_settlement_after_its_minute_counts_for_the_day_alone() -> None:
    calendar = Calendar()
    budget = SpendingBudget(Budget(tokens_per_day=100, tokens_per_minute=50), calendar)
    booking = budget.reserve(50)
    assert booking is not None
    calendar.now += timedelta(minutes=1)
    assert budget.reserve(40) is not None
    budget.settle(booking, 0)
    assert budget.tokens_left_today == 60
    assert budget.reserve(11) is None
