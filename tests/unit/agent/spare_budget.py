"""What a budget has left, found by trying, as a caller would."""

from __future__ import annotations

from agent.model.budget import SpendingBudget

_MOST = 1 << 20


def admitted(budget: SpendingBudget) -> int:
    """Return how many tokens a call may take now; the budget is left as it was."""
    least, most = 0, _MOST
    while least < most:
        middle = (least + most + 1) // 2
        booking = budget.reserve(middle)
        if booking is None:
            most = middle - 1
        else:
            budget.settle(booking, 0)
            least = middle
    return least
